"""The application that bench/client.py measures: runs a description and tells of each frame that came back with its result.

    /usr/bin/python3 client_gst.py DESCRIPTION [FILM SIZE FRAMES]

The description names an identity `back`, which every frame passes. FILM holds pictures of SIZE bytes each, which are sent over and
over, FRAMES of them at 30 a second, by an appsrc `film` of the description.
"""

import json
import pathlib
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402


RATE = 30  # frames a second


def send(source, pictures, frames):
    begun = time.monotonic()
    for number in range(frames):
        time.sleep(max(0, begun + number / RATE - time.monotonic()))
        source.emit("push-buffer", Gst.Buffer.new_wrapped_bytes(pictures[number % len(pictures)]))
    source.emit("end-of-stream")


def main():
    Gst.init(None)
    pipeline = Gst.parse_launch(sys.argv[1])
    loop = GLib.MainLoop()
    results = 0

    def on_frame(_pad, info):
        meta = info.get_buffer().get_custom_meta("RtcFrameMeta").get_structure()
        print(json.dumps({"event": "frame", "paired": meta.has_field("json")}), flush=True)
        return Gst.PadProbeReturn.OK

    def on_message(_bus, message):
        nonlocal results
        said = message.get_structure()
        if message.type == Gst.MessageType.ELEMENT and said.get_name() == "inference-result":
            results += 1
        elif message.type in (Gst.MessageType.EOS, Gst.MessageType.ERROR):
            loop.quit()
        return Gst.BusSyncReply.DROP

    pipeline.get_by_name("back").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, on_frame)
    pipeline.get_bus().set_sync_handler(on_message)
    pipeline.set_state(Gst.State.PLAYING)
    sender = None
    if len(sys.argv) > 2:
        film, size, frames = pathlib.Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), int(sys.argv[4])
        pictures = [GLib.Bytes.new(film[at:at + size]) for at in range(0, len(film), size)]
        sender = threading.Thread(target=send, args=(pipeline.get_by_name("film"), pictures, frames))
        sender.start()
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    if sender:
        sender.join()
    print(json.dumps({"event": "over", "results": results}))


if __name__ == "__main__":
    main()
