"""WHIP clients (RFC 9725) walk in, trickle, restart ICE and leave; what is not WHIP gets a clear answer and harms nobody."""

import json
import re
import socket
import urllib.error
import urllib.request
from contextlib import closing

import pytest

import scenes
from conftest import PATIENCE, ROOT
from test_refusals import sdp, sections  # noqa: F401 (sdp is a fixture)

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
RESULTS = 30
# Sessions that nobody follows up outlast the test.
PATIENT = "setup-timeout=60000"
CANDIDATE = "a=candidate:{n} 1 udp 2130706431 10.99.0.1 {port} typ host\r\n"


def ask(method, url, body=None, kind=None, **headers):
    """Status, headers and body of an answer, whatever its status."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if kind:
        headers["Content-Type"] = kind
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.fixture
def whip(visit):
    """Starts a WHIP client of a server."""

    def start(server, *args):
        return visit(server, *args, route="/whip", script="client_whip.py")

    return start


@pytest.fixture(scope="session")
def peer_env(plugin_env, tmp_path_factory):
    """The environment of a process that knows whipclientsink of gst-plugins-rs, and nothing of ours."""
    folder = ROOT / "target/peers/debug"
    assert (folder / "libgstwhippeer.so").exists(), f"no peer in {folder}; run scripts/peers"
    registry = tmp_path_factory.mktemp("peer") / "registry.bin"
    # It would take FFmpeg's encoder for hardware that is not there.
    rank = "avenc_h264_omx:NONE"
    return {"GST_PLUGIN_PATH": str(folder), "GST_REGISTRY": str(registry), "GST_PLUGIN_FEATURE_RANK": rank, "G_DEBUG": ""}


@pytest.fixture
def session(sdp):
    """Posts an offer that nobody follows up; gives its session's URL and entity tag."""

    def start(server):
        status, headers, answer = ask("POST", server.url + "/whip", sdp.encode(), SDP)
        assert status == 201, answer
        return server.url + headers["Location"], headers["ETag"]

    return start


def test_client_trickles_is_served_and_leaves(serve, whip):
    server = serve()
    client = whip(server)
    answer = client.event("answer")
    created = server.message("rtc-connection-created")
    connection = created["connection-id"]
    assert created["door"] == "whip"
    assert answer["headers"]["content-type"] == SDP
    assert answer["headers"]["location"] == f"/whip/{connection}"
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', answer["headers"]["etag"])
    assert "a=candidate:" in answer["sdp"] and "10.99.0.1" in answer["sdp"]
    assert client.event("trickled")["status"] == 204

    results = server.message("inference-result", count=RESULTS, connection_id=connection)
    boxes = [len(scenes.predicted(json.loads(m["json"]))) for m in results]
    assert sum(boxes) / len(boxes) > 2, f"three shapes were sent, found were {boxes}"
    listed = json.loads(ask("GET", server.url + "/connections")[2])
    assert [(c["connection_id"], c["door"], c["state"]) for c in listed] == [(connection, "whip", "playing")]
    with closing(urllib.request.urlopen(f"{server.url}/outputs?webrtc_id={connection}", timeout=PATIENCE)) as outputs:
        assert outputs.readline().strip() == b"event: output"

    client.close()
    assert client.event("deleted")["status"] == 200
    assert server.message("rtc-stream-ended")["reason"] == "client-closed"
    ended = server.message("rtc-connection-ended", connection_id=connection)
    assert (ended["door"], ended["reason"], ended["had-media"]) == ("whip", "client-closed", True)
    for method in ("DELETE", "PATCH", "GET"):
        assert ask(method, answer["resource"], b"", FRAGMENT, If_Match="*")[0] == 404


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_whipclientsink_walks_in(serve, launch, peer_env, codec):
    server = serve()
    client = launch(
        f"videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 ! "
        f"whipclientsink stun-server=NULL video-caps=video/x-{codec} signaller::whip-endpoint={server.url}/whip",
        env=peer_env,
    )
    started = server.message("rtc-stream-started")
    assert codec.removeprefix("h") in started["codec"].lower()
    server.message("inference-result", count=RESULTS, connection_id=started["connection-id"])
    client.interrupt()
    ended = server.message("rtc-connection-ended")
    assert (ended["door"], ended["reason"]) == ("whip", "client-closed")
    assert client.exit_code() == 0


def test_end_of_the_http_session_alone_ends_the_connection(serve, whip):
    server = serve("video-chain=fakesink")
    client = whip(server)
    server.message("rtc-stream-started")
    # The entity tag is of no interest here (RFC 9725, 4.3.1).
    status, _, body = ask("DELETE", client.event("answer")["resource"], If_Match='"another"')
    assert (status, body) == (200, b"")
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
    client.event("state", state="closed")


def test_candidates_that_come_later_are_enough_to_connect(serve, whip):
    server = serve("video-chain=fakesink")
    client = whip(server, "--await-checks")
    client.event("state", state="connected")
    server.message("rtc-stream-started")


def test_h264_and_audio_are_taken(serve, whip):
    server = serve("video-chain=fakesink audio-chain=fakesink")
    whip(server, "--codec", "H264", "--audio")
    started = {m["media"]: m["codec"].lower() for m in server.message("rtc-stream-started", count=2)}
    assert "264" in started["video"] and "opus" in started["audio"]


def test_ice_restarts_while_media_flows(serve, whip):
    server = serve()
    client = whip(server)
    connection = server.message("rtc-connection-created")["connection-id"]
    server.message("inference-result", count=RESULTS)
    answer = client.event("answer")
    tags = [answer["headers"]["etag"]]
    for number in (1, 2):
        client.ask("restart")
        restarted = client.event("restarted", count=number)[-1]
        assert restarted["status"] == 200, restarted
        assert restarted["etag"] not in tags
        tags.append(restarted["etag"])
        for name in ("ice-ufrag", "ice-pwd"):
            new = re.search(rf"(?m)^a={name}:\S+", restarted["body"])[0]
            assert new not in answer["sdp"]
        assert "a=candidate:" in restarted["body"]
        # What comes from here on comes over the new ICE session: the client has closed the sockets of the old one.
        since = len(server.said)
        server.message("inference-result", since=since, count=RESULTS, connection_id=connection)
    assert not server.all("rtc-stream-ended") and not server.all("rtc-connection-error")

    status, headers, _ = ask("PATCH", answer["resource"], b"a=end-of-candidates\r\n", FRAGMENT, If_Match=tags[0])
    assert status == 412
    for tag in (tags[-1], f'"old", {tags[-1]}'):
        status, headers, body = ask("PATCH", answer["resource"], b"a=end-of-candidates\r\n", FRAGMENT, If_Match=tag)
        assert (status, headers["ETag"], body) == (204, None, b"")
    client.close()
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"


def test_what_was_said_already_changes_nothing(serve, whip):
    server = serve()
    client = whip(server)
    server.message("inference-result")
    answer = client.event("answer")
    # Some clients mean any session by the asterisk, and no restart: their credentials are not new.
    for tag in (answer["headers"]["etag"], "*", '"*"', answer["headers"]["etag"]):
        status, headers, _ = ask("PATCH", answer["resource"], answer["fragment"].encode(), FRAGMENT, If_Match=tag)
        assert (status, headers["ETag"]) == (204, None)
    server.message("inference-result", since=len(server.said), count=RESULTS)


def test_nothing_is_sent_to_a_client_that_would_take_it(serve, sdp):
    server = serve("video-chain=identity audio-chain=identity", "videotestsrc is-live=true ! rtcsessionsink send-to=all")
    assert "a=sendrecv" in sdp
    status, _, answer = ask("POST", server.url + "/whip", sdp.encode(), SDP)
    assert status == 201
    _, media = sections(answer.decode())
    directions = [re.findall(r"(?m)^a=(sendrecv|sendonly|recvonly|inactive)", m) for m in media if m[:7] in ("m=audio", "m=video")]
    assert directions == [["recvonly"], ["recvonly"]]


def test_methods_are_answered_as_the_rfc_says(serve, session):
    server = serve(f"{PATIENT} video-chain=fakesink")
    endpoint = server.url + "/whip"
    resource, _ = session(server)
    status, headers, body = ask("OPTIONS", endpoint)
    assert (status, headers["Accept-Post"], body) == (200, SDP, b"")
    status, headers, _ = ask("OPTIONS", resource)
    assert (status, headers["Accept-Patch"]) == (200, FRAGMENT)
    for url in (endpoint, resource):
        assert ask("GET", url)[0] == ask("HEAD", url)[0] == 204
        assert ask("PUT", url, b"")[0] == 405
    assert ask("PATCH", endpoint, b"")[0] == ask("DELETE", endpoint)[0] == 405
    assert ask("POST", resource, b"")[0] == 405


def test_all_doors_share_one_limit_and_a_full_server_says_when_to_come_again(serve, visit, whip):
    server = serve("max-connections=1 video-chain=fakesink")
    first = visit(server)
    first.event("open")
    refused = whip(server).event("refused")
    assert refused["status"] == 503 and int(refused["headers"]["retry-after"]) > 0
    assert json.loads(refused["body"])["error"] == "too-many-connections"
    rejected = server.message("rtc-connection-rejected")
    assert (rejected["door"], rejected["limit"]) == ("whip", 1)
    first.close()
    server.message("rtc-connection-ended")
    second = whip(server)
    server.message("rtc-stream-started", since=len(server.said) - 1)
    assert visit(server).event("refused")["status"] == 503
    second.close()
    server.message("rtc-connection-ended", count=2)
    visit(server).event("open")


def test_a_door_that_is_not_named_is_closed(serve, sdp):
    server = serve("doors=page,offer video-chain=fakesink")
    assert ask("POST", server.url + "/whip", sdp.encode(), SDP)[0] == 404


def credentials(ufrag="name", pwd="twenty-two-characters!"):
    return f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n"


def candidates(count):
    return "".join(CANDIDATE.format(n=n, port=20000 + n) for n in range(count))


def is_clear(body):
    said = json.loads(body)
    return bool(said["error"] and said["message"])


def test_ids_of_others_open_nothing(serve, visit, session):
    server = serve(f"{PATIENT} video-chain=fakesink")
    visitor = visit(server)
    visitor.event("open")
    other = visitor.event("answer")["answer"]["pc_id"]
    resource, tag = session(server)
    strange = [other, "nobody", "..%2fwhip", "%ff", "x" * 4000, other.upper()]
    for id in strange:
        for method in ("PATCH", "DELETE", "GET"):
            status, _, said = ask(method, f"{server.url}/whip/{id}", candidates(1).encode(), FRAGMENT, If_Match=tag)
            assert status == 404 and (method == "HEAD" or is_clear(said)), (method, id, status)
    # The tag of one session is nothing to another.
    second, _ = session(server)
    assert ask("PATCH", second, candidates(1).encode(), FRAGMENT, If_Match=tag)[0] == 412
    assert not server.all("rtc-connection-ended")
    assert ask("DELETE", resource)[0] == 200


def test_restarts_come_only_so_often(serve, session):
    server = serve(f"{PATIENT} video-chain=fakesink")
    resource, first = session(server)
    said = []
    for number in range(10):
        body = credentials(f"name{number}", f"twenty-two-characters!{number}").encode()
        status, headers, _ = ask("PATCH", resource, body, FRAGMENT, If_Match="*")
        said.append(status)
        if status == 429:
            break
    assert said[:2] == [200, 200] and said[-1] == 429, said
    # The last restart that was answered holds.
    assert ask("PATCH", resource, candidates(1).encode(), FRAGMENT, If_Match=first)[0] == 412
    assert ask("PATCH", resource, candidates(1).encode(), FRAGMENT, If_Match="*")[0] == 204


def test_candidates_come_only_so_often(serve, session):
    server = serve(f"{PATIENT} video-chain=fakesink")
    resource, tag = session(server)
    other, its_tag = session(server)
    said = [ask("PATCH", resource, candidates(1).encode(), FRAGMENT, If_Match=tag) for _ in range(800)]
    assert said[0][0] == 204
    refused = [body for status, _, body in said if status == 429]
    assert refused and all(status in (204, 429) for status, _, _ in said)
    assert json.loads(refused[0])["error"] == "too-many-requests"
    # That is its own affair.
    assert ask("PATCH", other, candidates(1).encode(), FRAGMENT, If_Match=its_tag)[0] == 204


def test_a_client_that_hangs_up_with_its_body_half_sent_is_nobody(serve, whip):
    server = serve("video-chain=fakesink")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /whip HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: 500\r\n\r\nv=0\r\n")
    whip(server).event("state", state="connected")
    assert len(server.all("rtc-connection-created")) == 1
