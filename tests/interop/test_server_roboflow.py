"""The server that our client is held against is right: Roboflow's own `inference_sdk` is content with it."""

import av
import numpy as np
import pytest

import painted

from conftest import ROOT
from servers import peer  # noqa: F401: a fixture

PYTHON = ROOT / ".venv-sdk/bin/python"
OUTPUTS = ["--stream", "image", "--data", "predictions"]
FILE_FRAMES = 90


@pytest.fixture
def use(peer, visit):  # noqa: F811
    """The SDK and the server that it calls."""

    def start(client, *options):
        server = peer("server_roboflow.py", *options)
        return visit(server, *client, route="", script="client_sdk.py", python=PYTHON), server

    return start


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "numbers.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = painted.WIDTH, painted.HEIGHT, "yuv420p"
        for number in range(FILE_FRAMES):
            planes = np.frombuffer(painted.i420(number), np.uint8).reshape(-1, painted.WIDTH)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    return path


def rising(told):
    return [e["metadata"]["frame_id"] for e in told] == list(range(1, len(told) + 1))


def test_sdk_gets_each_frame_back_with_its_predictions(use):
    client, server = use([*OUTPUTS, "--model", "--frames", "120"])
    client.event("over", timeout=60)
    frames = client.all("frame")
    assert len(frames) >= 30 and all(e["paired"] for e in frames)
    assert rising(client.all("data"))
    assert server.event("over")["returned"] >= len(frames)
    assert not client.all("failed") and not client.all("error")


def test_sdk_acknowledges_what_it_got_and_misses_nothing(use):
    client, server = use([*OUTPUTS, "--every", "--frames", "90"], "--frame-ms", "5")
    client.event("over", timeout=60)
    over = server.event("over")
    told = client.all("data")
    assert len(told) >= 20 and rising(told)
    assert [e["number"] for e in server.all("ack")][:len(told)] == list(range(1, len(told) + 1))
    assert over["processed"] >= len(told)


def test_sdk_reads_what_is_compressed_and_comes_in_pieces_last_one_first(use):
    client, _ = use([*OUTPUTS, "--frames", "60"], "--gzip", "--chunk", "100", "--reorder")
    assert rising(client.event("data", count=15))


@pytest.mark.parametrize("way", ["channel", "track"])
def test_sdk_uploads_a_file_and_gets_all_frames(use, film, way):
    client, server = use([*OUTPUTS, "--file", str(film), *(["--track"] if way == "track" else [])])
    client.event("over", timeout=60)
    assert server.event("upload")["bytes"] == film.stat().st_size
    complete = server.event("complete")
    assert (complete["reason"], complete["processed"]) == (None, FILE_FRAMES)
    told = client.all("data")
    assert len(told) == FILE_FRAMES and rising(told)


def test_sdk_hears_of_failed_frames_and_of_the_end_of_the_time(use):
    client, server = use([*OUTPUTS, "--timeout", "4", "--frames", "300", "--stay"], "--error-every", "5")
    client.event("over", timeout=60)
    assert client.event("error")["errors"] == ["step 'model' failed at frame 5"]
    assert server.event("complete")["reason"] == "timeout_reached"


@pytest.mark.parametrize("mode, why", [("status-404", "endpoint not found"), ("status-500", "500"), ("no-sdp", "KeyError: 'sdp'")])
def test_sdk_says_why_there_is_no_session(use, mode, why):
    client, _ = use(OUTPUTS, "--mode", mode)
    assert why in client.event("failed")["why"]
