"""Clients that speak FastRTC's protocol walk in: aiortc as its own front end does, and a page in Chromium that trickles."""

import json
import urllib.request

from conftest import CHAIN, MODEL
from returning import numbered, pictures, rises
from test_chromium import chromium, page, until  # noqa: F401: two are fixtures
from test_refusals import ask, post, sdp  # noqa: F401: the last is one

ANNOTATE = f"framemeta ! inferencefilter model={MODEL} when-busy=latest ! framemetaoverlay"
DARKEN = "videobalance name=light"


def come(visit, server, name="abc", *args):
    return visit(server, "--id", name, *args, route="", script="client_fastrtc.py")


def message(client, kind, test=lambda m: True):
    """A message of that type on the channel."""

    def found(e):
        return e["event"] == "message" and e["message"]["type"] == kind and test(e["message"])

    return client.wait(found, f"a message {kind}")[0]["message"]


def test_front_end_gets_its_video_back_and_hears_of_it(serve, visit):
    server = serve(f'video-chain="{ANNOTATE}"')
    client = come(visit, server)
    for posted in client.event("posted", count=2):
        assert posted["status"] == 200
        assert posted["body"] == {"status": "success"}
    assert client.event("answer")["body"]["type"] == "answer"
    assert rises([e["shows"] for e in numbered(client, 30)])

    assert message(client, "log") == {"type": "log", "data": "Server received: handshake"}
    assert message(client, "send_input") == {"type": "send_input", "data": []}
    result = message(client, "fetch_output")["data"][0]
    assert result["video_metadata"]["frame_id"] >= 1
    client.ask("say how are you?")
    message(client, "log", lambda m: m["data"] == "Server received: how are you?")
    # What was said to the server itself is not the application's business.
    assert server.message("rtc-data")["text"] == "how are you?"

    ended, _ = ask(urllib.request.Request(f"{server.url}/connections/abc", method="DELETE"))
    assert ended == 204
    assert message(client, "end_stream")["data"] == "closed-by-application"
    assert message(client, "update_connection")["data"] == "closed"
    last = server.message("rtc-connection-ended", external_id="abc")
    assert last["reason"] == "closed-by-application" and last["door"] == "fastrtc"


def test_media_does_not_wait_for_a_channel(serve, visit):
    client = come(visit, serve("video-chain=identity"), "abc", "--no-channel")
    assert rises([e["shows"] for e in numbered(client, 30)])


def test_inputs_are_arguments_of_the_chain(serve, visit):
    client = come(visit, serve(f'video-chain="{DARKEN}" client-args=light.brightness,lamp.brightness,light.colour'))
    numbered(client, 5)
    client.ask("input " + json.dumps({"light.brightness": -1.0, "confidence": 0.3}))
    given = client.event("input")
    assert (given["status"], given["body"]) == (200, {"status": "success"})
    pictures(client, lambda e: e["shows"] == "black", 5, "a dark picture")
    for wrong, named in {"lamp.brightness": "lamp", "light.colour": "colour", "1st": "1st", "light.contrast": "client-args"}.items():
        client.ask("input " + json.dumps({wrong: 1}))
        refused = client.wait(lambda e: e["event"] == "input" and named in json.dumps(e["body"]), f"a refusal of {wrong}")
        assert refused[0]["body"]["status"] == "failed"


def test_chain_that_fails_is_told_as_an_error(serve, visit):
    client = come(visit, serve('video-chain="identity error-after=20"'))
    error = message(client, "error")
    assert error["message"] == error["data"] != ""
    message(client, "end_stream")


def test_refusals_are_what_its_front_end_knows(serve, visit, sdp):  # noqa: F811
    server = serve(f'max-connections=1 video-chain="{CHAIN}"')
    url = f"{server.url}/webrtc/offer"

    def posted(**body):
        return post(url, json.dumps(body).encode())

    def refused(error, **more):
        return 200, {"status": "failed", "meta": {"error": error, **more}}

    client = come(visit, server)
    client.event("answer")
    assert posted(type="offer", sdp=sdp, webrtc_id="abc") == refused("connection_already_exists")
    assert posted(type="offer", sdp=sdp, webrtc_id="b") == refused("concurrency_limit_reached", limit=1)
    for candidate in "nonsense", "candidate:1 1 udp", "candidate:1 1 udp 1 192.0.2.1 99999 typ host", "x" * 600:
        answer = posted(type="ice-candidate", webrtc_id="abc", candidate={"candidate": candidate})
        assert answer == refused("invalid_candidate_format"), candidate
    for body in {"type": "offer", "sdp": sdp}, {"webrtc_id": "b"}, {"webrtc_id": "", "type": "offer", "sdp": sdp}:
        status, answer = posted(**body)
        assert status == 422 and answer["detail"][0]["loc"][0] == "body", body
    for body in b"", b"[]", b"\xff", b"{" * 100_000, b'{"webrtc_id":7,"type":"offer"}':
        assert post(url, body)[0] == 422, body[:20]
    assert post(f"{server.url}/input_hook", b'{"webrtc_id":"nobody"}')[1] == refused("unknown_connection")[1]
    assert post(f"{server.url}/input_hook", b"[]")[0] == 422
    client.close()
    server.message("rtc-connection-ended", external_id="abc")
    for garbage in "", "hello", "v=0\r\n" + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 1000:
        status, answer = posted(type="offer", sdp=garbage, webrtc_id="c")
        assert (status, answer["status"]) == (200, "failed"), garbage[:20]
    # No refusal has taken the one place.
    assert "sdp" in come(visit, server, "d").event("answer")["body"]


# Written after FastRTC's documentation for pages, candidates sent as the browser finds them.
PAGE = """
    async ({ id }) => {
        const post = async (body) => (await fetch("/webrtc/offer", { method: "POST",
            headers: { "Content-Type": "application/json" }, body: JSON.stringify({ webrtc_id: id, ...body }) })).json();
        const pc = window.pc = new RTCPeerConnection();
        window.said = [];
        window.posted = [];
        const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
        camera.getTracks().forEach((track) => pc.addTrack(track, camera));
        const video = window.video = document.createElement("video");
        video.muted = true;
        pc.ontrack = ({ streams, track }) => { video.srcObject = streams[0] ?? new MediaStream([track]); video.play(); };
        const channel = pc.createDataChannel("text");
        channel.onopen = () => channel.send("handshake");
        channel.onmessage = ({ data }) => said.push(JSON.parse(data));
        const waiting = [];
        let answered = false;
        const trickle = async (candidate) => posted.push(await post({ type: "ice-candidate", candidate: candidate.toJSON() }));
        pc.onicecandidate = ({ candidate }) => {
            if (candidate?.candidate) { if (answered) trickle(candidate); else waiting.push(candidate); }
        };
        const offer = await pc.createOffer();
        const answer = post({ sdp: offer.sdp, type: offer.type });
        await pc.setLocalDescription(offer);
        await pc.setRemoteDescription(await answer);
        answered = true;
        waiting.forEach(trickle);
    }
"""


def test_page_that_trickles(serve, page):  # noqa: F811
    server = serve(f'video-chain="{ANNOTATE}"')
    page.goto(server.url)
    page.evaluate(PAGE, {"id": "page"})
    until(page, "video.videoWidth === 640 && video.currentTime > 0.5")
    until(page, "said.some((m) => m.type === 'fetch_output')")
    assert page.evaluate("said.find((m) => m.type === 'log')") == {"type": "log", "data": "Server received: handshake"}
    posted = page.evaluate("posted")
    assert posted and all(p == {"status": "success"} for p in posted), posted
    server.message("rtc-connection-created", door="fastrtc", external_id="page")
    page.evaluate("pc.close()")
    assert server.message("rtc-connection-ended", external_id="page")["reason"] == "client-closed"
