"""FastRTC's own server, as it comes from PyPI, with a stream of each kind.

    .venv-fastrtc/bin/python server_fastrtc.py [--port 0] [--root video] [--limit N] [--time-limit S]

Says `listening PORT`. Below /video a picture comes back upside down, below /audio a sound as it was, below /audio-video both;
/clip sends pictures and /tone a tone without being sent any. The one that --root names is also at /. An application tells
FastRTC what its handler's arguments are: POST /input_hook {"webrtc_id", "inputs": ["mirror"]} turns left and right about instead, ["close"] has had enough.
Tells what it is asked as JSON lines.
"""

import argparse
import asyncio
import json
import os
import socket
import time

# Before gradio looks: nothing is fetched or told.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")

import numpy as np  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402
from fastrtc import AdditionalOutputs, AsyncAudioVideoStreamHandler, AsyncStreamHandler, CloseStream, Stream  # noqa: E402

RATE, PIECE = 48000, 960
# A clip must be watched for as long as a test takes, not for ever.
CLIP_FRAMES, TONE_PIECES = 1800, 3000


def tell(event, **fields):
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


def turn(frame, way="flip"):
    """What stands on its head can be seen from what is left and right."""
    if way == "close":
        return frame, CloseStream("enough")
    turned = frame[::-1] if way == "flip" else frame[:, ::-1]
    return np.ascontiguousarray(turned), AdditionalOutputs(way)


class Echo(AsyncStreamHandler):
    def __init__(self):
        super().__init__(input_sample_rate=RATE, output_sample_rate=RATE)
        self.sounds = asyncio.Queue()

    def copy(self):
        return type(self)()

    async def start_up(self):
        pass

    async def receive(self, frame):
        self.sounds.put_nowait(frame)

    async def emit(self):
        return await self.sounds.get()

    async def shutdown(self):
        tell("shutdown")


class BothEcho(Echo, AsyncAudioVideoStreamHandler):
    def __init__(self):
        super().__init__()
        self.pictures = asyncio.Queue()

    async def video_receive(self, frame):
        self.pictures.put_nowait(frame)

    async def video_emit(self):
        return np.ascontiguousarray((await self.pictures.get())[::-1])


def clip():
    for number in range(CLIP_FRAMES):
        frame = np.full((240, 320, 3), 40, np.uint8)
        left = number * 4 % 280
        frame[100:140, left:left + 40] = 210
        yield frame


def tone():
    at = np.arange(PIECE)
    for number in range(TONE_PIECES):
        samples = 16384 * np.sin(2 * np.pi * 440 * (at + number * PIECE) / RATE)
        yield RATE, samples.astype(np.int16).reshape(1, -1)


class Told(Stream):
    """A stream that tells, and whose handler has its arguments from the start, as those of applications have."""

    async def offer(self, body: "Body"):
        tell("request", type=body.type, webrtc_id=body.webrtc_id, candidate=body.candidate)
        answer = await super().offer(body)
        if body.type == "offer":
            tell("answer", webrtc_id=body.webrtc_id, refused=not isinstance(answer, dict))
            # The first argument is overwritten by the frame.
            self.set_input(body.webrtc_id, None)
        return answer


# FastAPI reads an annotation from the method's own module.
Body = Stream.offer.__globals__["Body"]


def streams(args):
    limits = {
        "concurrency_limit": args.limit,
        "time_limit": args.time_limit,
        "server_rtc_configuration": {"iceServers": []},
        "verbose": False,
    }
    return {
        "video": Told(turn, modality="video", mode="send-receive", **limits),
        "audio": Told(Echo(), modality="audio", mode="send-receive", **limits),
        "audio-video": Told(BothEcho(), modality="audio-video", mode="send-receive", **limits),
        "clip": Told(clip, modality="video", mode="receive", **limits),
        "tone": Told(tone, modality="audio", mode="receive", **limits),
    }


async def main(args):
    app = FastAPI()
    served = streams(args)
    for name, stream in served.items():
        stream.mount(app, path=f"/{name}")
    served[args.root].mount(app)

    @app.post("/input_hook")
    async def inputs(request: Request):
        asked = await request.json()
        tell("inputs", **asked)
        for stream in served.values():
            stream.set_input(asked["webrtc_id"], None, *asked.get("inputs", []))
        return {"status": "success"}

    listener = socket.create_server(("127.0.0.1", args.port))
    print("listening", listener.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve([listener])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--root", default="video", choices=["video", "audio", "audio-video", "clip", "tone"])
    parser.add_argument("--limit", type=int, default=10, help="connections of each stream")
    parser.add_argument("--time-limit", type=float)
    asyncio.run(main(parser.parse_args()))
