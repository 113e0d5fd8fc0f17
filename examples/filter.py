#!/usr/bin/python3
"""A filter for every visitor, with no inference at all, whose parameters the visitor changes while it plays.

    GST_PLUGIN_PATH=target/release examples/filter.py [http://127.0.0.1:8080] [VIEW]

Every visitor's picture goes through `edgetv` and `videobalance` to VIEW (default autovideosink, a window). The visitor sends
{"saturation": 0.5} on the data channel, as a slider of a page would; each is answered with {"taken": true or false}.
"""

import json
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

# What visitors may set, and which property of the chain it is.
SLIDERS = {name: f"filter.{name}" for name in ("saturation", "brightness", "contrast", "hue")}


def main(listen="http://127.0.0.1:8080", view="autovideosink"):
    Gst.init(None)
    source = Gst.ElementFactory.make("rtcsessionsrc")
    if source is None:
        sys.exit("no element rtcsessionsrc: GST_PLUGIN_PATH does not lead to the plugin")
    source.set_property("listen", listen)
    source.set_property(
        "video-chain", f"videoconvert ! edgetv ! videoconvert ! videobalance name=filter ! videoconvert ! {view}"
    )
    pipeline = Gst.Pipeline.new()
    pipeline.add(source)
    loop = GLib.MainLoop()
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message::element", lambda _, message: on_element(source, message.get_structure()))
    bus.connect("message::eos", lambda *_: loop.quit())
    bus.connect("message::error", lambda _, message: (print(message.parse_error()[0].message, file=sys.stderr), loop.quit()))
    # Ctrl-C: everyone is told, and what they were shown is finished.
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGINT, lambda: pipeline.send_event(Gst.Event.new_eos()))
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)


def on_element(source, said):
    if said.get_name() == "rtc-listening":
        print("listening", said.get_string("uri"), flush=True)
    if said.get_name() != "rtc-data":
        return
    visitor = said.get_string("connection-id")
    try:
        wanted = json.loads(said.get_string("text"))
        args = Gst.Structure.new_empty("args")
        for name, value in wanted.items():
            args.set_value(SLIDERS[name], float(value))
    except (KeyError, TypeError, ValueError, AttributeError):
        taken = False
    else:
        taken = source.emit("set-args", visitor, args)
    source.emit("send-data", visitor, said.get_string("channel"), json.dumps({"taken": taken}))


if __name__ == "__main__":
    main(*sys.argv[1:])
