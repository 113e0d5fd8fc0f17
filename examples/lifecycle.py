#!/usr/bin/python3
"""What comes with a visitor and goes with them: allocates on `rtc-stream-started`, releases on `rtc-stream-ended`.

    GST_PLUGIN_PATH=target/release examples/lifecycle.py [http://127.0.0.1:8080]

Prints what happens and the thread that said it. Reads commands: list, end ID [WHY], quit.
"""

import pathlib
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

TELL_EACH = 30  # every so many frames one is told
SAYING = threading.Lock()


class Lifecycle:
    def __init__(self, listen):
        self.source = Gst.ElementFactory.make("rtcsessionsrc")
        if self.source is None:
            sys.exit("no element rtcsessionsrc: GST_PLUGIN_PATH does not lead to the plugin")
        self.source.set_property("video-chain", "framemeta post-messages=true ! fakesink")
        if listen:
            self.source.set_property("listen", listen)
        self.pipeline = Gst.Pipeline.new()
        self.pipeline.add(self.source)
        self.loop = GLib.MainLoop()
        self.resources = {}  # by stream-id: a stream that started has an entry until it ended, whatever way it went
        self.lock = threading.Lock()
        self.failed = None
        bus = self.pipeline.get_bus()
        # Runs on the thread that posts, so it must not block; bus.add_signal_watch() sees the same messages.
        bus.set_sync_handler(self.on_message)
        bus.add_signal_watch()
        bus.connect("message::eos", lambda *_: self.loop.quit())
        bus.connect("message::error", self.on_error)

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        threading.Thread(target=self.obey, daemon=True).start()
        try:
            self.loop.run()
        finally:
            self.pipeline.set_state(Gst.State.NULL)
        say("left over:", len(self.resources))
        if self.failed:
            sys.exit(self.failed)

    def on_error(self, _bus, message):
        self.failed = message.parse_error()[0].message
        self.loop.quit()

    def on_message(self, _bus, message):
        said = message.get_structure()
        if said is not None:
            with self.lock:
                self.take(said.get_name(), said)
        return Gst.BusSyncReply.PASS

    def take(self, name, said):
        stream = said.get_string("stream-id")
        if name == "rtc-listening":
            tell("listening", said.get_string("uri"))
        elif name == "rtc-connection-state":
            tell("state", said.get_string("connection-id"), said.get_string("old"), "→", said.get_string("new"))
        elif name == "rtc-stream-started":
            self.resources[stream] = {"since": time.monotonic(), "frames": 0}
            tell("started", stream)
        elif name == "frame-meta" and stream in self.resources:
            resource = self.resources[stream]
            resource["frames"] += 1
            if resource["frames"] % TELL_EACH == 1:
                tell("frame", stream, resource["frames"])
        elif name == "rtc-stream-ended":
            resource = self.resources.pop(stream)
            lasted = time.monotonic() - resource["since"]
            tell("ended", stream, said.get_string("reason"), f"after {lasted:.1f} s and {resource['frames']} frames")

    def obey(self):
        """Commands from standard input; its end is left to Ctrl-C."""
        for line in sys.stdin:
            match line.strip().split(" ", 2):
                case ["list"]:
                    connections = self.source.get_property("connections")
                    for i in range(connections.n_fields()):
                        one = connections.get_value(connections.nth_field_name(i))
                        say(one.to_string())
                    say(connections.n_fields(), "connections")
                case ["end", connection, *why]:
                    ended = self.source.emit("end-connection", connection, why[0] if why else None)
                    say("ending" if ended else "no such connection")
                case ["quit"]:
                    # EOS ends every visitor first; the pipeline's own EOS comes after the last word.
                    self.pipeline.send_event(Gst.Event.new_eos())
                case _:
                    say("list, end ID [WHY], quit")


def tell(what, *details):
    thread = pathlib.Path("/proc/thread-self/comm").read_text().strip()
    say(f"{what:9}", *details, f" [{thread}]")


def say(*words):
    # Messages come on several threads, and a print may lose what another one is just printing.
    with SAYING:
        print(*words, flush=True)


if __name__ == "__main__":
    Gst.init(None)
    Lifecycle(sys.argv[1] if len(sys.argv) > 1 else None).run()
