"""Roboflow's own `inference_sdk` from PyPI talks to us: only its `api_url` is changed."""

import io
import json
import socket
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import av
import numpy as np
import pytest
from PIL import Image

import scenes

from conftest import CHAIN, MODEL, ROOT, Client
from test_refusals import post, sdp  # noqa: F401: one is a fixture

ANNOTATE = f"framemeta ! inferencefilter model={MODEL} ! framemetaoverlay"
PYTHON = ROOT / ".venv-sdk/bin/python"
SHAPES = {"circle", "square", "triangle"}


def use(visit, server, *args, **options):
    return visit(server, *args, route="", script="client_sdk.py", python=PYTHON, **options)


def test_manual_source_gets_predictions_without_video(serve, visit):
    server = serve(f'video-chain="{CHAIN}"')
    client = use(visit, server, "--data", "predictions", "--fps", "25")
    found = client.event("predictions", count=20)
    assert SHAPES <= {name for e in found[5:] for name in e["classes"]}
    assert found[0]["image"] == {"width": 640, "height": 480}
    told = client.event("data", count=20)
    assert [e["metadata"]["frame_id"] for e in told] == list(range(1, 21))
    first = told[0]["metadata"]
    assert (first["pts"], first["declared_fps"], first["errors"]) == (0, 25.0, [])
    assert first["time_base"] == pytest.approx(1 / 90_000)
    # Local time that says nothing of where that is.
    assert "+" not in first["received_at"]
    assert all(e["names"] == ["predictions"] for e in told)
    client.event("over")
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "client-closed"
    assert not client.all("frame")


def test_video_comes_back_and_predictions_are_paired_with_its_frames(serve, visit):
    server = serve(f'video-chain="{ANNOTATE}"')
    client = use(visit, server, "--model", "--frames", "240")
    client.event("over", timeout=60)
    frames = client.all("frame")
    assert len(frames) >= 60
    assert frames[0]["size"] == [640, 480]
    paired = [e["paired"] for e in frames]
    assert sum(paired) >= 0.99 * len(paired), f"{sum(paired)} of {len(paired)}"


def test_every_frame_is_inferred_when_nothing_may_be_missed(serve, visit):
    server = serve(f'video-chain="{CHAIN}"')
    client = use(visit, server, "--data", "predictions", "--every", "--frames", "60", "--stay")
    client.event("sent", timeout=60)
    # aiortc does not send the last frame before it is asked for another one; what it lost before the connection stood is its own.
    client.event("predictions", count=50, timeout=60)
    told = client.all("data")
    steps = {b["metadata"]["pts"] - a["metadata"]["pts"] for a, b in zip(told, told[1:])}
    # aiortc rounds its clock to both sides.
    assert steps <= {2999, 3000, 3001}, "a frame is missing"


def test_workflows_choose_the_chain_and_their_parameters_reach_it(serve, visit, tmp_path):
    (tmp_path / "annotate.launch").write_text(f"# shows boxes\n{ANNOTATE}\n")
    (tmp_path / "dark.launch").write_text("videobalance name=light ! identity\n")
    server = serve(f'video-chain="{CHAIN}" workflows={tmp_path} client-args=light.brightness,lamp.brightness')
    client = use(visit, server, "--workflow", "annotate", "--stream", "image", "--data", "*")
    assert client.event("frame", count=5)[0]["size"] == [640, 480]
    client.event("predictions")
    client = use(visit, server, "--workflow", "dark", "--stream", "image", "--parameters", '{"light.brightness": -1.0}')
    client.event("frame", count=5)
    for wrong, named in {'{"light.hue": 1}': "client-args", '{"lamp.brightness": 1}': "lamp", '{"light.brightness": "dark"}': "light.brightness"}.items():
        refused = use(visit, server, "--workflow", "dark", "--parameters", wrong).event("failed")
        assert "HTTP 400" in refused["why"] and named in refused["why"]
    for name in "nowhere", "../annotate", "annotate.launch", "/etc/passwd":
        refused = use(visit, server, "--workflow", name).event("failed")
        assert "not found" in refused["why"] and repr(name)[1:-1] in refused["why"]


def test_what_is_wanted_changes_while_it_runs(serve, visit):
    server = serve(f'video-chain="{CHAIN}"')
    client = use(visit, server, "--reconfigure", "--frames", "120")
    client.event("predictions", count=5)
    told = client.all("data")
    assert told[0]["names"] == []
    assert told[-1]["names"] == ["predictions"]


def test_time_out_is_said_and_ends_the_session(serve, visit):
    server = serve(f'video-chain="{ANNOTATE}"')
    client = use(visit, server, "--stream", "image", "--timeout", "2", "--frames", "600", "--stay", "--wait")
    client.event("over", timeout=30)
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "time-limit"


@pytest.mark.parametrize("handler", ["data", "frame"])
def test_session_may_be_closed_from_inside_a_handler(serve, visit, handler):
    server = serve(f'video-chain="{ANNOTATE}"')
    client = use(visit, server, "--stream", "image", "--data", "*", "--frames", "300", "--close-from", handler)
    client.event("over")
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "client-closed"


def test_unknown_output_is_an_error_of_each_frame(serve, visit):
    server = serve(f'video-chain="{CHAIN}"')
    client = use(visit, server, "--data", "masks")
    assert client.event("error", count=3)[0]["errors"] == ["Output 'masks' not found"]


def test_first_frame_is_back_within_a_second(serve, visit):
    server = serve(f'video-chain="{ANNOTATE}"')
    client = use(visit, server, "--stream", "image")
    first = client.event("frame")["at"]
    asked = client.event("starting")["at"]
    # Five times what is promised on an idle machine.
    assert first - asked < 5 * 1.0


def test_refusals_are_of_the_shape_that_the_sdk_shows(serve, visit, sdp):  # noqa: F811
    server = serve(f'max-connections=1 video-chain="{CHAIN}"')
    url = f"{server.url}/initialise_webrtc_worker"

    def posted(**body):
        good = {"workflow_configuration": {"type": "WorkflowConfiguration"}, "webrtc_offer": {"type": "offer", "sdp": sdp}}
        return post(url, json.dumps({**good, **body}).encode())

    for body, status, named in [
        ({"webrtc_offer": None}, 422, "webrtc_offer"),
        ({"workflow_configuration": []}, 422, "workflow_configuration"),
        ({"data_output": {"a": 1}}, 422, "map"),
        ({"processing_timeout": 1.5}, 422, "1.5"),
        ({"processing_timeout": 2**64}, 422, "processing_timeout"),
        ({"processing_timeout": 0}, 400, "processing_timeout"),
        ({"stream_output": ["boxes"]}, 400, "boxes"),
        ({"rtsp_url": "rtsp://192.0.2.1/"}, 400, "rtsp_url"),
        ({"mjpeg_url": "http://127.0.0.1/"}, 400, "mjpeg_url"),
        ({"mjpeg_url": "file:///etc/passwd"}, 400, "is right"),
        ({"webrtc_offer": {"type": "offer", "sdp": "v=0\r\nnonsense"}}, 400, "nonsense"),
        ({"webrtc_offer": {"type": "offer", "sdp": sdp.replace("m=audio", "m=audio 9 x 0\r\n" * 1000 + "m=audio", 1)}}, 400, "m-lines"),
    ]:
        said, answer = posted(**body)
        assert said == status, (body, answer)
        assert named in json.dumps(answer), answer
        assert "detail" in answer if status == 422 else answer["message"]
    for body in b"", b"[]", b"\xff\xfe", b"[" * 100_000:
        assert post(url, body)[0] == 422
    client = use(visit, server, "--data", "*", "--frames", "300")
    client.event("started")
    said, answer = posted()
    assert (said, answer["error_type"]) == (429, "WorkspaceStreamQuotaError")
    # Nothing of all that disturbed the one who was let in.
    client.event("predictions", count=10)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A file of three seconds, 30 frames each."""
    path = tmp_path_factory.mktemp("clip") / "three.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = scenes.WIDTH, scenes.HEIGHT, "yuv420p"
        for number in range(90):
            picture = np.ascontiguousarray(scenes.picture("three", number % scenes.LENGTH))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("pace", [[], ["--every"]], ids=["unpaced", "acknowledged"])
def test_file_is_played_to_its_end_and_no_frame_is_missing(serve, visit, clip, tmp_path, pace):
    server = serve(f'video-chain="{ANNOTATE}"', env={"TMPDIR": str(tmp_path)})
    client = use(visit, server, "--file", str(clip), "--stream", "image", "--data", "predictions", *pace)
    client.event("over", timeout=60)
    told = client.all("data")
    assert [e["metadata"]["frame_id"] for e in told] == list(range(1, 91))
    seconds = [e["metadata"]["pts"] * e["metadata"]["time_base"] for e in told]
    assert seconds == pytest.approx([n / 30 for n in range(90)], abs=0.001)
    # The SDK keeps the newest eight frames for its handler.
    frames = client.all("frame")
    assert len(frames) >= 8 and frames[0]["size"] == [640, 480]
    assert SHAPES <= {name for e in client.all("predictions")[5:] for name in e["classes"]}
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "source-ended"
    assert not list(tmp_path.iterdir()), "the file is kept"


def test_file_comes_back_as_video(serve, visit, clip):
    server = serve(f'video-chain="{ANNOTATE}"')
    client = use(visit, server, "--file", str(clip), "--stream", "image", "--track", "--realtime")
    client.event("over", timeout=60)
    frames = client.all("frame")
    assert frames and frames[0]["size"] == [640, 480]
    # Played as fast as it was made to be.
    assert frames[-1]["at"] - frames[0]["at"] > 1.5


def test_slow_handler_does_not_lose_the_end(serve, visit, clip):
    server = serve(f'video-chain="{ANNOTATE}"')
    client = use(visit, server, "--file", str(clip), "--stream", "image", "--slow", "0.3")
    client.event("over", timeout=60)
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "source-ended"


def test_ping_on_the_upload_channel_is_answered(serve, visit):
    client = visit(serve(f'video-chain="{CHAIN}"'), route="", script="client_upload.py")
    client.event("open")
    client.ask("bytes 07")
    assert client.event("answer")["bytes"] == "07"


@pytest.fixture
def camera():
    """The port of an HTTP server with a scene at /live as JPEGs, and a redirect to it at /elsewhere."""
    pictures = []
    for number in range(scenes.LENGTH):
        file = io.BytesIO()
        Image.fromarray(scenes.picture("three", number)).save(file, "jpeg")
        pictures.append(file.getvalue())

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "/live")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            since = time.monotonic()
            try:
                for number in range(900):
                    picture = pictures[number % scenes.LENGTH]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                    self.wfile.write(head.encode() + picture + b"\r\n")
                    time.sleep(max(0, since + (number + 1) / 30 - time.monotonic()))
            except OSError:
                pass  # Nobody looks any more.

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_mjpeg_camera_is_pulled_from(serve, visit, camera):
    server = serve(f'video-chain="{ANNOTATE}" allow-pull=127.0.0.1')
    client = use(visit, server, "--mjpeg", f"http://127.0.0.1:{camera}/live", "--stream", "image", "--data", "*")
    frames = client.event("frame", count=10)
    assert frames[0]["size"] == [640, 480]
    found = client.event("predictions", count=20)
    assert SHAPES <= {name for e in found[10:] for name in e["classes"]}
    server.message("rtc-stream-started", codec="pull")


def test_rtsp_camera_is_pulled_from_and_its_password_is_kept(serve, visit, clip, log):
    camera = Client(str(clip), log, script="rtsp_server.py", python="/usr/bin/python3")
    port = camera.event("listening")["port"]
    server = serve(f'video-chain="{ANNOTATE}" allow-pull=127.0.0.1')
    url = f"rtsp://me%40home:secret%2F1%3A2@127.0.0.1:{port}/live"
    client = use(visit, server, "--rtsp", url, "--stream", "image", "--data", "predictions")
    client.event("frame", count=5)
    client.event("predictions", count=5)
    # A file's end ends the session, as a camera's would.
    client.event("over", timeout=60)
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "source-ended"
    wrong = use(visit, server, "--rtsp", url.replace("secret", "wr0ng"), "--stream", "image")
    wrong.event("over", timeout=60)
    server.message("rtc-connection-ended", reason="handler-error")
    camera.end()
    # Neither in messages nor in what was logged.
    assert "secret" not in log.read_text(errors="replace") and "wr0ng" not in log.read_text(errors="replace")


@pytest.mark.parametrize(
    "allowed, url, named",
    [
        ("", "http://127.0.0.1:{}/live", "pulls nothing"),
        ("192.0.2.1", "http://127.0.0.1:{}/live", "127.0.0.1"),
        ("*", "http://127.0.0.1:{}/live", "private address"),
        ("*,127.0.0.1", "https://localhost:{}/live", "listed itself"),
    ],
)
def test_nothing_else_is_pulled_from(serve, visit, camera, allowed, url, named):
    server = serve(f'video-chain="{ANNOTATE}"' + (allowed and f" allow-pull={allowed}"))
    refused = use(visit, server, "--mjpeg", url.format(camera), "--stream", "image").event("failed")
    assert "HTTP 400" in refused["why"] and named in refused["why"]


def test_redirect_of_an_allowed_host_is_not_followed(serve, visit, camera):
    server = serve(f'video-chain="{ANNOTATE}" allow-pull=127.0.0.1')
    client = use(visit, server, "--mjpeg", f"http://127.0.0.1:{camera}/elsewhere", "--stream", "image")
    client.event("over")
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "handler-error"
    assert not client.all("frame")


class Trap:
    """A listener that gives each visitor one answer and remembers what it was asked."""

    def __init__(self, answer):
        self.asked = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        Thread(target=self.serve, args=[answer], daemon=True).start()

    def serve(self, answer):
        while True:
            peer, _ = self.socket.accept()
            Thread(target=self.talk, args=[peer, answer], daemon=True).start()

    def talk(self, peer, answer):
        try:
            while text := peer.recv(65536):
                self.asked.append(text)
                for piece in answer(text):
                    peer.sendall(piece)
        except OSError:
            pass  # It went.


def nothing(_):
    return []


def test_uploaded_list_of_other_places_opens_none_of_them(serve, visit):
    trap = Trap(nothing)
    server = serve(f'video-chain="{CHAIN}"')
    for place in f"http://127.0.0.1:{trap.port}/secret", f"rtsp://127.0.0.1:{trap.port}/secret":
        client = visit(server, route="", script="client_upload.py")
        client.event("open")
        client.ask(f"text #EXTM3U\\n#EXT-X-TARGETDURATION:10\\n#EXTINF:10,\\n{place}\\n#EXT-X-ENDLIST\\n")
        client.wait(lambda e: e["event"] == "message" and e["message"]["errors"], "an error")
    assert not trap.asked


def test_rtsp_server_that_leads_elsewhere_is_not_followed(serve, visit):
    trap = Trap(nothing)

    def leads(text):
        sequence = next(line for line in text.decode().split("\r\n") if line.startswith("CSeq"))
        if text.startswith(b"OPTIONS"):
            return [f"RTSP/1.0 200 OK\r\n{sequence}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n".encode()]
        return [f"RTSP/1.0 302 Found\r\n{sequence}\r\nLocation: rtsp://127.0.0.1:{trap.port}/live\r\n\r\n".encode()]

    first = Trap(leads)
    server = serve(f'video-chain="{ANNOTATE}" allow-pull=127.0.0.1')
    client = use(visit, server, "--rtsp", f"rtsp://127.0.0.1:{first.port}/live", "--stream", "image")
    client.event("over")
    assert server.message("rtc-connection-ended", door="roboflow")["reason"] == "handler-error"
    assert first.asked and not trap.asked


def test_picture_without_end_is_not_kept(serve, visit):
    def endless(_):
        yield b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
        yield b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
        for _ in range(400):
            yield bytes(1 << 20)

    server = serve(f'video-chain="{ANNOTATE}" allow-pull=127.0.0.1')
    client = use(visit, server, "--mjpeg", f"http://127.0.0.1:{Trap(endless).port}/live", "--stream", "image")
    client.event("over")
    assert "bytes" in server.message("rtc-connection-ended", door="roboflow", reason="handler-error")["detail"]
