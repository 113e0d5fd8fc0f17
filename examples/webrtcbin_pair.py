#!/usr/bin/python3
"""Runs a description with two webrtcbins, `offerer` and `answerer`, and connects them.

Takes what gst-launch-1.0 takes: options -m (print messages), -e, -q and the description's words. What it adds is what
no launch line can do: it hands one's offer and candidates to the other and the answer back. When the offerer's sources
have ended, the answerer's branches are sent EOS, since no webrtcbin tells its peer.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402


def main():
    options = [a for a in sys.argv[1:] if a.startswith("-")]
    words = [a for a in sys.argv[1:] if not a.startswith("-")]
    Gst.init(None)
    try:
        pipeline = Gst.parse_launchv(words)
    except GLib.Error as error:
        sys.exit(f"ERROR: {error.message}")
    loop = GLib.MainLoop()
    run = Run(pipeline, loop, show="-m" in options)
    connect(pipeline.get_by_name("offerer"), pipeline.get_by_name("answerer"))

    pipeline.set_state(Gst.State.PLAYING)
    for signal in (2, 15):
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal, loop.quit)
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    sys.exit(run.exit_code)


class Run:
    """Prints messages as gst-launch-1.0 does, and knows when it is over."""

    def __init__(self, pipeline, loop, show):
        self.loop, self.show = loop, show
        self.pipeline = pipeline
        self.exit_code = 0
        # A webrtcbin has sinks inside that never end, so the pipeline's own EOS would not come.
        self.awaited = {e for e in pipeline.children if (e.flags & Gst.ElementFlags.SINK) and not isinstance(e, Gst.Bin)}
        pipeline.set_property("message-forward", True)
        bus = pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self.on_message)
        source = pipeline.get_by_name("offerer").sinkpads[0]
        source.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self.on_sent)

    def on_sent(self, _pad, info):
        if info.get_event().type == Gst.EventType.EOS:
            GLib.idle_add(self.end_branches)
        return Gst.PadProbeReturn.OK

    def end_branches(self):
        for pad in self.pipeline.get_by_name("answerer").srcpads:
            pad.push_event(Gst.Event.new_eos())

    def on_message(self, _bus, message):
        structure = message.get_structure()
        if structure is not None and structure.get_name() == "GstBinForwarded":
            forwarded = structure.get_value("message")
            if forwarded.type == Gst.MessageType.EOS:
                self.awaited.discard(forwarded.src)
                if not self.awaited:
                    self.loop.quit()
            return
        if self.show and structure is not None:
            kind = Gst.MessageType.get_name(message.type)
            print(f'Got message #{message.seqnum} from element "{message.src.name}" ({kind}): {structure.to_string()}', flush=True)
        if message.type == Gst.MessageType.ERROR:
            error, debug = message.parse_error()
            print(f"ERROR: from element {message.src.get_path_string()}: {error.message}\n{debug}", file=sys.stderr)
            self.exit_code = 1
            self.loop.quit()


def connect(offerer, answerer):
    for here, there in ((offerer, answerer), (answerer, offerer)):
        here.connect("on-ice-candidate", lambda _, line, text, there: there.emit("add-ice-candidate", line, text), there)

    def after(element, action, *args, then):
        def done(promise):
            promise.wait()
            then(promise.get_reply())
        element.emit(action, *args, Gst.Promise.new_with_change_func(done))

    def passed_on(description):
        # Through text: a description made by a webrtcbin crashes 1.22 when it is handed on as it is.
        _, sdp = GstSdp.SDPMessage.new_from_text(description.sdp.as_text())
        return GstWebRTC.WebRTCSessionDescription.new(description.type, sdp)

    def on_negotiation_needed(_):
        after(offerer, "create-offer", None, then=on_offer)

    def on_offer(reply):
        offer = reply.get_value("offer")
        offerer.emit("set-local-description", offer, None)
        after(answerer, "set-remote-description", passed_on(offer),
              then=lambda _: after(answerer, "create-answer", None, then=on_answer))

    def on_answer(reply):
        answer = reply.get_value("answer")
        answerer.emit("set-local-description", answer, None)
        offerer.emit("set-remote-description", passed_on(answer), None)

    offerer.connect("on-negotiation-needed", on_negotiation_needed)


if __name__ == "__main__":
    main()
