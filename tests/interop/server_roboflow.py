"""A server of Roboflow's WebRTC protocol, for clients to be held against: what the real one does, and what none should.

    python server_roboflow.py [--port 0] [--mode NAME[,NAME…]] [--frame-ms N] [--gzip] [--chunk N] [--error-every N] …

Says `listening PORT`, then what it sees as JSON lines with the monotonic time `at` and, for what belongs to one, its `session`:

    request    the body without its sdp, the header Authorization, the m-lines of the offer
    refused    with which status
    channel    label, id, ordered, protocol
    ack        number
    control    what else came on the control channel, as it came; `kills` when the real server would have gone deaf
    ping       on the channel of uploads, which is answered
    upload     bytes, pieces, sha256
    received   how many frames came, now and then
    hostile    which message goes out now
    complete   that the last message goes out: reason, processed
    state      of the connection
    over       received, processed, returned

Every option is also taken from the request's `workflow_configuration.workflows_parameters`, under its own name.

A result has one box: its x is the number of the frame modulo the width (the one painted on it, see painted.py, or else the
frame_id), its y the frame_id modulo the height. A frame that was processed has a red corner.

Modes, which may be joined:
    before the answer   no-answer, status-N, no-sdp, garbage-sdp, not-json
    in the answer       h264-only, vp8-only, reject-video
    before the result of frame --at, after which all goes on
                        bad-index, array, bad-utf8, corrupt-gzip, bomb, deep, never-complete, huge-total, zero-total, short,
                        unframed, flood
    for good            stall (neither media nor data), close-at-N (closes the connection after N frames), kill-at-N (not a
                        packet more after N frames)
"""

import argparse
import asyncio
import base64
import datetime
import fractions
import gzip
import hashlib
import io
import itertools
import json
import re
import struct
import threading
import time

import av
import numpy as np
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

import painted

CHUNK = 49152
BUFFERED_MOST, BUFFERED_AGAIN = 32 << 20, 8 << 20
FILE_QUEUE = 60
DRAIN = 2
GOOD_BYE = 0.02  # from the last message to the end of the connection
FLOOD_FOR, FLOOD_BUFFERED = 2, 1 << 20
# No frame has such a number: what is hostile spoils no result but by what it is.
STRANGE_ID = 4_000_000_000
HOSTILE = [
    "bad-index", "array", "bad-utf8", "corrupt-gzip", "bomb", "deep", "never-complete", "huge-total", "zero-total", "short",
    "unframed", "flood",
]

# Name, default, what it is for.
OPTIONS = [
    ("mode", "normal", "what to do beside the usual"),
    ("at", 5, "the frame before whose result the hostile messages go out"),
    ("frame-ms", 0, "how long a frame takes"),
    ("window", 1, "frames that may go unacknowledged"),
    ("gzip", False, "results are compressed when data_output asks for any"),
    ("text", False, "messages are texts, without frames around them"),
    ("chunk", CHUNK, "bytes of a message in one piece"),
    ("reorder", False, "the pieces of a message come last one first"),
    ("error-every", 0, "every Nth frame fails"),
    ("no-metadata-every", 0, "every Nth result says nothing of its frame"),
    ("no-result-every", 0, "every Nth frame comes back without a result"),
    ("no-frame-every", 0, "every Nth result comes without its frame"),
    ("off-tick-every", 0, "every Nth frame is a tick earlier than its result says"),
    ("frames", 0, "how many frames a source of the server's own has; 0 for no end"),
    ("bye", False, "when the source ends, so does the track"),
    ("workflow-outputs", "", "what the workflow has; other names are refused"),
    ("api-key", "", "without this one a request is refused"),
]

sessions = itertools.count(1)
running = set()


def tell(event, **fields):
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


def settings_of(defaults, body):
    """The options, as the request has them."""
    settings = dict(defaults)
    for name, value in (body["workflow_configuration"].get("workflows_parameters") or {}).items():
        if name in settings and isinstance(value, type(settings[name])):
            settings[name] = value
    return settings


class Modes:
    NUMBERED = ["status", "close-at", "kill-at"]
    PLAIN = ["normal", "no-answer", "no-sdp", "garbage-sdp", "not-json", "h264-only", "vp8-only", "reject-video", "stall", *HOSTILE]

    def __init__(self, text):
        self.names = text.split(",")
        for name in self.names:
            stem, _, number = name.rpartition("-")
            if name not in self.PLAIN and not (stem in self.NUMBERED and number.isdecimal()):
                raise ValueError(f"no mode {name}; there are {', '.join([*self.PLAIN, *(f'{n}-N' for n in self.NUMBERED)])}")

    def __contains__(self, name):
        return name in self.names

    def number(self, name):
        """The N of `name-N`."""
        found = [re.fullmatch(rf"{name}-(\d+)", said) for said in self.names]
        return next((int(match[1]) for match in found if match), None)


# What a field must be: the word for its fault, and what is right.
TEXT = ("string_type", "string", lambda v: isinstance(v, str))
FLAG = ("bool_parsing", "boolean", lambda v: isinstance(v, bool))
WHOLE = ("int_type", "integer", lambda v: isinstance(v, int) and not isinstance(v, bool))
NUMBER = ("float_type", "number", lambda v: isinstance(v, (int, float)) and not isinstance(v, bool))
OBJECT = ("dict_type", "dictionary", lambda v: isinstance(v, dict))
TEXTS = ("list_type", "list", lambda v: isinstance(v, list))

# Path, kind, whether it must be there, whether it may be null.
FIELDS = [
    ("api_key", TEXT, False, True),
    ("workflow_configuration", OBJECT, True, False),
    ("workflow_configuration.type", TEXT, True, False),
    ("workflow_configuration.workflow_specification", OBJECT, False, True),
    ("workflow_configuration.workspace_name", TEXT, False, True),
    ("workflow_configuration.workflow_id", TEXT, False, True),
    ("workflow_configuration.workflow_version_id", TEXT, False, True),
    ("workflow_configuration.image_input_name", TEXT, False, False),
    ("workflow_configuration.workflows_parameters", OBJECT, False, True),
    ("webrtc_offer", OBJECT, True, False),
    ("webrtc_offer.type", TEXT, True, False),
    ("webrtc_offer.sdp", TEXT, True, False),
    ("webrtc_realtime_processing", FLAG, False, False),
    ("stream_output", TEXTS, False, True),
    ("data_output", TEXTS, False, True),
    ("webrtc_config", OBJECT, False, True),
    ("webrtc_config.iceServers", TEXTS, True, False),
    ("webrtc_turn_config", OBJECT, False, True),
    ("declared_fps", NUMBER, False, True),
    ("rtsp_url", TEXT, False, True),
    ("mjpeg_url", TEXT, False, True),
    ("processing_timeout", WHOLE, False, True),
    ("requested_plan", TEXT, False, True),
    ("requested_gpu", TEXT, False, True),
    ("requested_region", TEXT, False, True),
]


def faults(body):
    """What is wrong with a request, as the real server says it, but stricter: it takes "1" for 1."""
    found = []

    def fault(kind, path, said, value):
        found.append({"type": kind, "loc": ["body", *path], "msg": said, "input": value})

    if not isinstance(body, dict):
        fault("model_attributes_type", [], "Input should be a valid dictionary or object to extract fields from", body)
        return found
    for dotted, (kind, word, right), needed, nullable in FIELDS:
        *above, name = path = dotted.split(".")
        holder = body
        for step in above:
            holder = holder.get(step)
        if not isinstance(holder, dict):
            continue
        if name not in holder:
            if needed:
                fault("missing", path, "Field required", holder)
            continue
        value = holder[name]
        if value is None and nullable:
            continue
        if not right(value):
            fault(kind, path, f"Input should be a valid {word}", value)
        elif (kind, name) == ("list_type", "iceServers"):
            continue
        elif kind == "list_type":
            for place, item in enumerate(value):
                if not isinstance(item, str):
                    fault("string_type", [*path, place], "Input should be a valid string", item)
    workflow = body.get("workflow_configuration")
    if isinstance(workflow, dict) and isinstance(workflow.get("type"), str) and workflow["type"] != "WorkflowConfiguration":
        said = "Input should be 'WorkflowConfiguration'"
        fault("literal_error", ["workflow_configuration", "type"], said, workflow["type"])
    return found


def lines_of(sdp):
    """Kind and direction of each m-line."""
    lines = []
    for section in re.split(r"^(?=m=)", sdp, flags=re.M)[1:]:
        direction = re.search(r"^a=(sendrecv|sendonly|recvonly|inactive)\r?$", section, re.M)
        lines.append([section[2:].split()[0], direction[1] if direction else "sendrecv"])
    return lines


def with_only(codec, sdp):
    """An offer as a server sees it that has no other codec."""
    kept = re.findall(rf"^a=rtpmap:(\d+) {codec}/", sdp, re.M)
    others = "|".join(set(re.findall(r"^a=rtpmap:(\d+) ", sdp, re.M)) - set(kept))
    sdp = re.sub(rf"^a=(?:rtpmap|fmtp|rtcp-fb):(?:{others}) .*\r?\n", "", sdp, flags=re.M) if others else sdp
    return re.sub(r"^(m=video \d+ \S+).*?(\r?)$", rf"\1 {' '.join(kept)}\2", sdp, flags=re.M)


def is_image(output):
    return "image" in output or "visualization" in output


def first_name(names):
    """The first of the names that is one."""
    return next((name for name in names or [] if name), None)


class Made(MediaStreamTrack):
    """What the server pulls from somewhere: numbered pictures. As MJPEG, their clock is a count at an assumed 25 a second."""

    kind = "video"

    def __init__(self, mjpeg, frames):
        super().__init__()
        self.fps, self.ticks, self.second = (25, 1, 25) if mjpeg else (30, 3000, 90000)
        self.frames = frames
        self.count = 0
        self.since = None

    async def recv(self):
        if self.frames and self.count == self.frames:
            raise MediaStreamError
        self.since = self.since or time.monotonic()
        await asyncio.sleep(self.since + self.count / self.fps - time.monotonic())
        planes = np.frombuffer(painted.i420(self.count), np.uint8).reshape(-1, painted.WIDTH)
        frame = VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self.count * self.ticks, fractions.Fraction(1, self.second)
        self.count += 1
        return frame


class File(MediaStreamTrack):
    """The frames of an uploaded file, with the file's own clock; `paced` plays it in real time."""

    kind = "video"

    def __init__(self, data, paced):
        super().__init__()
        self.paced = paced
        self.since = None
        self.loop = asyncio.get_running_loop()
        self.frames = asyncio.Queue()
        self.room = threading.Semaphore(FILE_QUEUE)
        self.data = data
        try:
            with av.open(io.BytesIO(data)) as container:
                rate = container.streams.video[0].average_rate
                self.fps = float(rate) if rate else None
        except (av.FFmpegError, IndexError):
            self.fps = None
        threading.Thread(target=self.decode, daemon=True).start()

    def put(self, frame):
        try:
            self.loop.call_soon_threadsafe(self.frames.put_nowait, frame)
        except RuntimeError:
            pass  # the loop is closed, and with it everything else

    def decode(self):
        try:
            with av.open(io.BytesIO(self.data)) as container:
                for frame in container.decode(video=0):
                    self.room.acquire()
                    self.put(frame)
        except (av.FFmpegError, IndexError) as error:
            tell("undecodable", why=str(error))
        finally:
            self.put(None)

    async def recv(self):
        frame = await self.frames.get()
        if frame is None:
            raise MediaStreamError
        self.room.release()
        if self.paced:
            self.since = self.since or time.monotonic() - frame.time
            await asyncio.sleep(self.since + frame.time - time.monotonic())
        return frame


class Newest:
    """A track whose frames are thrown away while nobody asks; what is asked for is the newest one."""

    def __init__(self, track, on_frame):
        self.track, self.on_frame = track, on_frame
        self.frame, self.ended = None, False
        self.news = asyncio.Event()

    async def read(self):
        try:
            while True:
                self.frame = await self.track.recv()
                self.on_frame()
                self.news.set()
        except MediaStreamError:
            self.ended = True
            self.news.set()

    async def recv(self):
        await self.news.wait()
        if self.frame is None:
            raise MediaStreamError
        frame, self.frame = self.frame, None
        if not self.ended:
            self.news.clear()
        return frame


class Every:
    def __init__(self, track, on_frame):
        self.track, self.on_frame = track, on_frame

    async def recv(self):
        frame = await self.track.recv()
        self.on_frame()
        return frame


class Returned(MediaStreamTrack):
    """The video that goes back: frames are processed as the encoder asks for them."""

    kind = "video"

    def __init__(self, session):
        super().__init__()
        self.session = session

    async def recv(self):
        return await self.session.next_returned()


class NoWire:
    """In place of a socket: what is sent is lost."""

    def __init__(self, socket):
        self.socket = socket

    def sendto(self, data, address=None):
        pass

    def close(self):
        self.socket.close()


def plane_of(pixels, width, height):
    return pixels.reshape(-1)[:width * height].reshape(height, width)


def mark(pixels, width, height):
    """Makes the corner red; no number of painted.py is read there."""
    side = height // 20 & ~1
    flat, area = pixels.reshape(-1), width * height
    plane_of(pixels, width, height)[:side, :side] = 76
    for place, value in (area, 84), (area * 5 // 4, 255):
        plane = flat[place:place + area // 4].reshape(height // 2, width // 2)
        plane[:side // 2, :side // 2] = value


class Session:
    def __init__(self, body, settings):
        self.number = next(sessions)
        self.settings = settings
        self.modes = Modes(settings["mode"])
        self.realtime = body.get("webrtc_realtime_processing", True)
        self.declared_fps = body.get("declared_fps")
        self.body = body
        self.known = [name for name in settings["workflow-outputs"].split(",") if name]
        self.stream_output = self.choose_stream(body.get("stream_output"))
        self.data_output = body.get("data_output") or []
        self.channel = None
        self.opened = asyncio.Event()
        self.news = asyncio.Event()  # an ack came
        self.acked = self.received = self.processed = self.returned = 0
        self.deaf = self.completed = self.told_over = False
        self.returns = False
        self.pieces = {}
        self.tasks = set()
        self.steps = None
        self.source = None
        self.sourced = asyncio.Event()
        servers = (body.get("webrtc_config") or {}).get("iceServers", [])
        self.pc = RTCPeerConnection(RTCConfiguration([RTCIceServer(**server) for server in servers]))

    def tell(self, event, **fields):
        tell(event, session=self.number, **fields)

    def spawn(self, work):
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # What was asked for.

    def choose_stream(self, names):
        if names is None:
            return next((name for name in self.known or ["image"] if is_image(name)), None)
        return first_name(names)

    def unknown_outputs(self):
        asked = [*(self.body.get("stream_output") or []), *self.data_output]
        return [name for name in asked if self.known and name and name != "*" and name not in self.known]

    def data_names(self):
        if self.data_output == ["*"]:
            return [name for name in self.known or ["predictions"] if not is_image(name)]
        return [name for name in self.data_output if name]

    # The connection.

    async def answer(self):
        pc = self.pc
        pc.on("track", self.on_track)
        pc.on("datachannel", self.on_channel)
        pc.on("connectionstatechange", self.on_state)
        offer = self.body["webrtc_offer"]
        taken = offer["sdp"]
        for codec in "H264", "VP8":
            if f"{codec.lower()}-only" in self.modes:
                taken = with_only(codec, taken)
        await pc.setRemoteDescription(RTCSessionDescription(taken, offer["type"]))
        directions = dict(lines_of(offer["sdp"]))
        self.returns = directions.get("video") in ("sendrecv", "recvonly")
        if self.returns and self.stream_output:
            pc.addTrack(Returned(self))
        else:
            self.returns = False
            self.spawn(self.drain())
        await pc.setLocalDescription(await pc.createAnswer())
        if timeout := self.body.get("processing_timeout"):
            self.spawn(self.time_out(max(timeout - 1, 0)))
        sdp = pc.localDescription.sdp
        if "reject-video" in self.modes:
            sdp = re.sub(r"^m=video \d+", "m=video 0", sdp, flags=re.M)
        return sdp

    async def on_state(self):
        state = self.pc.connectionState
        self.tell("state", state=state)
        if state in ("failed", "closed"):
            await self.end()

    async def end(self):
        if self.told_over:
            return
        self.told_over = True
        running.discard(self)
        await self.pc.close()
        for task in self.tasks:
            task.cancel()
        self.tell("over", received=self.received, processed=self.processed, returned=self.returned)

    async def time_out(self, seconds):
        await asyncio.sleep(seconds)
        await self.complete("timeout_reached")
        until = time.monotonic() + DRAIN
        while self.channel and self.channel.bufferedAmount and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await asyncio.sleep(GOOD_BYE)
        await self.end()

    def vanish(self):
        """Not a packet more, as if the wire were cut."""
        for transceiver in [*self.pc.getTransceivers(), self.pc.sctp]:
            dtls = getattr(transceiver, "sender", transceiver).transport if transceiver else None
            for protocol in dtls.transport._connection._protocols if dtls else ():
                protocol.transport = NoWire(protocol.transport)
                protocol.datagram_received = lambda data, address: None

    # What comes.

    def on_track(self, track):
        if track.kind == "video" and self.source is None:
            self.use(track)

    def use(self, track):
        if self.realtime or "stall" in self.modes:
            self.source = Newest(track, self.on_frame)
            self.spawn(self.source.read())
        else:
            self.source = Every(track, self.on_frame)
        self.sourced.set()

    def on_frame(self):
        self.received += 1
        if self.received == 1 or self.received % 30 == 0:
            self.tell("received", received=self.received, processed=self.processed)

    def on_channel(self, channel):
        self.tell("channel", label=channel.label, id=channel.id, ordered=channel.ordered, protocol=channel.protocol)
        if channel.label == "video_upload":
            channel.on("message", lambda message: self.on_piece(channel, message))
        else:
            # Whatever it is called; the last one to open.
            self.channel = channel
            channel.on("message", self.on_control)
            self.opened.set()

    def on_piece(self, channel, message):
        message = message.encode() if isinstance(message, str) else message
        if len(message) <= 1:
            self.tell("ping")
            channel.send(message)
            return
        if len(message) < 8:
            return
        index, total = struct.unpack_from("<II", message)
        if index < total:
            self.pieces[index] = message[8:]
        if len(self.pieces) == total and self.source is None:
            data = b"".join(self.pieces[place] for place in range(total))
            self.tell("upload", bytes=len(data), pieces=total, sha256=hashlib.sha256(data).hexdigest())
            self.pieces = {}
            file = File(data, self.realtime)
            self.declared_fps = file.fps
            self.use(file)

    def on_control(self, message):
        if self.deaf:
            return
        if isinstance(message, bytes):
            message = message.decode(errors="replace")
        try:
            said = json.loads(message)
        except ValueError:
            self.tell("control", text=message)
            return
        try:
            ack = said.get("ack")
            if ack is not None:
                self.acked = max(self.acked, int(ack))
                self.news.set()
                self.tell("ack", number=int(ack))
            wishes = {name: said.get(name) for name in ("stream_output", "data_output")}
            wished = any(wish is not None for wish in wishes.values())
            if wished:
                self.change(wishes)
            if wished or ack is None:
                self.tell("control", text=message)
        except (AttributeError, TypeError, ValueError):
            # Nothing catches it there: all reception stops for good, though the connection stands.
            self.deaf = True
            self.tell("control", text=message, kills=True)

    def change(self, wishes):
        for names in wishes.values():
            if names is not None and not isinstance(names, list):
                raise TypeError
        if wishes["stream_output"] is not None and self.returns:
            self.stream_output = first_name(wishes["stream_output"])
        if wishes["data_output"] is not None:
            self.data_output = wishes["data_output"]

    # What goes.

    async def next_returned(self):
        """The next frame for the encoder, when there is one."""
        self.steps = self.steps or self.process()
        async for frame in self.steps:
            if frame is not None:
                self.returned += 1
                return frame
        if self.settings["bye"]:
            raise MediaStreamError
        # The source has ended, but not the track, nor the connection.
        await asyncio.Event().wait()

    async def drain(self):
        async for _ in self.process():
            pass

    async def process(self):
        """One frame after the other: its result on the channel, then itself; None where it is not to go back."""
        if self.pc.sctp:
            await self.opened.wait()
        if self.body.get("rtsp_url") or self.body.get("mjpeg_url"):
            self.use(Made(not self.body.get("rtsp_url"), self.settings["frames"]))
        await self.sourced.wait()
        if "stall" in self.modes:
            await asyncio.Event().wait()
        while True:
            try:
                frame = await self.source.recv()
            except MediaStreamError:
                break
            await self.may_go_on(self.processed + 1)
            if self.settings["frame-ms"]:
                await asyncio.sleep(self.settings["frame-ms"] / 1000)
            if self.completed:
                return
            self.processed += 1
            if self.processed == self.settings["at"]:
                await self.be_hostile()
            result, frame = self.judge(frame)
            if not self.every("no-result-every"):
                await self.send(self.processed, result, bool(self.data_output))
            yield None if self.every("no-frame-every") else frame
            if self.processed == self.modes.number("close-at"):
                self.completed = True  # nothing is said of it
                asyncio.ensure_future(self.end())
            elif self.processed == self.modes.number("kill-at"):
                self.completed = True
                self.tell("vanishes")
                self.vanish()
        await self.complete(None)

    async def may_go_on(self, number):
        """Lossless sessions wait for acknowledgements, once there has been one; those gone deaf for ever."""
        while self.deaf or (not self.realtime and self.acked > 0 and number > self.acked + self.settings["window"]):
            self.news.clear()
            await self.news.wait()

    def every(self, name):
        return bool(self.settings[name]) and self.processed % self.settings[name] == 0

    def judge(self, frame):
        """The result and the frame that goes back."""
        width, height, number = frame.width, frame.height, self.processed
        pixels = frame.to_ndarray(format="yuv420p")
        shown = painted.read(memoryview(plane_of(pixels, width, height).tobytes()), width, width, height)
        errors = []
        data = None
        if self.every("error-every"):
            errors.append(f"step 'model' failed at frame {number}")
        else:
            if self.returns and self.stream_output is None:
                errors.append("stream_output is required when render_output=True")
            elif self.returns and not is_image(self.stream_output):
                errors.append(f"Output '{self.stream_output}' is not an image")
            else:
                mark(pixels, width, height)
            data = self.outputs(pixels, width, height, shown if isinstance(shown, int) else number, errors)
        back = VideoFrame.from_ndarray(pixels, format="yuv420p")
        back.pts, back.time_base = frame.pts, frame.time_base
        pts = frame.pts + 1 if self.every("off-tick-every") else frame.pts
        metadata = self.metadata(number, pts, float(frame.time_base), width, height)
        return message(data, None if self.every("no-metadata-every") else metadata, errors), back

    def outputs(self, pixels, width, height, number, errors):
        data = {}
        for name in self.data_names():
            if self.known and name not in self.known:
                errors.append(f"Output '{name}' not found")
            elif is_image(name):
                data[name] = self.picture(pixels)
            else:
                box = {
                    "x": float(number % width), "y": float(self.processed % height), "width": 40.0, "height": 30.0,
                    "confidence": 0.9, "class": "frame", "class_id": 0, "detection_id": f"box-{self.processed}",
                }
                data[name] = {"image": {"width": width, "height": height}, "predictions": [box]}
        return data or None

    def picture(self, pixels):
        file = io.BytesIO()
        VideoFrame.from_ndarray(pixels, format="yuv420p").to_image().save(file, "JPEG", quality=80)
        about = {
            "video_identifier": "webrtc", "frame_number": self.processed, "fps": self.declared_fps or 30,
            "frame_timestamp": datetime.datetime.now().isoformat(), "measured_fps": None, "comes_from_video_file": None,
        }
        return {"type": "base64", "value": base64.b64encode(file.getvalue()).decode(), "video_metadata": about}

    def metadata(self, number, pts=None, time_base=None, width=None, height=None):
        return {
            "frame_id": number, "received_at": datetime.datetime.now().isoformat(), "pts": pts, "time_base": time_base,
            "declared_fps": self.declared_fps if width else None, "measured_fps": None, "width": width, "height": height,
        }

    async def complete(self, reason):
        if self.completed:
            return
        self.completed = True
        if not self.channel or self.channel.readyState != "open":
            return
        self.tell("complete", reason=reason, processed=self.processed)
        last = message(None, {**self.metadata(self.processed), "received_at": None}, [], True, reason)
        await self.send(self.processed + 1, last, False)

    async def send(self, header, said, compress):
        if not self.channel:
            return
        text = json.dumps(said)
        if self.settings["text"]:
            self.put(text)
            return
        payload = text.encode()
        if compress and self.settings["gzip"]:
            payload = gzip.compress(payload, 6)
        size = self.settings["chunk"]
        chunks = [payload[at:at + size] for at in range(0, len(payload), size)]
        framed = [frame_of(header, index, len(chunks), chunk) for index, chunk in enumerate(chunks)]
        for piece in reversed(framed) if self.settings["reorder"] else framed:
            await self.room()
            self.put(piece)
            await asyncio.sleep(0.001)

    async def room(self):
        if self.channel.bufferedAmount > BUFFERED_MOST:
            while self.channel.bufferedAmount > BUFFERED_AGAIN:
                await asyncio.sleep(0.1)

    def put(self, piece):
        try:
            self.channel.send(piece)
        except InvalidStateError:
            pass  # the client has gone

    async def be_hostile(self):
        for name in HOSTILE:
            if name in self.modes and self.channel:
                self.tell("hostile", what=name)
                if name == "flood":
                    self.spawn(self.flood())
                for piece in await asyncio.to_thread(hostile, name):
                    await self.room()
                    self.put(piece)
                    await asyncio.sleep(0)

    async def flood(self):
        until = time.monotonic() + FLOOD_FOR
        count = 0
        said = frame_of(STRANGE_ID, 0, 1, json.dumps(message(None, None, [])).encode())
        while time.monotonic() < until:
            if self.channel.readyState != "open":
                break
            # As fast as it goes out; media and what comes in have their turn.
            for _ in range(100):
                if self.channel.bufferedAmount < FLOOD_BUFFERED:
                    self.put(said)
                    count += 1
            await asyncio.sleep(0.001)
        self.tell("flooded", messages=count)


def message(data, metadata, errors, complete=False, reason=None):
    return {
        "serialized_output_data": data, "video_metadata": metadata, "errors": errors, "processing_complete": complete,
        "termination_reason": reason,
    }


def frame_of(header, index, total, payload):
    return struct.pack("<III", header, index, total) + payload


def hostile(name):
    """The messages that go by that name."""
    right = json.dumps(message(None, None, ["this is hostile"])).encode()
    match name:
        case "bad-index":
            return [frame_of(STRANGE_ID, 5, 2, right), frame_of(STRANGE_ID + 1, 2**32 - 1, 1, right)]
        case "array":
            return [frame_of(STRANGE_ID, 0, 1, b"[1, 2, 3]")]
        case "bad-utf8":
            return [frame_of(STRANGE_ID, 0, 1, b'{"errors": ["\xff\xfe\xc3("]}')]
        case "corrupt-gzip":
            packed = bytearray(gzip.compress(right * 20))
            for place in range(len(packed) // 2, len(packed)):
                packed[place] ^= 0x5A
            return [frame_of(STRANGE_ID, 0, 1, bytes(packed)), frame_of(STRANGE_ID, 0, 1, b"\x1f\x8b")]
        case "bomb":
            packed = gzip.compress(bytes(96 << 20), 9)
            chunks = [packed[at:at + CHUNK] for at in range(0, len(packed), CHUNK)]
            return [frame_of(STRANGE_ID, index, len(chunks), chunk) for index, chunk in enumerate(chunks)]
        case "deep":
            return [frame_of(STRANGE_ID, 0, 1, b'{"video_metadata":' + b"[" * 40_000)]
        case "never-complete":
            return [frame_of(STRANGE_ID + number, 0, 3, bytes(1024)) for number in range(64)]
        case "huge-total":
            return [frame_of(STRANGE_ID, 0, 2**32 - 1, b"x"), frame_of(STRANGE_ID, 2**32 - 2, 2**32 - 1, b"x")]
        case "zero-total":
            return [frame_of(STRANGE_ID, 0, 0, right)]
        case "short":
            return [b"\x01\x02\x03", b"", b"{}", frame_of(STRANGE_ID, 0, 1, b"")]
        case "unframed":
            return [right]
    return []


def refuse(status, **body):
    tell("refused", status=status)
    return web.json_response(body, status=status)


STATUSES = {
    401: {"message": "Unauthorized access to roboflow API - check API key."},
    402: {"message": "Not enough credits.", "error_type": "CreditsExceededError"},
    403: {"message": "Forbidden."},
    404: {"detail": "Not Found"},
    423: {"message": "The workspace is paused."},
    429: {"message": "Too many streams.", "error_type": "WorkspaceStreamQuotaError"},
    504: {"message": "Timeout when attempting to connect to Roboflow API."},
}


async def initialise(request):
    try:
        body = await request.json()
    except ValueError:
        return refuse(422, detail=[{"type": "json_invalid", "loc": ["body", 0], "msg": "JSON decode error", "input": {}}])
    if found := faults(body):
        return refuse(422, detail=found)
    settings = settings_of(request.app["settings"], body)
    offer = body["webrtc_offer"]
    shown = {**body, "webrtc_offer": {"type": offer["type"]}}
    lines = lines_of(offer["sdp"])
    candidates = len(re.findall(r"^a=candidate:", offer["sdp"], re.M))
    authorization = request.headers.get("Authorization")
    tell("request", body=shown, authorization=authorization, lines=lines, candidates=candidates)
    try:
        modes = Modes(settings["mode"])
    except ValueError as error:
        return refuse(500, message=str(error))
    if "no-answer" in modes:
        await asyncio.Event().wait()
    if status := modes.number("status"):
        return refuse(status, **STATUSES.get(status, {"message": "Internal error."}))
    if key := settings["api-key"]:
        given = [body.get("api_key"), (authorization or "").removeprefix("Bearer ")]
        if not any(given):
            return refuse(400, message="Required Roboflow API key is missing.")
        if key not in given:
            return refuse(401, **STATUSES[401])
    workflow = body["workflow_configuration"]
    if not lines:
        return refuse(500, message="Internal error.")
    if not workflow.get("workflow_specification") and not (workflow.get("workspace_name") and workflow.get("workflow_id")):
        return refuse(500, message="Internal error.")
    try:
        session = Session(body, settings)
    except (TypeError, ValueError):
        return refuse(500, message="Internal error.")
    if unknown := session.unknown_outputs():
        said = f"Outputs {unknown} are not among the workflow's: {session.known}"
        return refuse(400, message=said, error_type="WebRTCConfigurationError")
    reply = {"status": "success", "context": {"request_id": None, "pipeline_id": None}, "type": "answer"}
    if "no-sdp" in modes:
        return web.json_response(reply)
    if "garbage-sdp" in modes:
        return web.json_response({**reply, "sdp": "v=0\r\nm=what is this\r\n\0"})
    if "not-json" in modes:
        return web.Response(text="<html>It works!</html>", content_type="text/html")
    running.add(session)
    try:
        sdp = await session.answer()
    except Exception as error:
        # As there: whatever it is.
        session.tell("failed", why=f"{type(error).__name__}: {error}")
        await session.end()
        return refuse(500, message="Internal error.")
    return web.json_response({**reply, "sdp": sdp})


async def main(args):
    # A sdp of a page's length is no upload.
    app = web.Application(client_max_size=16 << 20)
    app["settings"] = {name: getattr(args, name.replace("-", "_")) for name, _, _ in OPTIONS}
    app.router.add_post("/initialise_webrtc_worker", initialise)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", args.port).start()
    print("listening", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    for name, default, use in OPTIONS:
        kind = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", help=use, **kind)
    args = parser.parse_args()
    try:
        Modes(args.mode)
    except ValueError as error:
        parser.error(str(error))
    asyncio.run(main(args))
