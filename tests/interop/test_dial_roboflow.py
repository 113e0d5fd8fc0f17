"""Elements with `uri=roboflow+http://…` do with server_roboflow.py what the protocol asks of a client, whatever it does."""

import json
import re
import shlex
import socket
import threading
import time

import av
import numpy as np
import pytest

import painted

from conftest import ARTIFACTS, PATIENCE, free_port
from servers import Peer, peer  # noqa: F401: the second is a fixture

FRAMES = 45
AT_ONCE = 2  # seconds in which what is stopped has stopped
KEY = "rf_k3y0123456789"
# Of our elements, what there is for whoever wants to know everything.
OURS = "rtc*:9,framemeta:9"
# gst-launch-1.0 is gone with the first error, whatever was posted before: the last word is in the log then.
TELLS = {"GST_DEBUG": "2,rtcsessionsrc:4"}

# A queue holds 200 frames: it would be no slow consumer that is behind one.
TAKES = "s.video_0 ! framemeta post-messages=true"
LIVE = "videotestsrc is-live=true {} ! video/x-raw,width=320,height=240,framerate=30/1"
SKIPPED = {
    "bad-index": 2, "array": 1, "bad-utf8": 1, "corrupt-gzip": 2, "bomb": 1, "deep": 1, "never-complete": 1, "huge-total": 1,
    "zero-total": 0, "short": 1, "unframed": 1,
}


class House:
    """The server that most of the tests call, and what it told since the test began: how it is to be is in each request."""

    def __init__(self, server):
        self.server, self.url, self.port = server, server.url, server.port
        self.since = len(server.said)
        # What belongs to sessions of tests before may still come.
        self.before = max((e.get("session", 0) for e in server.said), default=0)

    def is_of_now(self, event):
        return event.get("session", self.before + 1) > self.before

    def event(self, name, count=None, timeout=PATIENCE, **fields):
        def matches(e):
            return e["event"] == name and self.is_of_now(e) and all(e.get(k) == v for k, v in fields.items())
        found = self.server.wait(matches, name, self.since, count or 1, timeout)
        return found if count else found[0]

    def all(self, name):
        with self.server.news:
            return [e for e in self.server.said[self.since:] if e["event"] == name and self.is_of_now(e)]


@pytest.fixture(scope="module")
def shared():
    path = ARTIFACTS / "logs" / "test_dial_roboflow-server.log"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    server = Peer("server_roboflow.py", path)
    yield server
    server.end()


@pytest.fixture
def house(shared):
    return House(shared)


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    path = tmp_path_factory.mktemp("workflow") / "workflow.json"
    path.write_text(json.dumps({"version": "1.0", "inputs": [{"type": "WorkflowImage", "name": "image"}], "steps": [], "outputs": []}))
    return path


def film_of(path, frames):
    """Numbered pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=30, options={"cpu-used": "8", "deadline": "realtime"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = painted.WIDTH, painted.HEIGHT, "yuv420p", 800_000
        for number in range(frames):
            planes = np.frombuffer(painted.i420(number), np.uint8).reshape(-1, painted.WIDTH)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return film_of(tmp_path_factory.mktemp("film") / "numbers.webm", FRAMES)


def quoted(value):
    if isinstance(value, bool):
        return f"(boolean){str(value).lower()}"
    if isinstance(value, int):
        return f"(int){value}"
    if isinstance(value, float):
        return f"(double){value}"
    if isinstance(value, dict):
        value = json.dumps(value, separators=(",", ":"))
    return '(string)"' + re.sub(r'(["\\])', r"\\\1", str(value)) + '"'


def options(**values):
    """As the property has them; underscores are dashes."""
    fields = [f"{name.replace('_', '-')}={quoted(value)}" for name, value in values.items() if value is not None]
    return "options=" + ",".join(["roboflow", *fields])


class Call:
    """What a session is to be: the words of the element that calls, and what follows it."""

    def __init__(self, launch, house, workflow, log):
        self.launch, self.house, self.workflow, self.log = launch, house, workflow, log

    def words(self, parameters={}, url=None, **values):
        values = {"workflow_file": self.workflow, "stream_output": "image", "data_output": "predictions", **values}
        if parameters:
            values["workflow_parameters"] = {name.replace("_", "-"): value for name, value in parameters.items()}
        return [f"uri=roboflow+{url or self.house.url}", options(**values)]

    def source(self, parameters={}, properties="", rest=f"{TAKES} ! fakesink", url=None, env={}, flags=("-m", "-e"), **values):
        """rtcsessionsrc calls: for an upload, or for what the server pulls."""
        words = ["rtcsessionsrc", "name=s", *self.words(parameters, url, **values), *properties.split(), *rest.split()]
        return self.launch(shlex.join(words), env=env, options=flags)

    def sender(self, parameters={}, properties="", feed=LIVE.format(""), rest=f"{TAKES} ! fakesink", url=None, env={}, **values):
        """rtcsessionsink calls and sends; rtcsessionsrc gives what comes back."""
        words = [*feed.split(), "!", "rtcsessionsink", "session=a", *self.words(parameters, url, **values)]
        source = ["rtcsessionsrc", "name=s", "session=a", *properties.split(), *rest.split()] if rest else []
        return self.launch(shlex.join([*words, *source]), env=env)

    def errors(self):
        """What went wrong, as it was printed."""
        return re.findall(r"^ERROR: from element (\S+): (.*)$", self.log.read_text(errors="replace"), re.M)


@pytest.fixture
def call(launch, house, workflow, log):
    return Call(launch, house, workflow, log)


def ids(client):
    """Frames as they arrived: the frame-id that the server gave each, `None` for those of which nothing was said."""
    return [told_of(m)["video_metadata"]["frame_id"] if "json" in m.fields else None for m in client.all("frame-meta")]


def told_of(message):
    return json.loads(message["json"])


def numbers(path):
    """What the pictures of a file of raw video show."""
    size = painted.WIDTH * painted.HEIGHT * 3 // 2
    data = path.read_bytes()
    assert len(data) % size == 0
    pictures = [memoryview(data)[at:at + size] for at in range(0, len(data), size)]
    return [painted.read(picture, painted.WIDTH, painted.WIDTH, painted.HEIGHT) for picture in pictures]


def shown_and_said(path, client):
    """For each frame with a result, the number in the picture and the one in the result."""
    said = [told_of(m) if "json" in m.fields else None for m in client.all("frame-meta")]
    shown = numbers(path)
    assert len(shown) == len(said)
    return [(a, b["serialized_output_data"]["predictions"]["predictions"][0]["x"]) for a, b in zip(shown, said) if b]


def ends(client, reason, code=0, **fields):
    """The last word about the one connection, and how the process ended; neither waits for anybody."""
    ended = client.message("rtc-connection-ended", reason=reason, **fields)
    assert client.exit_code() == code, client.log.name
    assert len(client.all("rtc-connection-ended")) == 1
    started, over = client.all("rtc-stream-started"), client.all("rtc-stream-ended")
    assert [m["stream-id"] for m in started] == [m["stream-id"] for m in over]
    return ended


def fails(call, client, reason, words):
    """The session has begun and ends with one error, and that reason."""
    assert client.exit_code() == 1
    [(_, text)] = call.errors()
    for word in [call.house.url, *words]:
        assert word in text, text
    told = re.findall(r"rtc-connection-ended,.* reason=\(string\)([\w-]+)", call.log.read_text(errors="replace"))
    assert reason in told and set(told) == {reason}


# A session as it should be.


@pytest.mark.parametrize("way", ["channel", "track"])
def test_uploaded_file_comes_back_whole_and_each_frame_has_its_own_result(call, house, film, tmp_path, way):
    shown = tmp_path / "shown.i420"
    rest = f"{TAKES} ! videoconvert ! video/x-raw,format=I420 ! filesink location={shown}"
    client = call.source(rest=rest, upload_location=film, upload_frames=way)
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))
    assert [m["frame-id"] for m in client.all("inference-result")] == list(range(1, FRAMES + 1))
    pairs = shown_and_said(shown, client)
    assert pairs == [(number, float(number)) for number in range(FRAMES)]
    assert house.event("upload")["bytes"] == film.stat().st_size
    progress = client.all("rtc-upload-progress")
    assert progress[-1]["bytes"] == progress[-1]["total"] == film.stat().st_size
    assert not client.all("rtc-connection-error") and not client.warnings


def test_live_video_comes_back_with_what_the_server_says_of_each_frame(call, house):
    client = call.sender(feed=LIVE.format("num-buffers=60"))
    ended = ends(client, "source-ended")
    assert ended["had-media"] and ended["door"] == "roboflow"
    metas = client.all("frame-meta")
    assert len(metas) >= 40 and None not in ids(client)
    over = house.event("over")
    assert (len(client.all("inference-result")), len(metas)) == (over["processed"], over["returned"])
    states = [(m["old"], m["new"]) for m in client.all("rtc-connection-state")]
    phases = ["signalling", "connecting", "playing", "ending", "ended"]
    assert states == list(zip(phases, phases[1:]))
    # Nobody fills in for the camera before it has begun: it would be a frame of the model's.
    assert {(m["width"], m["height"]) for m in metas} == {(320, 240)}
    # The clock of the frame is the one of what was said of it.
    for meta in metas:
        said = told_of(meta)["video_metadata"]
        assert meta["time-base-den"] == 90000 and abs(meta["pts"] - said["pts"]) <= 1
        assert (meta["width"], meta["height"]) == (said["width"], said["height"])
    assert not house.all("ack"), "a realtime session is not acknowledged"


def test_request_says_everything_that_options_say(call, house):
    turn = {"urls": "turn:127.0.0.1:1", "username": "ann", "credential": "s3cret"}
    client = call.source(
        workflow_file=None, workspace="acme", workflow_id="count", workflow_version="7", image_input_name="picture",
        stream_output="image", data_output="a,b", realtime_processing=False, declared_fps=12.5, processing_timeout=90,
        requested_plan="webrtc-gpu-large", requested_region="eu", rtsp_url="rtsp://camera.local/1", turn_server=turn,
        parameters={"mode": "status-403", "threshold": 0.5}, api_key=KEY,
    )
    assert client.exit_code() == 1
    request = house.event("request")
    body = request["body"]
    asked = body.pop("workflow_configuration")
    assert {key: asked[key] for key in ("type", "workspace_name", "workflow_id", "workflow_version_id", "image_input_name")} == {
        "type": "WorkflowConfiguration", "workspace_name": "acme", "workflow_id": "count", "workflow_version_id": "7",
        "image_input_name": "picture",
    }
    assert asked["workflows_parameters"] == {"mode": "status-403", "threshold": 0.5}
    assert body == {
        "api_key": KEY, "webrtc_offer": {"type": "offer"}, "webrtc_realtime_processing": False, "stream_output": ["image"],
        "data_output": ["a", "b"], "declared_fps": 12.5, "processing_timeout": 90, "requested_plan": "webrtc-gpu-large",
        "requested_region": "eu", "rtsp_url": "rtsp://camera.local/1",
        "webrtc_config": {"iceServers": [{**turn, "urls": [turn["urls"]]}]},
    }
    assert request["lines"] == [["video", "recvonly"], ["application", "sendrecv"]]
    assert request["candidates"] > 0


@pytest.mark.parametrize("way, lines", [
    ("both", [["video", "sendrecv"], ["application", "sendrecv"]]),
    ("data", [["video", "sendonly"], ["application", "sendrecv"]]),
    ("alone", [["video", "sendonly"], ["application", "sendrecv"]]),
])
def test_offer_has_the_lines_that_there_is_a_use_for_and_one_channel(call, house, way, lines):
    rest = {"both": f"{TAKES} ! fakesink", "data": "fakesink", "alone": ""}[way]
    output = "image" if way == "both" else None
    client = call.sender(stream_output=output, rest=rest)
    assert house.event("request")["lines"] == lines
    channel = house.event("channel")
    assert (channel["label"], channel["ordered"], channel["protocol"]) == ("inference", True, "")
    result = client.message("inference-result")
    assert told_of(result)["serialized_output_data"]["predictions"]


@pytest.mark.parametrize("pulled", ["rtsp_url", "mjpeg_url"])
def test_what_the_server_pulls_comes_back_and_ends(call, house, pulled):
    url = {"rtsp_url": "rtsp://camera.local/1", "mjpeg_url": "http://camera.local/1"}[pulled]
    client = call.source({"frames": 30}, **{pulled: url})
    ended = ends(client, "source-ended")
    assert "termination-reason" not in ended.fields
    assert house.event("complete")["processed"] == 30
    assert None not in ids(client) and len(ids(client)) >= 28


@pytest.mark.parametrize("way", ["channel", "track"])
def test_session_ends_well_when_the_track_ends_too(call, film, way):
    client = call.source({"bye": True}, upload_location=film, upload_frames=way)
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))


def test_results_are_read_compressed_and_in_pieces_that_come_last_one_first(call, film):
    parameters = {"gzip": True, "chunk": 700, "reorder": True}
    client = call.source(parameters, upload_location=film)
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))
    assert not client.all("rtc-connection-error")


def test_results_are_read_that_are_texts(call, film):
    client = call.source({"text": True}, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_server_of_one_codec_is_served(call, film, codec):
    client = call.source({"mode": f"{codec}-only"}, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    assert client.all("rtc-stream-started")[0]["codec"] == codec
    assert ids(client) == list(range(1, FRAMES + 1))


# Frames and what is said of them.


def test_frames_are_paired_that_differ_by_a_tick_from_what_is_said_of_them(call, film, tmp_path):
    shown = tmp_path / "shown.i420"
    rest = f"{TAKES} ! videoconvert ! video/x-raw,format=I420 ! filesink location={shown}"
    client = call.source({"off_tick_every": 3}, rest=rest, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))
    assert all(shown == said for shown, said in shown_and_said(shown, client))


@pytest.mark.parametrize("option", ["no_metadata_every", "no_result_every"])
def test_frames_of_which_nothing_is_said_come_without_it_and_in_their_place(call, film, option):
    client = call.source({option: 5}, "drop=false", upload_location=film, upload_frames="track", realtime_processing=True)
    ends(client, "source-ended")
    came = ids(client)
    # A server in real time skips frames, but counts what it processes.
    assert len(came) > FRAMES // 2
    assert came == [None if number % 5 == 0 else number for number in range(1, len(came) + 1)]
    results = len(came) if option == "no_metadata_every" else len(came) - len(came) // 5
    assert len(client.all("inference-result")) == results


@pytest.mark.parametrize("option", ["no_metadata_every", "no_result_every", "no_frame_every"])
def test_server_that_waits_for_acknowledgements_is_not_left_waiting(call, house, film, option):
    client = call.source({option: 20}, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    assert house.event("complete")["processed"] == FRAMES
    assert len(ids(client)) == FRAMES - (FRAMES // 20 if option == "no_frame_every" else 0)


def test_results_without_a_frame_are_posted_all_the_same(call, house, film):
    client = call.source({"no_frame_every": 4}, "drop=false", upload_location=film, upload_frames="track", realtime_processing=True)
    ends(client, "source-ended")
    processed = house.event("complete")["processed"]
    assert [m["frame-id"] for m in client.all("inference-result")] == list(range(1, processed + 1))
    assert ids(client) == [number for number in range(1, processed + 1) if number % 4]


def test_frames_that_fail_are_warnings_which_name_them(call, film):
    client = call.source({"error_every": 10}, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    failed = range(10, FRAMES + 1, 10)
    assert len(client.warnings) == len(failed)
    for number, warning in zip(failed, client.warnings):
        assert f"frame {number}: step 'model' failed at frame {number}" in warning
    errors = {m["frame-id"]: told_of(m)["errors"] for m in client.all("inference-result")}
    assert all(bool(errors[number]) == (number in failed) for number in errors)
    # The picture comes all the same.
    assert ids(client) == list(range(1, FRAMES + 1))


def test_every_frame_is_acknowledged_once_it_has_been_taken_where_none_may_be_lost(call, house, film):
    client = call.source({"frame_ms": 2}, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    house.event("over")
    assert [e["number"] for e in house.all("ack")] == list(range(1, FRAMES + 1))
    assert not house.all("control")


def test_video_that_is_no_camera_waits_for_the_server_and_has_no_gap(call, house, film, tmp_path):
    shown = tmp_path / "shown.i420"
    client = call.sender(
        {"frame_ms": 5}, feed=f"filesrc location={film} ! matroskademux ! vp8dec ! videoconvert",
        rest=f"{TAKES} ! videoconvert ! video/x-raw,format=I420 ! filesink location={shown}", realtime_processing=False,
    )
    ends(client, "source-ended")
    assert {(m["width"], m["height"]) for m in client.all("frame-meta")} == {(painted.WIDTH, painted.HEIGHT)}
    seen = [number for number in numbers(shown) if isinstance(number, int)]
    # aiortc misses what comes before it listens, and a frame is whole to it when the next one begins.
    assert seen[0] <= 3 and seen[-1] >= FRAMES - 2 and sorted(set(seen)) == list(range(seen[0], seen[-1] + 1))
    assert seen == sorted(seen)
    assert all(shown == said for shown, said in shown_and_said(shown, client) if isinstance(shown, int))


# Whoever is slow.


@pytest.mark.parametrize("way", ["channel", "track"])
def test_slow_consumer_of_an_upload_gets_every_frame_and_the_end(call, house, film, way):
    client = call.source(
        rest=f"{TAKES} ! identity sleep-time=30000 ! fakesink", upload_location=film, upload_frames=way,
    )
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))
    assert sum(m["dropped"] for m in client.all("rtc-stream-ended")) == 0


@pytest.mark.parametrize("way", ["channel", "track"])
def test_long_file_arrives_whole_at_a_consumer_slower_than_the_server(call, tmp_path, way):
    film = tmp_path / "long.webm"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libvpx", rate=30, options={"cpu-used": "8", "deadline": "realtime"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(431):
            planes = np.full((72, 64), number % 200 + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    client = call.source(
        rest=f"{TAKES} ! identity sleep-time=2000 ! fakesink", upload_location=film, upload_frames=way,
    )
    client.message("rtc-connection-ended", timeout=40)
    ends(client, "source-ended")
    assert ids(client) == list(range(1, 432))


def test_slow_consumer_of_live_video_gets_the_newest_frames(call, house):
    client = call.sender(
        properties="max-buffers=2", feed=LIVE.format("num-buffers=60"), rest=f"{TAKES} ! identity sleep-time=100000 ! fakesink",
    )
    ended = client.message("rtc-stream-ended")
    assert client.exit_code() == 0
    came = [number for number in ids(client) if number]
    assert came == sorted(came)
    over = house.event("over")
    assert ended["dropped"] > 0 and ended["buffers"] + ended["dropped"] == over["returned"]
    # The model's results are told all the same.
    assert len(client.all("inference-result")) == over["processed"]


# Calls that bring no session.


@pytest.mark.parametrize("mode, words", [
    ("status-404", ["404", "workspace"]),
    ("status-500", ["500", "Internal error."]),
    ("status-401", ["401", "API key"]),
    ("status-402", ["402", "Not enough credits."]),
    ("status-429", ["429", "Too many streams."]),
    ("no-sdp", ["sdp"]),
    ("not-json", ["JSON"]),
    ("garbage-sdp", ["session description"]),
    ("reject-video", ["video"]),
])
def test_call_without_a_session_is_one_error_that_names_url_and_cause(call, film, mode, words):
    client = call.source({"mode": mode}, upload_location=film, upload_frames="track")
    one_error(call, client, [call.house.url, *words])


def one_error(call, client, words, element="s"):
    # What is wrong before anybody is called keeps the pipeline from starting, which gst-launch-1.0 has another code for.
    assert client.exit_code() in (1, 255)
    [(source, text)] = call.errors()
    assert source.endswith(f":{element}"), source
    for word in words:
        assert word in text, text
    assert not client.all("rtc-connection-created")
    return text


def test_codecs_that_do_not_meet_are_one_error(call, film):
    client = call.source({"mode": "h264-only"}, "video-codecs=vp8", upload_location=film, upload_frames="track")
    one_error(call, client, [call.house.url, "500"])


def test_server_that_is_not_there_is_one_error(call, film):
    url = f"http://127.0.0.1:{free_port()}"
    one_error(call, call.source(url=url, upload_location=film), [f"{url}/initialise_webrtc_worker", "refused"])


def test_server_without_tls_is_one_error_for_https(call, film):
    url = call.house.url.replace("http:", "https:")
    one_error(call, call.source(url=url, upload_location=film), [f"{url}/initialise_webrtc_worker", "TLS"])


def test_error_of_a_sink_that_calls_is_the_sinks(call):
    client = call.sender({"mode": "status-500"}, rest="")
    one_error(call, client, ["500"], "rtcsessionsink0")


def test_error_of_a_sink_that_calls_is_the_only_one_where_a_source_takes_what_comes_back(call):
    client = call.sender({"mode": "status-500"})
    one_error(call, client, ["500"], "rtcsessionsink0")


def test_call_that_gets_no_answer_ends_at_once_when_it_is_stopped(call, house, film):
    # Without -e: a branch that never got its pad keeps a pipeline from EOS.
    client = call.source({"mode": "no-answer"}, upload_location=film, flags=("-m",))
    house.event("request")
    since = time.monotonic()
    client.interrupt()
    client.exit_code()
    assert time.monotonic() - since < AT_ONCE
    assert not call.errors()


@pytest.mark.parametrize("change, words", [
    ({"colour": "red"}, ['"colour"', "workflow-file", "api-key", "upload-location"]),
    ({"realtime_processing": "maybe"}, ["realtime-processing", "boolean"]),
    ({"processing_timeout": 0}, ["processing-timeout"]),
    ({"declared_fps": -1.0}, ["declared-fps"]),
    ({"workflow_file": None}, ["workflow-file", "workspace", "workflow-id"]),
    ({"workspace": "acme"}, ["workflow-file", "workspace"]),
    ({"workflow_file": "/none/such.json"}, ["workflow-file", "/none/such.json"]),
    ({"upload_location": "/none/such.webm"}, ["upload-location", "/none/such.webm"]),
    ({"rtsp_url": "rtsp://a/b"}, ["rtsp-url", "upload-location"]),
    ({"upload_frames": "mail"}, ["upload-frames", "channel", "track"]),
    ({"api_key_in": "pocket", "api_key": KEY}, ["api-key-in", "body", "header", "both"]),
])
def test_options_that_are_wrong_are_named_and_nobody_is_called(call, house, film, change, words):
    client = call.source(**{"upload_location": film, **change})
    text = one_error(call, client, words)
    assert KEY not in text
    assert not house.all("request")


@pytest.mark.parametrize("uri, words", [
    ("roboflow://127.0.0.1", ["roboflow", "+http"]),
    ("telnet+http://127.0.0.1", ["telnet", "fastrtc"]),
    (f"roboflow+http://ann:{KEY}@127.0.0.1", ["account"]),
])
def test_uri_that_is_none_is_one_error_without_what_is_secret(call, launch, uri, words):
    text = one_error(call, launch(f"rtcsessionsrc name=s uri={uri} s.video_0 ! fakesink"), words)
    assert KEY not in text


def test_session_without_any_video_is_one_error(call, house):
    one_error(call, call.source(), ["rtsp-url", "mjpeg-url", "upload-location"])
    assert not house.all("request")


# Sessions that end before their time.


@pytest.mark.parametrize("way", ["channel", "track"])
def test_server_that_says_nothing_is_an_error_after_the_stall_timeout(call, film, way):
    client = call.source({"mode": "stall"}, "stall-timeout=1500", upload_location=film, upload_frames=way, env=TELLS)
    began = client.message("rtc-connection-state", new="playing").at
    fails(call, client, "stalled", ["stall-timeout"])
    assert 1 < time.monotonic() - began < 4


def test_server_that_is_gone_is_an_error_after_the_disconnect_timeout(call, film):
    parameters, properties = {"mode": "kill-at-20"}, "disconnect-timeout=1500"
    client = call.source(parameters, properties, upload_location=film, upload_frames="track", env=TELLS)
    fails(call, client, "peer-lost", ["without a word"])
    assert ids(client)[:15] == list(range(1, 16))


def test_server_that_closes_the_connection_before_the_end_is_told(call, film):
    client = call.source({"mode": "close-at-20"}, upload_location=film, upload_frames="track")
    ends(client, "server-closed")
    came = ids(client)
    assert len(came) >= 15 and came == list(range(1, len(came) + 1))


def test_end_of_the_time_is_told_and_ends_whoever_sends(call, house):
    client = call.sender(processing_timeout=3)
    ended = ends(client, "time-limit", termination_reason="timeout_reached")
    assert ended["had-media"] and not call.errors()
    assert house.event("complete")["reason"] == "timeout_reached"


def test_upload_ends_at_once_when_it_is_stopped(call, house, tmp_path):
    large = tmp_path / "large.webm"
    with large.open("wb") as file:
        file.truncate(256 << 20)
    client = call.source(upload_location=large, flags=("-m",))
    client.message("rtc-upload-progress")
    since = time.monotonic()
    client.interrupt()
    client.exit_code()
    assert time.monotonic() - since < AT_ONCE
    assert not call.errors() and not house.all("upload")
    house.event("over")


def test_upload_that_is_sent_eos_is_given_up_at_once(call, house, tmp_path):
    large = tmp_path / "large.webm"
    with large.open("wb") as file:
        file.truncate(256 << 20)
    client = call.source(upload_location=large)
    client.message("rtc-upload-progress")
    since = time.monotonic()
    client.interrupt()
    ended = client.message("rtc-connection-ended", reason="closed-by-application")
    assert ended.at - since < AT_ONCE and not ended["had-media"]
    house.event("over")
    assert not house.all("upload")


def test_interrupt_ends_a_session_with_its_last_word(call, house):
    client = call.sender()
    client.message("frame-meta", count=10)
    client.interrupt()
    ended = client.message("rtc-connection-ended")
    assert client.exit_code() == 0
    assert ended["reason"] in ("source-ended", "closed-by-application")
    house.event("over")


def test_lost_server_is_called_again_and_live_video_goes_on_meanwhile(call, peer):  # noqa: F811
    first = peer("server_roboflow.py")
    port = first.port
    words = call.words(url=first.url)
    feed = [*LIVE.format("").split(), "!", "framemeta", "name=fed", "post-messages=true", "!"]
    line = [*feed, "rtcsessionsink", "session=a", *words, "reconnect=on-loss"]
    line += [*"rtcsessionsrc name=s session=a disconnect-timeout=1000".split(), *f"{TAKES} name=taken ! fakesink".split()]
    client = call.launch(shlex.join(line))

    client.message("rtc-stream-started")
    first.kill()
    lost = client.message("rtc-connection-ended", reason="peer-lost")
    gone = len(client.said)
    second = peer("server_roboflow.py", "--port", str(port))
    again = client.message("rtc-connection-created", since=gone)["connection-id"]
    assert second.event("received")["received"] > 0
    assert any("calling again in" in warning for warning in client.warnings)
    assert not call.errors() and lost["had-media"]
    fed = [m.at for m in client.all("frame-meta") if m.source == "fed"]
    assert max(b - a for a, b in zip(fed, fed[1:])) < 0.5, "the camera was held up"
    # What comes back goes on as well, to whoever took it before.
    client.wait(lambda m: m.source == "taken" and m.fields.get("connection-id") == again, "frames that came back", gone, 10, 5)
    client.interrupt()
    assert client.exit_code() == 0


def test_server_that_is_not_there_yet_is_called_until_it_is(call, peer, film):  # noqa: F811
    port = free_port()
    client = call.source(properties="reconnect=on-loss", url=f"http://127.0.0.1:{port}", upload_location=film)
    client.wait(lambda m: m.kind == "warning", "a warning")
    peer("server_roboflow.py", "--port", str(port))
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))


def test_key_that_is_refused_is_not_called_with_again(call, house, film):
    client = call.source({"api_key": "another"}, "reconnect=on-loss", upload_location=film, api_key=KEY)
    text = one_error(call, client, ["401", "API key"])
    assert KEY not in text
    assert len(house.all("request")) == 1


# Keys.


@pytest.mark.parametrize("place", ["body", "header", "both", "variable"])
def test_key_is_sent_where_it_is_to_be_and_told_nowhere(call, house, film, place):
    given = {"env": {"ROBOFLOW_API_KEY": KEY, "GST_DEBUG": "*:6"}}
    if place != "variable":
        given = {"env": {"GST_DEBUG": OURS}, "api_key": KEY, "api_key_in": place}
    client = call.source(upload_location=film, **given)
    ends(client, "source-ended")
    request = house.event("request")
    in_body, in_header = place in ("body", "both", "variable"), place in ("header", "both")
    assert request["body"].get("api_key") == (KEY if in_body else None)
    assert request["authorization"] == (f"Bearer {KEY}" if in_header else None)
    assert KEY not in call.log.read_text(errors="replace")


def test_key_that_a_server_repeats_is_not_repeated(call, film):
    # An unknown output is named in the refusal.
    client = call.source({"workflow_outputs": "image"}, upload_location=film, data_output=KEY, api_key=KEY)
    text = one_error(call, client, ["400"])
    assert KEY not in text


# What no server should do.


@pytest.mark.parametrize("mode", SKIPPED)
def test_session_goes_on_after_what_is_hostile(call, house, film, mode):
    client = call.source({"mode": mode}, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    house.event("hostile", what=mode)
    came = ids(client)
    if mode == "bomb":
        # Until a bomb is known for one, the next frame may have gone on.
        came[4] = came[4] or 5
    assert came == list(range(1, FRAMES + 1))
    results = [m["frame-id"] for m in client.all("inference-result") if m["frame-id"] <= FRAMES]
    assert results == list(range(1, FRAMES + 1))
    # Pacing goes on as well.
    assert [e["number"] for e in house.all("ack") if e["number"] <= FRAMES] == list(range(1, FRAMES + 1))
    skipped = client.all("rtc-connection-error")
    assert len(skipped) >= min(SKIPPED[mode], 1) and not any(m["fatal"] for m in skipped)
    assert SKIPPED[mode] or not skipped
    assert len(skipped) <= 8, "complaints are as many as there is reason for"


def test_session_goes_on_after_everything_that_is_hostile_at_once(call, house, film):
    client = call.source({"mode": ",".join(SKIPPED), "gzip": True}, upload_location=film)
    ends(client, "source-ended")
    assert ids(client) == list(range(1, FRAMES + 1))
    # What names a frame that was not processed is no reason to acknowledge it: the server would wait for nothing any more.
    assert [e["number"] for e in house.all("ack")] == list(range(1, FRAMES + 1))


def test_session_goes_on_while_the_server_floods(call, house, film):
    client = call.source({"mode": "flood"}, upload_location=film, upload_frames="track")
    ends(client, "source-ended")
    house.event("hostile", what="flood")
    # What is said of a frame may be a long way behind it then: it comes without.
    came = ids(client)
    assert len(came) == FRAMES and [number for number in came if number] == sorted(filter(None, came))
    results = [m["frame-id"] for m in client.all("inference-result") if m["frame-id"] <= FRAMES]
    # Two thousand a second are told and no more; what comes after the flood is told again.
    assert results == sorted(set(results)) and results[-1] == FRAMES and len(results) > FRAMES // 2
    assert max(e["number"] for e in house.all("ack")) <= FRAMES


@pytest.mark.parametrize("body", [b"", b"[" * 200_000, b'{"type":"answer","sdp":7}', b'{"sdp":"' + b"a" * (4 << 20) + b'"}', None])
def test_answer_of_any_length_or_kind_is_one_error(call, film, body):
    """`None` sends without end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                length = f"Content-Length: {len(body)}\r\n" if body is not None else ""
                try:
                    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}\r\n".encode() + (body or b""))
                    while body is None:
                        connection.sendall(bytes(1 << 16))
                except OSError:
                    pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = call.source(url=url, upload_location=film)
        one_error(call, client, [url])
        thread.join(PATIENCE)


# A server in the place of a model.


def accounts(client):
    """Those of each moment are exact; the last ones."""
    for stats in client.all("inference-stats"):
        parts = stats["inferred"] + stats["failed"] + stats["pending"] + stats["dropped"]
        assert stats["received"] == parts, stats.fields
        reasons = [stats[f"dropped-{reason}"] for reason in ("busy", "late", "flush", "closed")]
        assert stats["dropped"] == sum(reasons), stats.fields
    return client.all("inference-stats")[-1]


def test_inferencesink_sends_a_camera_to_the_server_and_tells_results_and_exact_accounts(call, house):
    feed = LIVE.format("num-buffers=90").replace("video/x-raw,", "video/x-raw,format=I420,")
    words = [*feed.split(), "!", "inferencesink", "stats-interval=200", *call.words(stream_output=None)]
    client = call.launch(shlex.join(words))
    assert client.exit_code() == 0
    last = accounts(client)
    results = client.all("inference-result")
    assert last["received"] == 90 and last["pending"] == 0
    assert last["inferred"] == len(results) >= 60
    assert house.event("request")["body"]["stream_output"] == []
    assert last["latency-p50"] > 0


def test_inferencesink_sends_a_file_at_its_own_pace_and_has_a_result_for_each_frame_but_the_last(call, house, film):
    feed = f"filesrc location={film} ! matroskademux ! vp8dec ! videoconvert"
    began = time.monotonic()
    client = call.launch(shlex.join([*feed.split(), "!", "inferencesink", *call.words(stream_output=None, realtime_processing=False)]))
    assert client.exit_code() == 0
    assert time.monotonic() - began > FRAMES / 30
    last = accounts(client)
    # aiortc knows that a frame is whole when the next one comes.
    assert (last["received"], last["inferred"], last["dropped-late"]) == (FRAMES, FRAMES - 1, 1)
    said = [told_of(m)["serialized_output_data"]["predictions"]["predictions"][0]["x"] for m in client.all("inference-result")]
    assert said == [float(number) for number in range(FRAMES - 1)]


def test_inferencesink_with_a_model_and_a_server_is_an_error_that_names_both(call):
    feed = LIVE.format("num-buffers=1")
    client = call.launch(shlex.join([*feed.split(), "!", "inferencesink", "model=models/shapes.onnx", *call.words()]))
    assert client.exit_code() != 0
    [(element, text)] = call.errors()
    assert "inferencesink" in element and "model=models/shapes.onnx" in text and "uri" in text
