"""Elements with `uri` call servers of others, and our own: what they send arrives, what is sent back comes in, and each says good-bye."""

import json
import math
import re
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import painted
import scenes

from conftest import PATIENCE, Client, free_port
from returning import loud
from servers import Peer, peer  # noqa: F401: one is a fixture
from test_roboflow import ANNOTATE, clip, use  # noqa: F401: one is a fixture
from test_whip import peer_env  # noqa: F401: a fixture

FRAMES = 45
RATE, PIECE = 48000, 960
SHAPE = f"width={painted.WIDTH},height={painted.HEIGHT}"
# As long as the pictures.
SOUND = f"audiotestsrc num-buffers={FRAMES * 5 // 3} samplesperbuffer={PIECE} freq=440 volume=0.5 ! audio/x-raw,rate={RATE},channels=1"
LIVE = f"videotestsrc is-live=true ! video/x-raw,{SHAPE},framerate=30/1"
LIVE_SOUND = f"audiotestsrc is-live=true freq=440 volume=0.5 ! audio/x-raw,rate={RATE},channels=1"
# aiortc gives a frame out when the next one has come, FastRTC keeps one more, and while encoders start a frame may be replaced.
KEPT = 5


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A source of numbered pictures that are not live: the file is read as fast as it is taken."""
    path = tmp_path_factory.mktemp("film") / "numbers.i420"
    path.write_bytes(b"".join(painted.i420(number) for number in range(FRAMES)))
    return f"filesrc location={path} ! rawvideoparse format=i420 {SHAPE.replace(',', ' ')} framerate=30/1"


class Kept:
    """Files to which what comes back is written, and what is in them."""

    def __init__(self, folder):
        self.pictures, self.sounds = folder / "pictures.i420", folder / "sounds.s16"
        scaled = f"videoconvert ! videoscale ! video/x-raw,format=I420,{SHAPE}"
        self.video = f"queue ! {scaled} ! filesink location={self.pictures}"
        plain = f"audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate={RATE},channels=1"
        self.audio = f"queue ! {plain} ! filesink location={self.sounds}"

    def numbers(self, upside_down=False):
        """What each picture shows."""
        width, height = painted.WIDTH, painted.HEIGHT
        data, size = self.pictures.read_bytes(), width * height * 3 // 2
        shown = []
        for at in range(0, len(data) - size + 1, size):
            rows = [data[at + row * width:][:width] for row in range(height)]
            luma = b"".join(reversed(rows) if upside_down else rows)
            shown.append(painted.read(luma, width, width, height))
        return shown

    def tone(self):
        """Its level in dB in the middle, and how many seconds there are of it."""
        samples = np.frombuffer(self.sounds.read_bytes(), np.int16) / 32768
        middle = samples[len(samples) // 3:][:RATE // 2]
        return 10 * math.log10((middle**2).mean() + 1e-12), len(samples) / RATE


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path)


@pytest.fixture
def application(plugin_env, log):
    """Starts caller.py with a description; all are ended with the test."""
    started = []

    def start(description):
        inside = ["env", *(f"{key}={plugin_env[key]}" for key in ("GST_PLUGIN_PATH", "GST_REGISTRY", "GST_DEBUG"))]
        client = Client(description, log, script="caller.py", python="/usr/bin/python3", inside=inside)
        started.append(client)
        return client

    yield start
    for client in started:
        client.end()


class Post(BaseHTTPRequestHandler):
    """Hands a request on to the server behind it, and remembers what it was."""

    def do_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path))
        kind = {"Content-Type": self.headers["Content-Type"]} if self.headers["Content-Type"] else {}
        request = urllib.request.Request(self.server.behind + self.path, body or None, kind, method=self.command)
        try:
            answer = urllib.request.urlopen(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            answer = error
        said = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Type", "Location"):
            if answer.headers[name]:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_POST = do_DELETE = do_any

    def log_message(self, *_):
        pass


@pytest.fixture
def post():
    """Starts a post office before a server; it knows what was `asked`."""
    started = []

    def start(behind):
        office = ThreadingHTTPServer(("127.0.0.1", 0), Post)
        office.behind, office.asked, office.port = behind, [], office.server_port
        threading.Thread(target=office.serve_forever, daemon=True).start()
        started.append(office)
        return office

    yield start
    for office in started:
        office.shutdown()


def errors(log):
    """What gst-launch-1.0 says of the pipeline's errors."""
    return re.findall(r"(?m)^ERROR: from element (.*)$", log.read_text(errors="replace"))


def in_turn(shown):
    """Whether it is one number after the other from the beginning on, or nearly."""
    numbers = [number for number in shown if isinstance(number, int)]
    return bool(numbers) and numbers[0] <= 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def count(shown):
    return sum(isinstance(number, int) for number in shown)


def calls(uri, options="", session="a"):
    options = f'options="o,{options}"' if options else ""
    return f"uri={uri} session={session} {options}"


# aiortc and Pipecat


def test_file_is_sent_to_an_aiortc_server_and_all_of_it_comes_back(launch, peer, film, kept):  # noqa: F811
    server = peer("server_offer.py")
    ours = launch(
        f"rtcsessionsrc name=s session=a drop=false s.video_0 ! {kept.video} s.audio_0 ! {kept.audio} "
        f"{film} ! rtcsessionsink name=o {calls(f'offer+http://127.0.0.1:{server.port}')} {SOUND} ! o."
    )
    ended = ours.message("rtc-connection-ended")
    assert (ended["door"], ended["reason"], ended["external-id"]) == ("offer", "source-ended", "1")
    assert ours.exit_code() == 0
    server.event("state", state="closed")
    shown = kept.numbers()
    # Nothing was lost while the server was being called.
    assert in_turn(shown) and count(shown) >= FRAMES - KEPT, shown
    level, seconds = kept.tone()
    assert loud(level) and seconds > FRAMES / 30 - 0.5, (level, seconds)
    started = {m["media"]: m["stream-id"] for m in ours.all("rtc-stream-started")}
    assert {m["stream-id"] for m in ours.all("rtc-stream-ended")} == set(started.values())
    assert set(started) == {"video", "audio"} and len(ours.all("rtc-connection-ended")) == 1


def test_nothing_comes_before_the_first_picture_of_a_file(launch, peer, film, kept):  # noqa: F811
    server = peer("server_offer.py")
    ours = launch(
        f"rtcsessionsrc name=s session=a drop=false s.video_0 ! {kept.video} "
        f"{film} ! rtcsessionsink {calls(f'offer+http://127.0.0.1:{server.port}')}"
    )
    assert ours.exit_code() == 0
    shown = kept.numbers()
    # A server would infer on a filler, and would number its results with it.
    assert shown[:3] == [0, 1, 2] and in_turn(shown), shown


def test_texts_go_both_ways(application, peer):  # noqa: F811
    server = peer("server_offer.py", "--text", "hello")
    url = f"offer+http://127.0.0.1:{server.port}/offer"
    ours = application(
        f"rtcsessionsrc name=s session=a s. ! queue ! fakesink {LIVE} ! rtcsessionsink {calls(url, 'channel=chat')}"
    )
    assert ours.event("rtc-data", text="hello")["channel"] == "chat"
    ours.ask("send chat what is new?")
    assert ours.event("sent")["said"] is True
    assert server.event("message")["text"] == "what is new?"
    ours.event("rtc-data", text="what is new?")
    ours.event("rtc-stream-started")
    ours.ask("eos")
    ours.event("eos")
    ours.ask("stop")
    assert ours.event("stopped")["after"] < 2
    ended = ours.event("rtc-connection-ended")
    assert ended["reason"] in ("source-ended", "closed-by-application")
    server.event("state", state="closed")
    assert not ours.all("error")


def test_fields_of_an_application_are_in_the_request_and_only_what_is_wanted_comes_back(launch, peer):  # noqa: F811
    server = peer("server_offer.py")
    options = r"data=\"{\\\"room\\\":7}\",receive=audio"
    ours = launch(
        f"rtcsessionsrc name=s session=a s. ! queue ! fakesink {LIVE} ! rtcsessionsink name=o "
        f"{calls(f'offer+http://127.0.0.1:{server.port}', options)} {LIVE_SOUND} ! o."
    )
    assert server.event("request")["body"] == {"type": "offer", "room": 7}
    assert {e["kind"] for e in server.event("track", count=2)} == {"video", "audio"}
    assert ours.message("rtc-stream-started")["media"] == "audio"
    ours.interrupt()
    assert ours.exit_code() == 0
    assert [m["media"] for m in ours.all("rtc-stream-started")] == ["audio"]


def test_server_that_goes_without_a_word_is_an_error_that_names_it(application, peer):  # noqa: F811
    server = peer("server_offer.py")
    ours = application(
        f"rtcsessionsrc name=s session=a s. ! queue ! fakesink {LIVE} ! rtcsessionsink name=o "
        f"stall-timeout=1500 {calls(f'offer+http://127.0.0.1:{server.port}')}"
    )
    ours.event("rtc-stream-started")
    server.kill()
    assert ours.event("rtc-connection-ended")["reason"] in ("stalled", "peer-lost")
    error = ours.event("error")
    assert error["source"] == "o" and f"127.0.0.1:{server.port}" in error["text"] and "stall-timeout" in error["text"]
    ours.ask("stop")
    ours.event("stopped")
    assert len(ours.all("error")) == len(ours.all("rtc-stream-ended")) == 1


# FastRTC


@pytest.fixture(scope="module")
def fastrtc(tmp_path_factory):
    """FastRTC's server takes seconds to start, so most tests share one."""
    server = Peer("server_fastrtc.py", tmp_path_factory.mktemp("fastrtc") / "log", "--limit", "1")
    yield server
    server.end()


def at(server, path):
    return f"fastrtc+http://127.0.0.1:{server.port}{path}"


def test_picture_comes_back_from_fastrtc_upside_down(launch, fastrtc, film, kept):
    ours = launch(
        f"rtcsessionsrc name=s session=a drop=false s.video_0 ! {kept.video} "
        f"{film} ! rtcsessionsink {calls(at(fastrtc, '/video'))}"
    )
    ours.message("rtc-data", channel="text", text='{"type": "fetch_output", "data": []}')
    assert ours.message("rtc-connection-ended")["reason"] == "source-ended"
    assert ours.exit_code() == 0
    shown = kept.numbers(upside_down=True)
    assert in_turn(shown) and count(shown) >= FRAMES - KEPT, shown


def test_sound_and_both_come_back_from_fastrtc(launch, fastrtc, film, tmp_path):
    both = Kept(tmp_path)
    ours = launch(
        f"rtcsessionsrc name=s session=a drop=false s.video_0 ! {both.video} s.audio_0 ! {both.audio} "
        f"{film} ! rtcsessionsink name=o {calls(at(fastrtc, '/audio-video'))} {SOUND} ! o."
    )
    (tmp_path / "sound").mkdir()
    sound = Kept(tmp_path / "sound")
    only = launch(
        f"rtcsessionsrc name=s session=a drop=false s.audio_0 ! {sound.audio} "
        f"{SOUND} ! rtcsessionsink name=o {calls(at(fastrtc, '/audio'))}"
    )
    assert ours.exit_code() == only.exit_code() == 0
    shown = both.numbers(upside_down=True)
    assert in_turn(shown) and count(shown) >= FRAMES - KEPT, shown
    for kept in both, sound:
        level, seconds = kept.tone()
        # FastRTC makes stereo of one channel with 3 dB less.
        assert loud(level + 3) and seconds > FRAMES / 30 - 0.7, (level, seconds)


@pytest.mark.parametrize("path, kind", [("/clip", "video"), ("/tone", "audio")])
def test_what_fastrtc_sends_by_itself_is_received(launch, fastrtc, kept, path, kind):
    ours = launch(f'rtcsessionsrc name=s uri={at(fastrtc, path)} options="o,receive={kind}" s. ! {getattr(kept, kind)}')
    assert ours.message("rtc-stream-started")["media"] == kind
    files = {"video": kept.pictures, "audio": kept.sounds}
    wait_for(lambda: files[kind].stat().st_size > {"video": 20 * 115_200, "audio": RATE * 2}[kind])
    ours.interrupt()
    assert ours.message("rtc-connection-ended")["reason"] == "closed-by-application"
    assert ours.exit_code() == 0
    if kind == "audio":
        # FastRTC makes stereo of it with 3 dB less.
        assert loud(kept.tone()[0] + 3)
    else:
        # A light square on dark ground.
        lit = [max(kept.pictures.read_bytes()[n * 115_200 + 120 * 320:][:320]) for n in range(10)]
        assert min(lit) > 150, lit


def wait_for(true):
    for _ in range(PATIENCE * 20):
        if true():
            return
        threading.Event().wait(0.05)
    pytest.fail("it does not come to be")


def test_limit_of_fastrtc_is_an_error_that_names_it(launch, fastrtc, log):
    first = launch(f'rtcsessionsrc name=s uri={at(fastrtc, "/clip")} options="o,receive=video" s. ! queue ! fakesink')
    first.message("rtc-stream-started")
    second = launch(f'rtcsessionsrc name=t uri={at(fastrtc, "/clip")} options="o,receive=video" t. ! queue ! fakesink')
    assert second.exit_code() == 1
    told = errors(log)
    assert len(told) == 1 and f"{fastrtc.port}/clip/webrtc/offer" in told[0] and "serves 1 at once" in told[0], told
    assert not second.all("rtc-connection-created")
    first.interrupt()
    assert first.exit_code() == 0


def test_id_of_the_connection_is_the_one_that_was_chosen_and_the_stream_ends_when_the_server_has_had_enough(launch, fastrtc):
    ours = launch(
        f"rtcsessionsrc name=s session=a s. ! queue ! fakesink "
        f"{LIVE} ! rtcsessionsink {calls(at(fastrtc, '/video'), 'webrtc-id=mine')}"
    )
    assert ours.message("rtc-connection-created")["external-id"] == "mine"
    ours.message("rtc-stream-started")
    inputs = json.dumps({"webrtc_id": "mine", "inputs": ["close"]}).encode()
    hook = urllib.request.Request(f"{fastrtc.url}/input_hook", inputs, {"Content-Type": "application/json"})
    urllib.request.urlopen(hook, timeout=PATIENCE).close()
    ended = ours.message("rtc-connection-ended")
    assert ended["reason"] == "source-ended" and "enough" in ended["detail"]
    # A live source does not keep the pipeline.
    assert ours.exit_code() == 0


def test_time_limit_of_fastrtc_ends_the_pipeline(launch, peer):  # noqa: F811
    server = peer("server_fastrtc.py", "--time-limit", "2")
    ours = launch(f"rtcsessionsrc name=s session=a s. ! queue ! fakesink {LIVE} ! rtcsessionsink {calls(at(server, '/video'))}")
    ours.message("rtc-stream-started")
    # FastRTC closes the connection and says nothing.
    assert ours.message("rtc-connection-ended")["reason"] == "server-closed"
    assert ours.exit_code() == 0


def test_stream_that_fastrtc_does_not_have_is_an_error(launch, fastrtc, log):
    ours = launch(f'rtcsessionsrc name=s uri={at(fastrtc, "/smell")} options="o,receive=video" s. ! queue ! fakesink')
    assert ours.exit_code() == 1
    told = errors(log)
    assert len(told) == 1 and "/smell/webrtc/offer: status 404" in told[0], told


# WHIP and WHEP


def test_whip_brings_a_file_to_our_own_door_and_takes_leave(serve, launch, post, film, kept):
    server = serve("", f"s.video_0 ! {kept.video} s.audio_0 ! {kept.audio}")
    office = post(server.url)
    ours = launch(f"{film} ! rtcsessionsink name=o uri=whip+http://127.0.0.1:{office.port}/whip {SOUND} ! o.")
    created = ours.message("rtc-connection-created")
    assert created["door"] == "whip"
    ended = ours.message("rtc-connection-ended")
    assert ended["reason"] == "source-ended"
    assert ours.exit_code() == 0
    theirs = server.message("rtc-connection-ended")
    assert theirs["reason"] == "client-closed"
    assert office.asked == [("POST", "/whip"), ("DELETE", f"/whip/{theirs['connection-id']}")]
    assert server.exit_code() == 0
    shown = kept.numbers()
    assert in_turn(shown) and count(shown) >= FRAMES - KEPT, shown
    level, seconds = kept.tone()
    assert loud(level) and seconds > FRAMES / 30 - 0.5, (level, seconds)


def test_leave_is_taken_when_the_pipeline_is_stopped_at_once(serve, application, post):
    server = serve("video-chain=fakesink")
    office = post(server.url)
    ours = application(f"{LIVE} ! rtcsessionsink uri=whip+http://127.0.0.1:{office.port}/whip")
    server.message("rtc-stream-started")
    ours.ask("stop")
    assert ours.event("stopped")["after"] < 2
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
    assert [method for method, _ in office.asked] == ["POST", "DELETE"]
    assert ours.event("rtc-connection-ended")["reason"] in ("server-shutdown", "closed-by-application")
    assert not ours.all("error")


def test_every_call_to_our_own_door_gets_through(serve, launch, log):
    # We are DTLS's client there, whose first word may come before the door knows from whom.
    server = serve("video-chain=fakesink")
    short = f"videotestsrc num-buffers=5 ! video/x-raw,{SHAPE},framerate=30/1"
    ours = [launch(f"{short} ! rtcsessionsink uri=whip+{server.url}/whip") for _ in range(8)]
    assert [one.exit_code() for one in ours] == [0] * len(ours), errors(log)


def test_whipserversrc_is_called(launch, post, peer_env, kept):  # noqa: F811
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    theirs = launch(f"whipserversrc name=w stun-server=NULL signaller::host-addr={address} w. ! {kept.video}", env=peer_env)
    listens(port)
    office = post(address)
    ours = launch(f"{LIVE} ! rtcsessionsink uri=whip+http://127.0.0.1:{office.port}/whip/endpoint")
    ours.message("rtc-publication-started")
    wait_for(lambda: kept.pictures.stat().st_size > 30 * 115_200)
    ours.interrupt()
    assert ours.exit_code() == 0
    assert [method for method, _ in office.asked] == ["POST", "DELETE"]
    assert theirs.process.poll() is None or theirs.exit_code() == 0


def listens(port):
    def somebody():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass
        except OSError:
            return False
        return True
    wait_for(somebody)


@pytest.mark.parametrize("receive", ["both", "video"])
def test_whepserversink_is_called(launch, post, peer_env, kept, receive):  # noqa: F811
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    launch(
        f"whepserversink name=w stun-server=NULL video-caps=video/x-vp8 signaller::host-addr={address} "
        f"{LIVE} ! w. {LIVE_SOUND} ! w.",
        env=peer_env,
    )
    listens(port)
    office = post(address)
    options = {"both": "", "video": 'options="o,receive=video"'}[receive]
    sound = {"both": f"s.audio_0 ! {kept.audio}", "video": ""}[receive]
    ours = launch(f"rtcsessionsrc name=s uri=whep+http://127.0.0.1:{office.port}/whep/endpoint {options} s.video_0 ! {kept.video} {sound}")
    ours.message("rtc-stream-started", media="video")
    wait_for(lambda: kept.pictures.exists() and kept.pictures.stat().st_size > 30 * 115_200)
    if sound:
        wait_for(lambda: kept.sounds.exists() and kept.sounds.stat().st_size > RATE * 2)
    ours.interrupt()
    assert ours.message("rtc-connection-ended")["reason"] == "closed-by-application"
    assert ours.exit_code() == 0
    assert [method for method, _ in office.asked] == ["POST", "DELETE"]
    # Bars.
    picture = kept.pictures.read_bytes()[-115_200:]
    assert max(picture[:320]) > 150 and min(picture[:320]) < 60
    if sound:
        assert loud(kept.tone()[0])


def test_whip_that_sends_nothing_and_whep_that_sends_are_errors(launch, log):
    for line, named in {
        "rtcsessionsrc name=s uri=whip+http://127.0.0.1:1/ s. ! fakesink": "nothing is sent",
        f"{LIVE} ! rtcsessionsink uri=whep+http://127.0.0.1:1/": "takes nothing",
    }.items():
        log.write_text("")
        assert launch(line).exit_code() != 0
        told = errors(log)
        assert len(told) == 1 and named in told[0], told


# Our own Roboflow door


def number_of(metadata):
    """Which picture of the clip it is, by its time."""
    return round(metadata["pts"] * metadata["time_base"] * scenes.FPS)


def found(messages):
    """Classes and boxes by the number of the picture."""
    said = [json.loads(m["json"]) for m in messages if m.source == "s"]
    return {number_of(one["video_metadata"]): scenes.predicted(one) for one in said if one["serialized_output_data"]}


def found_by_the_sdk(visit, server, clip):  # noqa: F811
    client = use(visit, server, "--file", str(clip), "--stream", "image", "--data", "predictions", "--every")
    client.event("over", timeout=60)
    numbers = {e["metadata"]["frame_id"]: number_of(e["metadata"]) for e in client.all("data")}
    by_number = {}
    for e in client.all("predictions"):
        sides = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in e["boxes"]]
        by_number[numbers[e["frame_id"]]] = [(name, *box) for name, box in zip(e["classes"], sides)]
    return by_number


def alike(ours, theirs, least):
    """The share of our pictures in which the same is found: for each box one of the same class that covers it."""
    def same(one, other):
        pairs = [max((scenes.overlap(box, its) for its in other), default=0) for box in one]
        return len(one) == len(other) and all(pair >= least for pair in pairs)
    return sum(same(boxes, theirs.get(number, [])) for number, boxes in ours.items()) / len(ours)


def door(server):
    return f"roboflow+http://127.0.0.1:{server.port}"


@pytest.fixture
def workflow(tmp_path):
    path = tmp_path / "workflow.json"
    path.write_text('{"version":"1.0"}')
    return f"workflow-file={path},stream-output=image,data-output=predictions"


def test_results_are_those_that_the_sdk_gets(serve, launch, visit, clip, workflow):  # noqa: F811
    server = serve(f'video-chain="{ANNOTATE}"')
    theirs = found_by_the_sdk(visit, server, clip)
    assert list(theirs) == list(range(90))

    # The file as it is.
    uploads = launch(
        f'rtcsessionsrc name=s drop=false uri={door(server)} options="o,{workflow},upload-location={clip}" '
        f"s.video_0 ! framemeta post-messages=true ! fakesink sync=false"
    )
    assert uploads.exit_code(60) == 0
    ours = found(uploads.all("inference-result"))
    assert list(ours) == list(theirs) and alike(ours, theirs, 0.999) == 1
    assert [m["frame-id"] for m in uploads.all("frame-meta")] == list(range(1, 91))

    # The file as video, which is encoded on the way there; its time begins with the first picture that arrived.
    sends = launch(
        f"filesrc location={clip} ! decodebin ! videoconvert ! rtcsessionsink uri={door(server)} session=a "
        f'options="o,{workflow},realtime-processing=false" '
        f"rtcsessionsrc name=s session=a drop=false s.video_0 ! framemeta post-messages=true ! fakesink sync=false"
    )
    assert sends.exit_code(60) == 0
    ours = found(sends.all("inference-result"))
    shares = [alike({number + late: boxes for number, boxes in ours.items()}, theirs, 0.9) for late in range(-4, 5)]
    assert len(ours) >= 80 and max(shares) >= 0.95, (len(ours), shares)


def test_returned_picture_shows_the_boxes_and_carries_its_results(serve, launch, clip, workflow, tmp_path):  # noqa: F811
    server = serve(f'video-chain="{ANNOTATE}"')
    file = tmp_path / "pictures.rgb"
    ours = launch(
        f"filesrc location={clip} ! decodebin ! videoconvert ! rtcsessionsink uri={door(server)} session=a "
        f'options="o,{workflow},realtime-processing=false" '
        f"rtcsessionsrc name=s session=a drop=false s.video_0 ! queue ! framemeta post-messages=true ! videoconvert ! "
        f"videoscale ! video/x-raw,format=RGB,width=640,height=480 ! filesink location={file}"
    )
    assert ours.exit_code(60) == 0
    frames = np.frombuffer(file.read_bytes(), np.uint8).reshape(-1, 480, 640, 3)
    assert len(frames) >= 60
    # What the server said of a picture is on it.
    told = ours.all("frame-meta")
    paired = [m for m in told if "json" in m.fields]
    assert len(told) == len(frames) and len(paired) >= 0.95 * len(told), f"{len(paired)} of {len(told)}"
    results = {m["frame-id"]: m["json"] for m in ours.all("inference-result")}
    assert all(m["json"] == results[m["frame-id"]] for m in paired)

    def inked(picture):
        return int((np.abs(picture.astype(int) - scenes.PAPER).max(axis=2) > 60).sum())

    # There is more on it than there was.
    bare = inked(scenes.picture("three", 0))
    assert min(inked(frame) for frame in frames[8:]) > bare + 500


# Sessions by name


def test_two_elements_with_uri_and_one_session_are_an_error_that_says_so(launch, log):
    ours = launch(
        f"rtcsessionsrc name=s session=a uri=offer+http://127.0.0.1:1 options=o,receive=video s. ! fakesink "
        f"{LIVE} ! rtcsessionsink session=a uri=offer+http://127.0.0.1:1"
    )
    assert ours.exit_code() != 0
    told = errors(log)
    assert len(told) == 1 and "session=a: another element calls a server for it" in told[0], told


def test_second_source_of_a_session_is_an_error_that_says_so(launch, log):
    ours = launch(
        f"rtcsessionsrc name=s session=a s. ! fakesink rtcsessionsrc name=t session=a t. ! fakesink "
        f"{LIVE} ! rtcsessionsink session=a uri=offer+http://127.0.0.1:1"
    )
    assert ours.exit_code() != 0
    told = errors(log)
    assert len(told) == 1 and "session=a: another rtcsessionsrc takes what comes back" in told[0], told


def test_source_of_a_named_session_that_nobody_calls_hosts(serve, visit):
    server = serve("session=a video-chain=identity")
    visit(server).event("open")
    server.message("rtc-stream-started")


def test_session_may_be_shared_whichever_element_comes_first(launch, peer):  # noqa: F811
    server = peer("server_offer.py")
    url = f"offer+http://127.0.0.1:{server.port}"
    source = "rtcsessionsrc name=s session=a {} s. ! queue ! fakesink"
    sink = f"{LIVE} ! rtcsessionsink session=a " + "{}"
    for line in (
        f"{source.format('uri=' + url)} {sink.format('')}",
        f"{sink.format('')} {source.format('uri=' + url)}",
        f"{sink.format('uri=' + url)} {source.format('')}",
    ):
        ours = launch(line)
        ours.message("rtc-stream-started")
        ours.interrupt()
        assert ours.exit_code() == 0
        assert len(ours.all("rtc-connection-ended")) == 1


def test_what_is_no_address_is_an_error_without_what_may_be_secret(launch, log):
    for uri, named in {
        "http://127.0.0.1:1": "whip, whep",
        "offer+ftp://127.0.0.1": "+http or +https",
        "offer+http://ann:s3cret@127.0.0.1:1": "belongs into the options",
        "offer+http://127.0.0.1:99999": "no URL",
    }.items():
        log.write_text("")
        assert launch(f"rtcsessionsrc name=s uri={uri} s. ! fakesink").exit_code() != 0
        told = errors(log)
        assert len(told) == 1 and named in told[0] and "s3cret" not in told[0], told


def test_unknown_option_is_named_with_those_there_are(launch, log):
    launch('rtcsessionsrc name=s uri=offer+http://127.0.0.1:1 options="o,chanel=x" s. ! fakesink').exit_code()
    told = errors(log)
    assert len(told) == 1 and '"chanel"' in told[0] and "channel, data, receive" in told[0], told
