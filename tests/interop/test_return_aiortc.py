"""What chains and rtcsessionsink send back reaches an aiortc client, as it was and in time."""

import cmath

import pytest

from returning import look, loud, numbered, rate, rises, same, sounds

ECHO = "video-chain=identity audio-chain=identity"
ECHO_FPS = 25


def test_video_and_audio_come_back_as_they_were_sent(serve, visit):
    server = serve(ECHO)
    client = look(visit, server, "audio:sendrecv", "video:sendrecv")
    pictures = numbered(client, 150)
    assert rises([e["shows"] for e in pictures])
    assert rate(pictures[60:]) >= ECHO_FPS, f"{rate(pictures[60:]):.1f} pictures a second"
    # The clock of what was sent, and one offset for all.
    offsets = {(e["came"] - e["sent"]) % 2**32 for e in pictures}
    assert len(offsets) == 1, offsets

    packets = sounds(client, loud, 150, "the tone")[50:]
    steps = {(b["came"] - a["came"]) % 2**32 for a, b in zip(packets, packets[1:])}
    assert steps == {960}, "the tone has gaps"
    # On one clock a tone without a break has one phase.
    first = cmath.rect(1, packets[0]["phase"])
    turned = [cmath.phase(cmath.rect(1, e["phase"]) / first) for e in packets]
    assert same(turned, 0.2), turned


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_client_of_one_codec_is_served(serve, visit, codec):
    server = serve(ECHO)
    client = look(visit, server, "video:sendrecv", codec=codec)
    pictures = numbered(client, 90)
    assert rises([e["shows"] for e in pictures])
    assert rate(pictures[45:]) >= 15
    lines = client.event("answer")["answer"]["sdp"].splitlines()
    offered = {line.split()[1].split("/")[0] for line in lines if line.startswith("a=rtpmap:")} - {"rtx"}
    assert offered == {codec}
