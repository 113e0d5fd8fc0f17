"""An aiortc client gets the right results for the frames it sent."""

from statistics import mean

import scenes
from conftest import CHAIN, MODEL

RESULTS = 60


def boxes_agree(results, scene, shift=0):
    """How well the boxes of results fit the frames they name, `shift` frames later: the mean over all true boxes."""
    scores = []
    for event in results:
        found = scenes.predicted(event["result"])
        for box in scenes.truth(scene, event["frame"] + shift):
            scores.append(max((scenes.overlap(box, other) for other in found), default=0.0))
    return mean(scores)


def check_results(results, scene):
    """All that a result promises about the frame it belongs to."""
    for event in results:
        assert event["frame"] is not None, f"no frame was sent with the RTP timestamp of {event['result']}"
        meta = event["result"]["video_metadata"]
        assert (meta["width"], meta["height"]) == (scenes.WIDTH, scenes.HEIGHT)
        assert event["result"]["errors"] == []
        assert event["result"]["timing_us"]["total"] > 0
        for prediction in event["result"]["serialized_output_data"]["predictions"]["predictions"]:
            assert 0 < prediction["confidence"] <= 1
    ids = [e["result"]["video_metadata"]["frame_id"] for e in results]
    assert ids[0] >= 1 and all(a < b for a, b in zip(ids, ids[1:])), f"frame ids do not rise: {ids}"
    fit = boxes_agree(results, scene)
    assert fit > 0.75, f"boxes overlap the shapes by {fit:.2f} only"
    before, after = boxes_agree(results, scene, -2), boxes_agree(results, scene, 2)
    assert fit > before and fit > after, f"boxes fit other frames better: {before:.3f}, {fit:.3f}, {after:.3f}"


def rate(results):
    return (len(results) - 1) / (results[-1]["at"] - results[0]["at"])


def test_results_arrive_fast_and_belong_to_their_frames(serve, visit):
    server = serve()
    client = visit(server)
    results = client.event("result", count=RESULTS)
    check_results(results, "three")
    assert rate(results) >= 10, f"{rate(results):.1f} results a second"

    connection = server.message("rtc-connection-created")["connection-id"]
    started = server.message("rtc-stream-started", connection_id=connection)
    assert started["media"] == "video" and "vp8" in started["codec"].lower()
    posted = server.all("inference-result")
    assert posted and all(m["connection-id"] == connection for m in posted)
    assert all(m["stream-id"] == started["stream-id"] for m in posted)


def test_answer_names_the_connection_and_carries_all_candidates(serve, visit):
    server = serve("video-chain=fakesink")
    client = visit(server, route="/api/offer")
    answer = client.event("answer")["answer"]
    assert answer["type"] == "answer"
    created = server.message("rtc-connection-created")
    assert answer["pc_id"] == created["connection-id"]
    assert "a=candidate:" in answer["sdp"] and "10.99.0.1" in answer["sdp"]
    client.event("state", state="connected")


def test_h264_is_decoded_too(serve, visit):
    server = serve()
    results = visit(server, "--codec", "H264").event("result", count=RESULTS)
    check_results(results, "three")
    assert "264" in server.message("rtc-stream-started")["codec"]


def test_audio_comes_out_of_its_pad(serve, visit):
    server = serve("", "s.video_0 ! queue ! fakesink  s.audio_0 ! queue ! audioconvert ! level ! fakesink")
    client = visit(server, "--audio")
    started = server.message("rtc-stream-started", media="audio")
    assert "opus" in started["codec"].lower() and started["pad"] == "audio_0"
    # The tone is at half scale, -9 dB; silence would be hundreds below.
    loud = server.wait(lambda m: m.name == "level" and -12 < first_number(m["rms"]) < -6, "a level of the tone", count=5)
    assert loud
    client.close()
    ended = server.message("rtc-stream-ended", media="audio")
    assert ended["buffers"] > 0 and ended["duration"] > 0
    assert server.exit_code() == 0


def first_number(text):
    return float(text.strip("<{ (double)").split(",")[0].strip(" }>"))


def test_funnel_does_not_cross_results(serve, visit):
    server = serve(
        "max-connections=2",
        f"s.video_0 ! queue ! framemeta ! f.sink_0  s.video_1 ! queue ! framemeta ! f.sink_1  "
        f"funnel name=f ! inferencesink model={MODEL}",
    )
    visitors = {scene: visit(server, "--scene", scene) for scene in ("circle", "square")}
    for scene, client in visitors.items():
        results = client.event("result", count=RESULTS)
        strange = [e for e in results if e["frame"] is None]
        assert not strange, f"the {scene} got results of frames it never sent"
        assert boxes_agree(results, scene) > 0.6
    told = {m["connection-id"] for m in server.all("inference-result")}
    assert len(told) == 2


def test_output_name_is_the_key_of_the_boxes(serve, visit):
    server = serve(f'video-chain="{CHAIN} output-name=shapes"')
    result = visit(server).event("result", count=10)[-1]["result"]
    assert list(result["serialized_output_data"]) == ["shapes"]
    assert scenes.predicted(result, "shapes")
