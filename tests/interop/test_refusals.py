"""Bad input gets a clear answer and harms nobody; a bad set-up is refused before it plays."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiortc import RTCPeerConnection

from conftest import MODEL, PATIENCE, free_port


def post(url, body, content_type="application/json"):
    """Status and decoded body of an answer, whatever its status."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    return ask(request)


def ask(request):
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


async def make_offer(media):
    pc = RTCPeerConnection()
    pc.createDataChannel("anything")
    for kind in media:
        pc.addTransceiver(kind, direction="sendrecv")
    await pc.setLocalDescription(await pc.createOffer())
    sdp = pc.localDescription.sdp
    await pc.close()
    return sdp


@pytest.fixture(scope="module")
def sdp():
    """A good offer with audio, video and a data channel."""
    # This thread may have a loop that runs, a browser's.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, make_offer(["audio", "video"])).result()


def sections(sdp):
    """The session part, then each m-line's."""
    head, *media = re.split(r"(?m)^(?=m=)", sdp)
    return head, media


def many_lines(sdp):
    head, media = sections(sdp)
    video = next(m for m in media if m.startswith("m=video"))
    copies = [re.sub(r"(?m)^a=mid:.*$", f"a=mid:{i}\r", video).replace("\r\r", "\r") for i in range(17)]
    bundle = "a=group:BUNDLE " + " ".join(str(i) for i in range(17))
    return re.sub(r"(?m)^a=group:BUNDLE.*$", bundle + "\r", head).replace("\r\r", "\r") + "".join(copies)


def many_candidates(sdp):
    line = "a=candidate:{n} 1 udp 2130706431 10.99.0.1 {port} typ host\r\n"
    return sdp.rstrip() + "\r\n" + "".join(line.format(n=n, port=20000 + n) for n in range(201))


def session_ufrag_twice(sdp):
    """Aborts webrtcbin: two session-level ufrags, and an m-line without its own."""
    head, media = sections(sdp)
    media[0] = re.sub(r"(?m)^a=ice-(ufrag|pwd):.*\r\n", "", media[0])
    return head + "a=ice-ufrag:abcd\r\na=ice-ufrag:efgh\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n" + "".join(media)


def data_only(sdp):
    head, media = sections(sdp)
    data = [m for m in media if m.startswith("m=application")]
    mid = re.search(r"a=mid:(\S+)", data[0])[1]
    return re.sub(r"(?m)^a=group:BUNDLE.*$", f"a=group:BUNDLE {mid}\r", head).replace("\r\r", "\r") + data[0]


def offer(text):
    return json.dumps({"sdp": text, "type": "offer"}).encode()


def test_second_offer_with_its_lines_reordered_harms_nobody(serve, visit, sdp):
    """What aborts webrtcbin as a re-offer."""
    server = serve("video-chain=fakesink")
    status, answer = post(server.url + "/offer", offer(sdp))
    assert status == 200
    head, media = sections(sdp)
    body = json.dumps({"sdp": head + "".join(reversed(media)), "type": "offer", "pc_id": answer["pc_id"]}).encode()
    status, body = post(server.url + "/offer", body)
    assert 400 <= status < 500 and body["error"] and body["message"], (status, body)
    visit(server).event("open")


def test_unknown_routes_and_methods_are_told(serve):
    server = serve("video-chain=fakesink")
    assert ask(server.url + "/nowhere")[0] == 404
    assert ask(server.url + "/offer")[0] == 405
    assert post(server.url + "/", b"{}")[0] == 405


def test_full_server_refuses_with_503_until_a_place_is_free(serve, visit):
    server = serve('max-connections=1 video-chain="fakesink"')
    first = visit(server)
    first.event("open")
    refused = visit(server).event("refused")
    assert refused["status"] == 503 and refused["body"]["error"] and refused["body"]["message"]
    rejected = server.message("rtc-connection-rejected")
    assert rejected["limit"] == 1
    first.close()
    server.message("rtc-connection-ended")
    visit(server).event("open")


def test_info_tells_what_runs(serve):
    server = serve("video-chain=fakesink", env={"RTCINFERENCE_LAUNCH": "the line"})
    status, info = ask(server.url + "/info")
    assert status == 200
    assert info["launch"] == "the line" and info["version"] and info["video_codecs"]


def test_server_answers_with_nothing_but_127_0_0_1(serve, sdp):
    server = serve("video-chain=fakesink", inside=["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"])
    answer = subprocess.run(
        ["nsenter", "-t", str(server.process.pid), "-n", sys.executable, "-c", POST, server.url + "/offer"],
        input=offer(sdp), stdout=subprocess.PIPE, check=True, timeout=PATIENCE,
    )
    candidates = re.findall(r"a=candidate:.*", json.loads(answer.stdout)["sdp"])
    assert {c.split()[4] for c in candidates} <= {"127.0.0.1", "::1"}
    assert any("127.0.0.1" in c for c in candidates)


POST = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""


SETUPS = {
    "occupied port": ("rtcsessionsrc listen=http://127.0.0.1:{taken} video-chain=fakesink", "{taken}"),
    "no URL": ("rtcsessionsrc listen=nonsense video-chain=fakesink", "nonsense"),
    "unknown element": ("rtcsessionsrc listen=http://127.0.0.1:{free} video-chain=nosuchelement", "nosuchelement"),
    "chain without a sink pad": ("rtcsessionsrc listen=http://127.0.0.1:{free} video-chain=videotestsrc", "video-chain|videotestsrc"),
    "impossible address": ("rtcsessionsrc listen=http://127.0.0.1:{free} ice-addresses=nowhere video-chain=fakesink", "nowhere"),
    "unknown codec": ("rtcsessionsrc listen=http://127.0.0.1:{free} video-codecs=morse video-chain=fakesink", "morse"),
    "missing model": ("videotestsrc num-buffers=1 ! inferencesink model=/nowhere/shapes.onnx", "/nowhere/shapes.onnx"),
    "broken model": ("videotestsrc num-buffers=1 ! inferencesink model={broken}", "{broken}"),
    "missing model in a chain": (
        'rtcsessionsrc listen=http://127.0.0.1:{free} video-chain="inferencesink model=/nowhere/shapes.onnx"',
        "/nowhere/shapes.onnx",
    ),
    "missing labels": (f"videotestsrc num-buffers=1 ! inferencesink model={MODEL} labels=/nowhere/names.txt", "/nowhere/names.txt"),
    "impossible decoder": (f"videotestsrc num-buffers=1 ! inferencesink model={MODEL} decoder=tarot", "tarot"),
}


@pytest.mark.parametrize("name", SETUPS)
def test_bad_setup_is_refused_before_playing(launch, log, tmp_path, name):
    description, told = SETUPS[name]
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"taken": taken.getsockname()[1], "free": free_port(), "broken": str(broken)}
        server = launch(description.format(**known), options=("-m",))
        assert server.exit_code() != 0
    said = log.read_text(errors="replace")
    assert re.search(told.format(**known), re.sub(r"(?m)^Got message.*$", "", said)), said
    assert "new-state=(GstState)playing" not in said
