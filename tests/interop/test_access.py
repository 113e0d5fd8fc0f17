"""Who is let in and who is kept out, seen by a browser, by scripts, and by those who only want to do harm."""

import contextlib
import datetime
import http.client
import http.server
import ipaddress
import json
import socket
import ssl
import threading
import time
import urllib.request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import CHAIN, PATIENCE
from test_chromium import chromium, page, start, until  # noqa: F401
from test_refusals import ask, sdp  # noqa: F401: the last is a fixture

TOKEN = "s3cret-s3cret"
GUARDED = f'auth-token={TOKEN} video-chain="{CHAIN}"'
# What the listener gives a client for its handshake, its headers and its body, each.
REQUEST_TIME = 10


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """A certificate that nobody else has signed, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "10.99.0.1")]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("papers")
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder


def of(papers):
    return f"tls-certificate={papers}/certificate.pem tls-private-key={papers}/key.pem"


def forgive_refusals(page):
    """A refused request is what a test is about; the browser says so on its own."""
    page.trouble[:] = [said for said in page.trouble if "status of 401" not in said]


def request(url, **headers):
    return urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_page_takes_the_token_from_its_address(serve, page):
    server = serve(GUARDED)
    page.goto(f"{server.url}/#token={TOKEN}")
    # The launch line is asked for with the token, and told without.
    until(page, "document.getElementById('launch').textContent.includes('auth-token=…')")
    assert TOKEN not in page.text_content("#launch")
    assert page.is_hidden("#entry")
    took = start(page)
    assert isinstance(took, float | int), took
    assert not server.all("rtc-connection-rejected")


def test_page_asks_for_the_token_until_it_is_right(serve, page):
    server = serve(GUARDED)
    page.goto(server.url)
    page.wait_for_selector("#entry:not([hidden])")
    page.click("#start")
    page.wait_for_selector("#error:not([hidden])")
    assert "token" in page.text_content("#error")
    assert server.message("rtc-connection-rejected")["door"] == "offer"
    page.fill("#token", "wrong")
    page.click("#entry button")
    until(page, "document.getElementById('error').textContent.startsWith('That is not')")
    assert page.is_visible("#entry")
    page.fill("#token", TOKEN)
    page.press("#token", "Enter")
    until(page, "document.getElementById('launch').textContent.includes('rtcsessionsrc')")
    assert page.is_hidden("#entry") and page.is_hidden("#error")
    took = start(page)
    assert isinstance(took, float | int), took
    forgive_refusals(page)


def test_page_with_the_token_hears_what_it_is_asked_to_do(serve, page):
    server = serve(f"desired-playing-state=playing {GUARDED}")
    page.goto(f"{server.url}/#token={TOKEN}")
    until(page, "rtcinference.state === 'running'")


def test_page_has_its_camera_over_https_from_another_machine(serve, chromium, papers):
    server = serve(f"{of(papers)} {GUARDED}", scheme="https", host="10.99.0.1")
    context = chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(f"{server.url}/#token={TOKEN}")
    until(page, "document.querySelectorAll('#source option').length >= 2")
    assert page.input_value("#source").startswith("camera:")
    took = start(page)
    assert isinstance(took, float | int), took
    context.close()
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"


def test_scripts_come_in_with_the_token_and_over_https(serve, visit, papers, monkeypatch):
    server = serve(f"{of(papers)} {GUARDED}", scheme="https")
    monkeypatch.setenv("SSL_CERT_FILE", f"{papers}/certificate.pem")
    refused = visit(server, "--token", "wrong").event("refused")
    assert refused["status"] == 401 and refused["body"]["error"] == "unauthorized"
    visit(server, "--token", TOKEN).event("result")


def test_token_is_in_no_log_and_no_message(serve, visit, log):
    env = {"GST_DEBUG": "rtcsessionsrc:9,2", "RTCINFERENCE_LAUNCH": f"rtcsessionsrc auth-token={TOKEN} name=it"}
    server = serve(GUARDED, env=env)
    assert visit(server).event("refused")["status"] == 401
    visit(server, "--token", TOKEN).event("result")
    status, info = ask(request(server.url + "/info", Authorization=f"Bearer {TOKEN}"))
    assert status == 200 and info["launch"] == "rtcsessionsrc auth-token=… name=it"
    server.interrupt()
    assert server.exit_code() == 0
    said = log.read_text(errors="replace")
    assert "rtc-connection-ended" in said and "rtc-connection-rejected" in said
    assert TOKEN not in said


def test_names_that_were_pointed_at_us_are_refused(serve):
    """DNS rebinding: the browser believes that we are the page's own server."""
    server = serve(GUARDED)
    known = f"Bearer {TOKEN}"
    for host in "evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example":
        status, body = ask(request(server.url + "/info", Host=host, Authorization=known))
        assert status == 403 and body["error"] == "host-not-allowed", host
    assert ask(request(server.url + "/info", Host=f"localhost:{server.port}", Authorization=known))[0] == 200


@pytest.fixture
def elsewhere():
    """The address of an empty page of another origin."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b'<link rel="icon" href="data:,">')

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


VISIT = """
    async ({ url, token }) => {
        const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
        const pc = new RTCPeerConnection(await (await fetch(`${url}/rtc-config`, { headers })).json());
        const channel = pc.createDataChannel("results");
        const open = new Promise((done) => { channel.onopen = done; });
        const canvas = document.createElement("canvas");
        canvas.getContext("2d").fillRect(0, 0, 9, 9);
        canvas.captureStream(30).getTracks().forEach((track) => pc.addTrack(track));
        await pc.setLocalDescription();
        if (pc.iceGatheringState !== "complete") {
            await new Promise((done) => pc.addEventListener("icegatheringstatechange",
                () => pc.iceGatheringState === "complete" && done()));
        }
        const { sdp, type } = pc.localDescription;
        const response = await fetch(`${url}/offer`, { method: "POST", headers, body: JSON.stringify({ sdp, type }) });
        await pc.setRemoteDescription(await response.json());
        await open;
        pc.close();
        return response.status;
    }
"""
ASK = """
    async ({ url, token }) => {
        try {
            const response = await fetch(`${url}/info`, { headers: { Authorization: `Bearer ${token}` } });
            return [response.status, (await response.json()).error ?? null];
        } catch (error) {
            return error.name;
        }
    }
"""


def test_pages_of_other_origins_get_in_where_they_are_named(serve, page, elsewhere):
    welcoming = serve(f'auth-token={TOKEN} allowed-origins={elsewhere} video-chain=fakesink')
    page.goto(elsewhere)
    assert page.evaluate(VISIT, {"url": welcoming.url, "token": TOKEN}) == 200
    assert welcoming.message("rtc-connection-ended")["reason"] == "client-closed"
    assert page.evaluate(ASK, {"url": welcoming.url, "token": TOKEN}) == [200, None]
    # What is refused can be read, too.
    assert page.evaluate(ASK, {"url": welcoming.url, "token": "wrong"}) == [401, "unauthorized"]
    forgive_refusals(page)
    assert not page.trouble

    other = serve(f'auth-token={TOKEN} allowed-origins=http://127.0.0.1:1 video-chain=fakesink')
    assert page.evaluate(ASK, {"url": other.url, "token": TOKEN}) == "TypeError"
    # The browser explains at length.
    assert any("has been blocked by CORS policy" in said for said in page.trouble)
    page.trouble.clear()


def test_clients_that_stall_are_sent_away_and_disturb_nobody(serve, visit, papers, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", f"{papers}/certificate.pem")
    server = serve(f"{of(papers)} {GUARDED}", scheme="https")
    bystander = visit(server, "--token", TOKEN)
    bystander.event("result")

    trusting = ssl.create_default_context(cafile=f"{papers}/certificate.pem")
    host = f"Host: 127.0.0.1:{server.port}\r\n"
    headers = f"POST /offer HTTP/1.1\r\n{host}Content-Length: 1000\r\n"

    def connect():
        return socket.create_connection(("127.0.0.1", server.port), timeout=REQUEST_TIME + PATIENCE)

    def stall(said, secure=True):
        client = connect()
        if secure:
            client = trusting.wrap_socket(client, server_hostname="127.0.0.1")
        client.sendall(said.encode())
        return client

    each = range(20)
    stalled = {
        "silent": [connect() for _ in each],
        # The first bytes of a handshake that promises 256 more.
        "handshake": [stall("\x16\x03\x01\x01\x00\x01", secure=False) for _ in each],
        "headers": [stall(headers) for _ in each],
        "body": [stall(f'{headers}\r\n{{"sdp":') for _ in each],
        "chunk": [stall(f"POST /offer HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{'F' * 16}\r\n{{") for _ in each],
        "slow headers": [stall(f"POST /offer HTTP/1.1\r\n{host}X: ") for _ in each],
        "slow body": [stall(f"{headers}\r\n") for _ in each],
    }
    over = threading.Event()

    def drip():
        # Something comes all the time, and never enough.
        while not over.wait(0.5):
            for client in stalled["slow headers"] + stalled["slow body"]:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    # Others come, see and are seen while all of those wait.
    seen = len(bystander.all("result"))
    bystander.event("result", count=seen + 10)
    newcomer = visit(server, "--token", TOKEN)
    newcomer.event("result")

    def rest(client):
        with client:
            said = b""
            with contextlib.suppress(OSError):  # What it still drips is not taken any more.
                while piece := client.recv(4096):
                    said += piece
            return said

    said = {kind: {rest(client) for client in clients} for kind, clients in stalled.items()}
    over.set()
    dripping.join()
    assert said["silent"] == said["handshake"] == said["headers"] == said["slow headers"] == {b""}
    for kind in "body", "chunk", "slow body":
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in said[kind]), kind
    assert not server.all("rtc-connection-ended")
    seen = len(newcomer.all("result"))
    newcomer.event("result", count=seen + 10)


# A client elsewhere, as far as the listener knows.
ELSEWHERE = "127.0.0.2"


def from_elsewhere(server, said=b""):
    peer = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE, source_address=(ELSEWHERE, 0))
    peer.sendall(said)
    return peer


def posted_from_elsewhere(server, path, body):
    """The status of what one gets who comes from there."""
    body = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with from_elsewhere(server, head.encode() + body) as peer:
        response = http.client.HTTPResponse(peer)
        response.begin()
        return response.status, json.loads(response.read())


def test_one_address_cannot_hold_every_place_of_the_listener(serve, visit):
    server = serve("video-chain=fakesink")
    stalled = [from_elsewhere(server) for _ in range(300)]
    begun = time.monotonic()
    assert ask(f"{server.url}/healthz")[0] == 200
    visit(server).event("answer")
    assert time.monotonic() - begun < REQUEST_TIME / 2, "others waited for those who stall"
    away = stalled[192:]
    for peer in away:
        said = b""
        while piece := peer.recv(4096):
            said += piece
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ") and json.loads(body)["error"] == "too-many-clients"
    figures = ask(f"{server.url}/metrics")[1].decode()
    assert f'rtcinference_connections_rejected_total{{door="listener",error="too-many-clients"}} {len(away)}\n' in figures
    for peer in stalled:
        peer.close()
    # Its places are free again as soon as it is gone.
    deadline = time.monotonic() + PATIENCE
    while True:
        with from_elsewhere(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as peer:
            if peer.recv(4096).startswith(b"HTTP/1.1 200 "):
                break
        assert time.monotonic() < deadline


def test_one_address_cannot_hold_every_place_with_offers(serve, visit, sdp):  # noqa: F811
    server = serve("setup-timeout=0 video-chain=fakesink")
    said = [posted_from_elsewhere(server, "/offer", {"sdp": sdp, "type": "offer"}) for _ in range(20)]
    assert {status for status, _ in said} == {200, 429}
    assert said[-1][1]["error"] == "too-many-pending" and "max-pending" in said[-1][1]["message"]
    visit(server).event("open")


def test_one_address_cannot_hold_every_place_of_candidates(serve, visit):
    server = serve("video-chain=identity")
    candidate = {"candidate": "candidate:1 1 udp 2130706431 10.99.0.1 9 typ host"}
    said = [
        posted_from_elsewhere(server, "/webrtc/offer", {"type": "ice-candidate", "webrtc_id": f"nobody {n}", "candidate": candidate})
        for n in range(300)
    ]
    assert said[0] == (200, {"status": "success"})
    assert said[-1][1]["status"] == "failed" and "too many candidates" in said[-1][1]["meta"]["error"]
    client = visit(server, "--id", "abc", route="", script="client_fastrtc.py")
    assert client.event("posted")["body"] == {"status": "success"}
