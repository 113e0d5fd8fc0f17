"""An application that calls a server, and talks with it.

    /usr/bin/python3 caller.py DESCRIPTION

Plays the description, whose rtcsessionsrc is called `s`, and tells what its bus says as JSON lines with the monotonic time
`at`: messages of elements by their names, `error`, `warning`, `eos`. Obeys lines of standard input: `send CHANNEL TEXT` says
that to the server, `eos` ends the pipeline's streams, `stop` stops it at once; its end ends all.
"""

import json
import sys
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402


def tell(event, **fields):
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


def plain(structure):
    """What JSON has a word for."""
    told = {}
    for name in map(structure.nth_field_name, range(structure.n_fields())):
        try:
            value = structure.get_value(name)
        except TypeError:
            continue
        if isinstance(value, (str, int, float, bool)):
            told[name] = value
    return told


class Caller:
    def __init__(self, description):
        self.connection = ""
        self.pipeline = Gst.parse_launch(description)
        self.pipeline.get_bus().set_sync_handler(self.on_message)

    def on_message(self, _bus, message):
        match message.type:
            case Gst.MessageType.ERROR:
                tell("error", source=message.src.get_name(), text=message.parse_error()[0].message)
            case Gst.MessageType.WARNING:
                tell("warning", source=message.src.get_name(), text=message.parse_warning()[0].message)
            case Gst.MessageType.EOS if message.src == self.pipeline:
                tell("eos")
            case Gst.MessageType.ELEMENT:
                said = message.get_structure()
                if said.get_name() == "rtc-connection-created":
                    self.connection = said.get_value("connection-id")
                tell(said.get_name(), source=message.src.get_name(), **plain(said))
        return Gst.BusSyncReply.DROP

    def obey(self, command, *words):
        at = time.monotonic()
        match command:
            case "send":
                channel, text = words[0], " ".join(words[1:])
                said = self.pipeline.get_by_name("s").emit("send-data", self.connection, channel, text)
                tell("sent", said=said)
            case "eos":
                self.pipeline.send_event(Gst.Event.new_eos())
            case "stop":
                self.pipeline.set_state(Gst.State.NULL)
                tell("stopped", after=time.monotonic() - at)

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        for line in sys.stdin:
            self.obey(*line.split())
        self.pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    Gst.init(None)
    Caller(sys.argv[1]).run()
