"""Hostile input, door by door: every row is refused clearly, takes no memory, and disturbs nobody.

One server with a token takes all rows that HTTP carries. A visitor of it gets its results before, meanwhile and after. What
comes over data channels ends its own session at most; clients that stall have their turn in test_access.py, those that a
camera's bytes come from in test_roboflow.py.
"""

import gzip
import http.client
import json
import pathlib
import re
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable

import pytest

from conftest import ARTIFACTS, CHAIN, PATIENCE, Client, Server, free_port
from test_roboflow import clip  # noqa: F401: a fixture
from test_refusals import data_only, many_candidates, many_lines, sdp, session_ufrag_twice  # noqa: F401: sdp is a fixture

TOKEN = "s3cret-s3cret"
SDP = "application/sdp"
JSON = "application/json"
FRAGMENT = "application/trickle-ice-sdpfrag"
# What a row may take at its worst: some copies of the longest body that is read.
MOST_MEMORY = 16 << 20
# The same with a visitor's own pipeline.
MOST_FOR_A_VISITOR = 64 << 20
# Long before the listener loses its patience.
AT_ONCE = 8
# No result is missing for longer while a row is sent; a busy machine has its pauses too.
LONGEST_GAP = 3
CANDIDATE = "a=candidate:{n} 1 udp 2130706431 10.99.0.1 {port} typ host\r\n"


class Process:
    """What a process holds, by its own account."""

    def __init__(self, pid):
        self.folder = pathlib.Path(f"/proc/{pid}")

    def figure(self, name):
        return int(re.search(rf"(?m)^{name}:\s+(\d+) kB", (self.folder / "status").read_text())[1]) << 10

    def forget_peak(self):
        (self.folder / "clear_refs").write_text("5")


class House:
    """The server, who lives in it, and what strangers get."""

    def __init__(self, server, bystander, sdp):
        self.server, self.bystander, self.sdp = server, bystander, sdp
        self.bystander_id = bystander.event("answer")["answer"]["pc_id"]
        self.process = Process(server.process.pid)
        self.resource = self.tag = None

    def ask(self, method="GET", path="/", body=b"", kind=JSON, encoding="latin-1", **headers):
        """Status, headers and body of what the raw words get; a header that is None is not sent."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {
            "Host": f"127.0.0.1:{self.server.port}", "Authorization": f"Bearer {TOKEN}", "Content-Type": kind,
            "Content-Length": len(body), "Connection": "close", **headers,
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE) as peer:
            try:
                peer.sendall("\r\n".join([*lines, "", ""]).encode(encoding) + body)
            except OSError:
                pass  # It has heard enough; what it said before is there to be read.
            response = http.client.HTTPResponse(peer, method=method)
            response.begin()
            return response.status, response.headers, response.read()


@pytest.fixture(scope="module")
def house(plugin_env, tmp_path_factory, sdp):
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "good.launch").write_text(CHAIN)
    (folder.parent / "secret.launch").write_text(CHAIN)
    log = ARTIFACTS / "logs" / "hostile.log"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    port = free_port()
    words = [
        "rtcsessionsrc", "name=s", f"listen=http://127.0.0.1:{port}", f"video-chain={CHAIN}", f"auth-token={TOKEN}",
        f"workflows={folder}", "allow-pull=*", "setup-timeout=600000", "client-args=light.brightness",
    ]
    server = Server(words, log, port=port, env=plugin_env)
    server.message("rtc-listening")
    bystander = Client(f"{server.url}/offer", log, "--token", TOKEN)
    bystander.event("result")
    house = House(server, bystander, sdp)
    # A WHIP session that nobody follows up, for what is said to one.
    status, headers, said = house.ask("POST", "/whip", house.sdp.encode(), SDP)
    assert status == 201, said
    house.resource, house.tag = headers["Location"], headers["ETag"]
    server.message("rtc-connection-created", door="whip")
    yield house
    bystander.end()
    server.end()


# The doors: how each takes an offer, and how each refuses.


@dataclass
class Door:
    path: str
    kind: str
    # An offer's body, of a session description.
    body: Callable[[str], bytes]
    # The status of a refused session description, and of a body of the wrong shape.
    bad_sdp: int
    bad_shape: int


def as_json(**more):
    return lambda sdp: json.dumps({"sdp": sdp, "type": "offer", **more}).encode()


def as_workflow(sdp, **more):
    workflow = {"type": "WorkflowConfiguration", "workflow_id": "good"}
    return json.dumps({"workflow_configuration": workflow, "webrtc_offer": {"type": "offer", "sdp": sdp}, **more}).encode()


DOORS = {
    "offer": Door("/offer", JSON, as_json(), 400, 400),
    "pipecat": Door("/api/offer", JSON, as_json(), 400, 400),
    "fastrtc": Door("/webrtc/offer", JSON, as_json(webrtc_id="hostile"), 200, 422),
    "roboflow": Door("/initialise_webrtc_worker", JSON, as_workflow, 400, 422),
    "whip": Door("/whip", SDP, str.encode, 400, 400),
}


def is_clear(body):
    """Says what is wrong, in the words of one of the doors."""
    said = json.loads(body)
    failed = said.get("status") == "failed" and said["meta"]["error"]
    detailed = said.get("detail") and all(d["loc"] and d["msg"] for d in said["detail"])
    return bool(failed or detailed or (said.get("message") and (said.get("error") or said.get("error_type"))))


@dataclass
class Row:
    """What is sent, and what is right to get: a status, and a word of the body."""

    ask: Callable[[House], tuple]
    status: int
    word: str = ""
    # The HTTP library itself answers, with nothing but a status.
    bare: bool = False


ROWS = {}


def row(door, name, status, word="", bare=False, **request):
    """One row; what of the request is a function is called with the house."""

    def ask(house):
        return house.ask(**{key: value(house) if callable(value) else value for key, value in request.items()})

    assert (door, name) not in ROWS
    ROWS[door, name] = Row(ask, status, word, bare)


# Session descriptions, at every door.


def filled(sdp, count):
    return sdp.rstrip() + "\r\n" + "a=x\r\n" * count


HOSTILE_SDP = {
    "nothing": (lambda sdp: "", "v=0"),
    "no SDP": (lambda sdp: "hello", "v=0"),
    "cut SDP": (lambda sdp: sdp[: len(sdp) // 3], ""),
    "cut in a line": (lambda sdp: sdp[: sdp.index("a=fingerprint") + 1], ""),
    "SDP with a NUL": (lambda sdp: sdp + "a=x\0\r\n", ""),
    "64 KiB": (lambda sdp: sdp + "a=filler:" + "x" * 65536 + "\r\n", "bytes"),
    "10000 lines": (lambda sdp: filled(sdp, 10000), "lines"),
    "17 m-lines": (many_lines, "m-lines"),
    "1000 m-lines": (lambda sdp: sdp + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 1000, "at most"),
    "201 candidates": (many_candidates, "candidates"),
    "10000 candidates": (lambda sdp: sdp + "a=candidate:\r\n" * 4000, ""),
    "two session-level ufrags": (session_ufrag_twice, "ice-ufrag"),
    "one mid twice": (lambda sdp: re.sub(r"(?m)^a=mid:.*$", "a=mid:0\r", sdp).replace("\r\r", "\r"), "mid"),
    "a bundle of nobody": (lambda sdp: re.sub(r"(?m)^a=group:BUNDLE.*$", "a=group:BUNDLE 0 1 9\r", sdp).replace("\r\r", "\r"), "9"),
    "no audio or video m-line": (data_only, "m-line"),
}

for name, (make, word) in HOSTILE_SDP.items():
    for door, its in DOORS.items():
        body = lambda house, its=its, make=make: its.body(make(house.sdp))  # noqa: E731
        row(door, f"SDP: {name}", its.bad_sdp, word, method="POST", path=its.path, kind=its.kind, body=body)

for door, its in DOORS.items():
    # Longer than any body that is read, so never looked at.
    body = lambda house, its=its: its.body(house.sdp + "".join(CANDIDATE.format(n=n, port=n) for n in range(10000)))  # noqa: E731
    row(door, "SDP: 10000 candidates in full", 413, "too-large", method="POST", path=its.path, kind=its.kind, body=body)


# Bodies that are none, at every door that takes JSON.

HOSTILE_JSON = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut": b'{"sdp": "v=0',
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "no fields": b"{}",
    "invalid UTF-8": b'{"sdp": "\xff\xfe", "type": "offer"}',
    "half a surrogate": rb'{"sdp": "\ud800", "type": "offer"}',
    "100000 brackets": b"[" * 100_000,
    "100000 objects in each other": b'{"a":' * 50_000,
    "a number beyond all": b'{"sdp": 1e999999, "type": "offer", "webrtc_id": "hostile"}',
    "lists for texts": b'{"sdp": [], "type": [], "webrtc_id": [], "workflow_configuration": [], "webrtc_offer": []}',
    "gzip": gzip.compress(b"[" * 1_000_000),
}

for name, body in HOSTILE_JSON.items():
    for door, its in DOORS.items():
        if its.kind == JSON:
            row(door, f"JSON: {name}", its.bad_shape, method="POST", path=its.path, body=body)


# What HTTP itself has for whoever means harm, at every door.

GIGABYTES = 10 * 10**9
BOMB = gzip.compress(bytes(64 << 20))
FOREIGN = "http://evil.example"

for door, its in DOORS.items():
    post = {"method": "POST", "path": its.path, "kind": its.kind}
    good = lambda house, its=its: its.body(house.sdp)  # noqa: E731
    row(door, "no token", 401, "token", **post, body=good, Authorization=None)
    row(door, "a wrong token", 401, "token", **post, body=good, Authorization=f"Bearer {TOKEN}x")
    row(door, "the beginning of the token", 401, "token", **post, body=good, Authorization=f"Bearer {TOKEN[:-1]}")
    row(door, "the token as a password", 401, "token", **post, body=good, Authorization=f"Basic {TOKEN}")
    row(door, "a token that is no text", 401, "token", **post, body=good, Authorization="Bearer \xff\xfe")
    row(door, "a foreign origin", 403, "allowed-origins", **post, body=good, Origin=FOREIGN)
    row(door, "an origin of null", 403, "allowed-origins", **post, body=good, Origin="null")
    row(door, "a foreign Host", 403, "allowed-hosts", **post, body=good, Host="evil.example")
    row(door, "a Host that begins like ours", 403, "allowed-hosts", **post, body=good, Host="127.0.0.1.evil.example")
    row(door, "no Host", 403, "allowed-hosts", **post, body=good, Host=None)
    row(door, "2 MiB", 413, "too-large", **post, body=b"x" * (2 << 20))
    row(door, "40 MiB", 413, "too-large", **post, body=b"x" * (40 << 20))
    row(door, "ten gigabytes declared", 413, "too-large", **post, body=b"x", Content_Length=GIGABYTES)
    chunked = {"Content_Length": None, "Transfer_Encoding": "chunked"}
    row(door, "a chunk of 2^68-1 bytes", 400, "", **post, body=b"F" * 17 + b"\r\nx", **chunked)
    row(door, "a chunk of no length", 400, "", **post, body=b"x\r\nx", **chunked)
    row(door, "two lengths", 400, "", True, **post, body=b"{}", Content_Length="2\r\nContent-Length: 3")
    row(door, "a length that is none", 400, "", True, **post, body=b"{}", Content_Length="-1")
    row(door, "a header of 1 MiB", 431, "", True, **post, body=good, X="x" * (1 << 20))
    row(door, "1000 headers", 431, "", True, **post, body=good, X="\r\n".join(["x", *(f"X{n}: x" for n in range(1000))]))
    # Nothing is unpacked that a client says to be packed.
    unpacked = its.bad_sdp if its.kind == SDP else its.bad_shape
    row(door, "a gzip bomb", unpacked, **post, body=BOMB, Content_Encoding="gzip")


# Paths of the listener.

PATHS = {
    "up": "/../../etc/passwd",
    "up, encoded": "/%2e%2e/%2e%2e/etc/passwd",
    "up from a door": "/whip/../info/../../etc/passwd",
    "NUL": "/connections%00",
    "bytes that are no text": "/%ff%fe",
    "60000 characters": "/" + "x" * 60_000,
    "20000 slashes": "/" * 20_000,
}

for name, path in PATHS.items():
    row("listener", name, 404, "not-found", path=path)
for name, id in {"up": "../info", "encoded": "..%2finfo", "NUL": "%00", "no text": "%ff", "long": "x" * 4000}.items():
    row("listener", f"an id: {name}", 404, "", method="DELETE", path=f"/connections/{id}")
    row("whip", f"an id: {name}", 404, "", method="PATCH", path=f"/whip/{id}", kind=FRAGMENT, If_Match="*", body=b"")
row("listener", "a NUL in the path", 400, "", True, path="/\0")
row("listener", "no HTTP", 400, "", True, method="\x16\x03\x01")


# FastRTC: ids, candidates, inputs.


def fastrtc(name, status, word="", path="/webrtc/offer", **body):
    row("fastrtc", name, status, word, method="POST", path=path, body=json.dumps(body).encode())


row("fastrtc", "the fields' values in a list", 422, "", method="POST", path="/webrtc/offer",
    body=lambda house: json.dumps([house.sdp, "offer", "hostile", None]).encode())
fastrtc("no id", 422, "webrtc_id", type="offer", sdp="v=0")
fastrtc("an empty id", 422, "webrtc_id", webrtc_id="", type="offer", sdp="v=0")
fastrtc("a long id", 422, "webrtc_id", webrtc_id="x" * 129, type="offer", sdp="v=0")
fastrtc("an id with a NUL", 422, "webrtc_id", webrtc_id="a\0", type="offer", sdp="v=0")
fastrtc("another type", 422, "type", webrtc_id="hostile", type="answer", sdp="v=0")
fastrtc("a candidate that is none", 200, "invalid_candidate_format", webrtc_id="hostile", type="ice-candidate", candidate="x")
fastrtc("a long candidate", 200, "invalid_candidate_format", webrtc_id="hostile", type="ice-candidate",
        candidate={"candidate": "candidate:" + "x" * 60_000})
fastrtc("a candidate that is a list", 422, "candidate", webrtc_id="hostile", type="ice-candidate", candidate=[])
fastrtc("inputs of nobody", 200, "unknown_connection", "/input_hook", webrtc_id="nobody")
fastrtc("inputs without an id", 422, "webrtc_id", "/input_hook", threshold=1)
row("fastrtc", "inputs that are a list", 422, "", method="POST", path="/input_hook", body=b"[]")


# Candidates of a connection that stands, as Pipecat's clients send them.


def pipecat(name, status, word="", **body):
    row("pipecat", name, status, word, method="PATCH", path="/api/offer", body=json.dumps(body).encode())


HARMLESS = {"candidate": "candidate:1 1 udp 2130706431 10.99.0.1 9 typ host"}
pipecat("candidates of nobody", 404, "no-such-connection", pc_id="nobody", candidates=[HARMLESS])
pipecat("65 candidates", 400, "64", pc_id="nobody", candidates=[HARMLESS] * 65)
pipecat("candidates that are text", 400, "candidates", pc_id="nobody", candidates=HARMLESS["candidate"])
pipecat("candidates without an id", 400, "pc_id", candidates=[HARMLESS])
row("pipecat", "an offer for a connection that is not there", 404, "no-such-connection", method="POST", path="/api/offer",
    body=lambda house: as_json(pc_id="nobody")(house.sdp))
row("pipecat", "an offer for a connection without a name", 400, "string", method="POST", path="/api/offer",
    body=lambda house: as_json(pc_id=7)(house.sdp))
row("pipecat", "its values in a list", 400, "", method="PATCH", path="/api/offer", body=b'["nobody", []]')


# Roboflow: fields, workflows, servers to pull from.


def roboflow(name, status, word="", **fields):
    body = lambda house: as_workflow(house.sdp, **fields)  # noqa: E731
    row("roboflow", name, status, word, method="POST", path="/initialise_webrtc_worker", body=body)


roboflow("an offer that is null", 422, "webrtc_offer", webrtc_offer=None)
roboflow("an answer", 422, "offer", webrtc_offer={"type": "answer", "sdp": ""})
roboflow("an offer that is a list", 422, "webrtc_offer", webrtc_offer=["offer", ""])
roboflow("a workflow that is a list", 422, "workflow_configuration", workflow_configuration=[])
roboflow("outputs that are an object", 422, "data_output", data_output={"a": 1})
roboflow("outputs that are numbers", 422, "stream_output", stream_output=[7])
roboflow("half a second", 422, "processing_timeout", processing_timeout=0.5)
roboflow("2^64 seconds", 422, "processing_timeout", processing_timeout=2**64)
roboflow("-1 seconds", 422, "processing_timeout", processing_timeout=-1)
roboflow("no time", 400, "processing_timeout", processing_timeout=0)
roboflow("a speed that is text", 422, "declared_fps", declared_fps="fast")
roboflow("a picture that there is not", 400, "boxes", stream_output=["boxes"])

WORKFLOWS = {
    "up": "../secret",
    "up and down": "../workflows0/good",
    "with its suffix": "good.launch",
    "here": "./good",
    "this": ".",
    "the one above": "..",
    "nothing": "",
    "absolute": "/etc/passwd",
    "encoded": "%2e%2e%2fsecret",
    "encoded twice": "%252e%252e%252fsecret",
    "of Windows": "..\\secret",
    "NUL": "good\0",
    "NUL and a suffix": "../secret.launch\0.launch",
    "new line": "good\n",
    "another good": "ｇｏｏｄ",
    "from right to left": "\u202egood",
    "200000 characters": "../" * 66_666,
    "a chain": "fakesink",
}

for name, id in WORKFLOWS.items():
    told = id[:10].encode("unicode_escape").decode() if id.isascii() and id.isprintable() and "\\" not in id else "workflow"
    roboflow(f"workflow: {name}", 404, told, workflow_configuration={"type": "WorkflowConfiguration", "workflow_id": id})
roboflow("workflow: a number", 422, "workflow_configuration", workflow_configuration={"workflow_id": 7})
roboflow("workflow: a list", 422, "workflow_configuration", workflow_configuration={"workflow_id": ["good"]})
roboflow("arguments that are a list", 422, "workflow_configuration", workflow_configuration={"workflows_parameters": []})
for name, given in {"that nobody may set": {"sink.location": "/x"}, "of no name": {"": 1}, "of an element that is not there": {"light.brightness": 1}}.items():
    parameters = {"workflow_id": "good", "workflows_parameters": given}
    roboflow(f"arguments {name}", 400, "workflows_parameters", workflow_configuration=parameters)

# allow-pull=* is every public address.
PRIVATE = {
    "loopback": "127.0.0.1",
    "loopback, short": "127.1",
    "loopback, decimal": "2130706433",
    "loopback, octal": "0177.0.0.1",
    "loopback, hexadecimal": "0x7f000001",
    "loopback, mixed": "0x7f.0.1",
    "loopback, IPv6": "[::1]",
    "loopback, mapped": "[::ffff:127.0.0.1]",
    "loopback, mapped, hexadecimal": "[::ffff:7f00:1]",
    "loopback by name": "localhost",
    "loopback by name in capitals": "LOCALHOST",
    "nothing": "0.0.0.0",
    "nothing, short": "0",
    "nothing, IPv6": "[::]",
    "private": "10.0.0.1",
    "private, mapped": "[::ffff:192.168.0.1]",
    "private, translated": "[64:ff9b::a00:1]",
    "private, 6to4": "[2002:a00:1::1]",
    "private, unique local": "[fd00::1]",
    "link-local": "169.254.169.254",
    "link-local, decimal": "2852039166",
    "link-local, IPv6": "[fe80::1]",
    "of the provider": "100.64.0.1",
    "to many": "224.0.0.1",
    "to all": "255.255.255.255",
    "ours": "10.99.0.1",
    "behind another's name": "8.8.8.8@127.0.0.1",
    "behind another's address as a password": "a:8.8.8.8@127.0.0.1",
    "with credentials": "me:s3cr3t@127.0.0.1",
}

for name, host in PRIVATE.items():
    roboflow(f"a camera: {name}", 400, "private address", mjpeg_url=f"http://{host}:8080/live")
for name, host in {"loopback": "127.0.0.1", "loopback by name": "localhost", "link-local": "169.254.169.254", "mapped": "[::ffff:10.0.0.1]"}.items():
    for field, scheme in ("rtsp_url", "rtsp"), ("rtsp_url", "rtsps"), ("mjpeg_url", "https"):
        word = "listed itself" if scheme.endswith("s") and host.isalpha() else "private address"
        roboflow(f"a camera by {scheme}: {name}", 400, word, **{field: f"{scheme}://{host}/live"})

URLS = {
    "a file": "file:///etc/passwd",
    "a path": "/etc/passwd",
    "another protocol": "gopher://8.8.8.8/",
    "no host": "http:///live",
    "a space": "http://8.8.8.8 /",
    "a new line": "http://8.8.8.8/\r\nX: y",
    "an encoded host": "http://%31%32%37.0.0.1/",
    "a long one": "http://8.8.8.8/" + "x" * 5000,
    "a password that is no text": "http://me:%ff@8.8.8.8/",
    "a password with a new line": "http://me:a%0d%0ab@8.8.8.8/",
    "a reversed slash": "http://8.8.8.8\\@127.0.0.1/",
}

for name, url in URLS.items():
    roboflow(f"a camera's URL: {name}", 400, "is right", mjpeg_url=url)
roboflow("a camera's URL: a list", 422, "mjpeg_url", mjpeg_url=["http://8.8.8.8/"])
roboflow("a camera's URL: nobody's name", 400, "no address", mjpeg_url="http://nobody.invalid/")
roboflow("a camera by https whose name nobody listed", 400, "listed itself", mjpeg_url="https://nobody.invalid/")


# WHIP: types, and what is said to a session that stands (None: with its own tag, "": with none).

row("whip", "another type", 415, "Content-Type", method="POST", path="/whip", kind=JSON, body=lambda house: house.sdp.encode())
row("whip", "no type", 415, "Content-Type", method="POST", path="/whip", Content_Type=None, body=lambda house: house.sdp.encode())
row("whip", "invalid UTF-8", 400, "", method="POST", path="/whip", kind=SDP, body=lambda house: house.sdp.encode() + b"a=\xff\xfe\r\n")
row("whip", "JSON", 400, "v=0", method="POST", path="/whip", kind=SDP, body=lambda house: as_json()(house.sdp))
row("whip", "video that is not taken", 422, "codec", method="POST", path="/whip", kind=SDP,
    body=lambda house: re.sub(r"(?m)^(a=rtpmap:\d+ )(VP8|VP9|H264|AV1)/", r"\1none/", house.sdp).encode())


def credentials(ufrag="name", pwd="twenty-two-characters!"):
    return f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n"


def candidates(count):
    return "".join(CANDIDATE.format(n=n, port=20000 + n) for n in range(count))


FRAGMENTS = {
    "another type": (candidates(1), SDP, None, 415),
    "no type": (candidates(1), "", None, 415),
    "no tag": (candidates(1), FRAGMENT, "", 428),
    "no tag for a restart": (credentials(), FRAGMENT, "", 428),
    "another's tag": (candidates(1), FRAGMENT, '"another"', 412),
    "another's tag for a restart": (credentials(), FRAGMENT, '"another"', 412),
    "a tag that is none": (candidates(1), FRAGMENT, "W/é", 412),
    "a long tag": (candidates(1), FRAGMENT, "x" * 10000, 412),
    "no fragment": ("hello", FRAGMENT, None, 400),
    "invalid UTF-8": (b"a=mid:\xff\r\n", FRAGMENT, None, 400),
    "a candidate that is none": ("a=candidate:1 1 udp\r\n", FRAGMENT, None, 400),
    "201 candidates": (candidates(201), FRAGMENT, None, 400),
    "10000 candidates": (candidates(10000), FRAGMENT, None, 413),
    "10000 lines": ("a=\r\n" * 10000, FRAGMENT, None, 400),
    "half the credentials": ("a=ice-ufrag:name\r\n", FRAGMENT, "*", 400),
    "credentials of two sessions": (credentials() + credentials("another"), FRAGMENT, "*", 400),
    "short credentials": (credentials("n", "p"), FRAGMENT, "*", 400),
    "64 KiB": ("a=filler:" + "x" * 65536, FRAGMENT, None, 400),
    "2 MiB": ("x" * (2 << 20), FRAGMENT, None, 413),
}

for name, (body, kind, if_match, status) in FRAGMENTS.items():
    body = body if isinstance(body, bytes) else body.encode()
    tag = (lambda house: house.tag) if if_match is None else (if_match or None)
    row("whip", f"fragment: {name}", status, method="PATCH", path=lambda house: house.resource, kind=kind, body=body, If_Match=tag)


@contextmanager
def undisturbed(house, most_memory=MOST_MEMORY):
    """What happens inside takes little memory, and the visitor gets its results."""
    server, bystander = house.server, house.bystander
    since = len(bystander.all("result"))
    held = house.process.figure("VmRSS")
    house.process.forget_peak()
    begun = time.monotonic()
    yield
    bystander.event("result", count=since + 2)
    peak = house.process.figure("VmHWM")
    assert peak - held < most_memory, f"{(peak - held) >> 20} MiB more at its worst"
    times = [e["at"] for e in bystander.all("result")[since:] if e["at"] > begun]
    assert max(b - a for a, b in zip([begun, *times], times)) < LONGEST_GAP
    assert server.process.poll() is None
    assert house.bystander_id not in [m["connection-id"] for m in server.all("rtc-connection-ended")]


@pytest.mark.parametrize("door, name", ROWS, ids=[f"{door}-{name}" for door, name in ROWS])
def test_hostile_request_is_refused_and_disturbs_nobody(house, door, name):
    its = ROWS[door, name]
    created = len(house.server.all("rtc-connection-created"))
    with undisturbed(house):
        begun = time.monotonic()
        status, headers, body = its.ask(house)
        assert time.monotonic() - begun < AT_ONCE
        assert status == its.status, body
        if not its.bare:
            assert is_clear(body), body
            assert its.word in body.decode(), body
        for secret in TOKEN, "s3cr3t":
            assert secret.encode() not in body
        # What is refused is nobody's answer.
        assert not headers["Location"] and not headers["ETag"]
    assert len(house.server.all("rtc-connection-created")) == created


def test_whip_session_stands_after_all_that_was_refused(house):
    """Runs after the table: every refusal has left the session as it was."""
    asked = {"method": "PATCH", "path": house.resource, "kind": FRAGMENT, "If_Match": house.tag}
    assert house.ask(body=candidates(200).encode(), **asked)[0] == 204
    assert house.ask(**asked)[0] == 204


# Pieces of a file, and what the sender is told before its session ends.

PIECES = {
    "a bomb of pieces": (["piece 0 4294967295 49152"], "at most"),
    "a bomb of single bytes": (["piece 0 4294967295 1"], "at most"),
    "ten gigabytes": (["piece 0 204800 49152"], "at most"),
    "no total": (["piece 0 0 10"], "piece 0 of 0"),
    "beyond the total": (["piece 9 9 10"], "piece 9 of 9"),
    "ahead of its turn": (["piece 7 9 10"], "piece 7 came where 0 was to come"),
    "in another order": (["piece 1 3 10", "piece 0 3 10"], "piece 1 came where 0 was to come"),
    "a gap": (["piece 0 3 10", "piece 2 3 10"], "piece 2 came where 1 was to come"),
    "another total": (["piece 0 3 10", "piece 1 4 10"], "4 pieces, and 3 before"),
    "cut in its header": (["bytes 00000000"], "4 bytes"),
    "cut after its header": (["bytes 0000000001000000"], "8 bytes"),
    "no video": (["piece 0 1 1000"], ""),
    "a list of other places": (["text #EXTM3U\\nhttp://127.0.0.1:1/\\n"], ""),
}


@pytest.fixture
def uploading(house, log):
    client = Client(house.server.url, log, TOKEN, script="client_upload.py")
    client.event("open")
    yield client
    client.end()


@pytest.mark.parametrize("said, named", PIECES.values(), ids=PIECES.keys())
def test_hostile_pieces_end_their_own_session(house, uploading, said, named):
    since = len(house.server.said)
    with undisturbed(house, MOST_FOR_A_VISITOR):
        for line in said:
            uploading.ask(line)
        told = uploading.wait(lambda e: e["event"] == "message" and e["message"]["errors"], "an error")[0]["message"]
        assert told["processing_complete"] and named in told["errors"][0]
        ended = house.server.message("rtc-connection-ended", since=since)
        assert ended["reason"] == "handler-error" and named in ended["detail"]


def test_repeated_pieces_do_no_harm(house, uploading, clip):
    uploading.ask(f"file {clip} 3")
    last = uploading.wait(lambda e: e["event"] == "message" and e["message"]["processing_complete"], "the end", timeout=60)
    assert last[0]["message"]["errors"] == [] and last[0]["message"]["video_metadata"]["frame_id"] == 90


# What is said on the channel for it, and what is complained of; the session goes on.

CONTROL = {
    "no JSON": ("say hello", None),
    "a list": ("say []", None),
    "a number": ("say 7", None),
    "10000 brackets": (f"say {'[' * 10_000}", None),
    "an acknowledgement that is text": ('say {"ack":"abc"}', "is right"),
    "an acknowledgement of less than nothing": ('say {"ack":-1}', "is right"),
    "an acknowledgement beyond all": ('say {"ack":1e999}', None),
    "an acknowledgement of what is to come": ('say {"ack":18446744073709551615}', None),
    "outputs that are text": ('say {"data_output":"predictions"}', "is right"),
    "outputs that are numbers": ('say {"stream_output":[7]}', "is right"),
    "invalid UTF-8": ("garble fffe", None),
    "invalid UTF-8 in JSON": ('garble 7b2261636b223aff7d', None),
    "NUL": ("garble 00", None),
    "200000 bytes": (f"say {'x' * 200_000}", None),
    "200000 bytes of names": ('say {"data_output":[' + ",".join(['"a"'] * 50_000) + "]}", None),
}


@pytest.mark.parametrize("said, named", CONTROL.values(), ids=CONTROL.keys())
def test_hostile_control_is_answered_or_ignored(house, uploading, said, named):
    with undisturbed(house, MOST_FOR_A_VISITOR):
        uploading.ask(said)
        if named:
            told = uploading.wait(lambda e: e["event"] == "message" and e["message"]["errors"], "an error")[0]["message"]
            assert named in told["errors"][0] and not told["processing_complete"]
        uploading.ask("bytes 07")
        assert uploading.event("answer")["bytes"] == "07"


CHAT = {
    "no JSON": "{",
    "a list": "[]",
    "10000 brackets": "[" * 10_000,
    "a type that is a number": '{"type": 7}',
    "200000 characters": "é" * 100_000,
}


@pytest.mark.parametrize("said", CHAT.values(), ids=CHAT.keys())
def test_hostile_words_on_fastrtc_s_channel_change_nothing(serve, visit, said):
    server = serve("video-chain=identity")
    client = visit(server, "--id", "abc", route="", script="client_fastrtc.py")
    client.wait(lambda e: e["event"] == "message" and e["message"]["type"] == "send_input", "its welcome")
    client.ask(f"say {said}")
    client.ask("say handshake")
    client.wait(lambda e: e["event"] == "message" and e["message"].get("data") == "Server received: handshake", "an echo", count=2)
    assert not server.all("rtc-connection-ended")
