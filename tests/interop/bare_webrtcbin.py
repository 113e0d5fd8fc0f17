"""A webrtcbin without anything before it: takes the offers on standard input, a JSON list, one after the other."""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402


def main():
    Gst.init(None)
    pipeline = Gst.Pipeline()
    webrtcbin = Gst.ElementFactory.make("webrtcbin")
    webrtcbin.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
    pipeline.add(webrtcbin)
    pipeline.set_state(Gst.State.PLAYING)

    def step(action, argument):
        promise = Gst.Promise.new()
        webrtcbin.emit(action, argument, promise)
        promise.wait()
        return promise

    kept = []  # the bindings would free what a description has taken over

    def description(kind, text):
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        kept.append(sdp)
        kept.append(GstWebRTC.WebRTCSessionDescription.new(kind, sdp))
        return kept[-1]

    for text in json.load(sys.stdin):
        step("set-remote-description", description(GstWebRTC.WebRTCSDPType.OFFER, text))
        kept.append(step("create-answer", None))
        kept.append(kept[-1].get_reply())
        kept.append(kept[-1].get_value("answer"))
        answer = kept[-1].sdp.as_text()
        step("set-local-description", description(GstWebRTC.WebRTCSDPType.ANSWER, answer))
    pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    main()
