"""An application that publishes pictures and a tone exactly when it is told to.

    /usr/bin/python3 feeder.py http://127.0.0.1:8080 [PROPERTY=VALUE of rtcsessionsink ...]

Tells what its bus says, and what it did, as JSON lines with the monotonic time `at`. Obeys lines of standard input:
`video FIRST COUNT` pushes numbered pictures in real time, `tone MS` a tone in real time, `burst MS` the same at once,
`stats`, `clear` and `interrupt` ask rtcsessionsink; its end ends all.
"""

import array
import json
import math
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

import painted  # noqa: E402

RATE, PIECE, FPS = 48000, 960, 30
# How much of the tone is pushed ahead, so that a busy machine leaves no hole in it.
AHEAD = 0.2
PICTURES = f"video/x-raw,format=I420,width={painted.WIDTH},height={painted.HEIGHT},framerate={FPS}/1"
SAMPLES = f"audio/x-raw,format=S16LE,layout=interleaved,rate={RATE},channels=1"
# A second of 440 Hz at half scale.
SECOND = array.array("h", (int(16384 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(RATE))).tobytes()


def tell(event, **fields):
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


def plain(structure):
    """A structure as a dictionary, without what Python knows no type for, as lists."""
    told = {}
    for name in map(structure.nth_field_name, range(structure.n_fields())):
        try:
            value = structure.get_value(name)
        except TypeError:
            continue
        told[name] = plain(value) if isinstance(value, Gst.Structure) else value
    return told


def source(name, caps):
    return f"appsrc name={name} is-live=true format=time do-timestamp=true caps={caps}"


class Feeder:
    def __init__(self, url, properties):
        self.pipeline = Gst.parse_launch(
            f"rtcsessionsrc listen={url} eos-policy=never  rtcsessionsink name=out send-to=all {' '.join(properties)} "
            f"{source('video', PICTURES)} ! out.video_0  {source('audio', SAMPLES)} ! out.audio_0"
        )
        self.sink = self.pipeline.get_by_name("out")
        self.video, self.audio = map(self.pipeline.get_by_name, ("video", "audio"))
        self.pipeline.get_bus().set_sync_handler(self.on_message)

    def on_message(self, _bus, message):
        said = message.get_structure()
        if message.type == Gst.MessageType.ERROR:
            tell("error", text=message.parse_error()[0].message)
        elif message.type == Gst.MessageType.ELEMENT:
            tell(said.get_name(), **plain(said))
        return Gst.BusSyncReply.DROP

    def show(self, first, count):
        start = time.monotonic()
        for i in range(count):
            time.sleep(max(0, start + i / FPS - time.monotonic()))
            self.video.emit("push-buffer", Gst.Buffer.new_wrapped(painted.i420(first + i)))
        tell("shown", last=first + count - 1)

    def sound(self, milliseconds, ahead):
        start = time.monotonic()
        for i in range(milliseconds // 20):
            time.sleep(max(0, start + i / 50 - ahead - time.monotonic()))
            at = i % 50 * PIECE * 2
            self.audio.emit("push-buffer", Gst.Buffer.new_wrapped(SECOND[at:at + PIECE * 2]))
        tell("sounded")

    def obey(self, command, *words):
        match command:
            case "video":
                threading.Thread(target=self.show, args=map(int, words), daemon=True).start()
            case "tone":
                threading.Thread(target=self.sound, args=(int(words[0]), AHEAD), daemon=True).start()
            case "burst":
                self.sound(int(words[0]), math.inf)
            case "stats":
                tell("stats", **plain(self.sink.get_property("buffer-stats")))
            case "clear" | "interrupt":
                at = time.monotonic()
                action = {"clear": "clear-buffers", "interrupt": "rtc-interrupt"}[command]
                tell(command, asked=at, said=self.sink.emit(action, words[0] if words else ""))

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        for line in sys.stdin:
            self.obey(*line.split())
        self.pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    Gst.init(None)
    Feeder(sys.argv[1], sys.argv[2:]).run()
