"""A visitor as anybody would write one with aiortc: one offer, one video track, one data channel.

    python client_aiortc.py http://127.0.0.1:8080/offer [--scene three] [--codec H264] [--audio] [--visits N] [--token T]
        [--rtc-config | --no-ice-servers]

Tells what happens as JSON lines, each with the monotonic time `at`: `answer`, `state`, `open`, `result`, `closing`, `closed`,
`refused`. Closes when its standard input does or says so, except with --visits: then each visit ends with its first result.
"""

import argparse
import asyncio
import fractions
import json
import sys
import time
import urllib.parse

import aiohttp
import numpy as np
from aiortc import (
    MediaStreamTrack, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
)
from av import AudioFrame, VideoFrame

import scenes


def tell(event, **fields):
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


class Scene(VideoStreamTrack):
    """Sends a scene's frames and remembers which RTP timestamp each one got."""

    def __init__(self, name):
        super().__init__()
        self.pictures = [scenes.picture(name, i) for i in range(scenes.LENGTH)]
        self.count = 0
        self.sender = None
        self.sent = {}  # RTP timestamp → frame number

    async def recv(self):
        # aiortc asks for a frame when the one before has left; its timestamp is the last one the sender wrote.
        if self.count:
            self.sent[self.sender._RTCRtpSender__rtp_timestamp] = self.count - 1
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(self.pictures[self.count % scenes.LENGTH], format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        self.count += 1
        return frame


class Tone(MediaStreamTrack):
    """A 440 Hz tone at half scale in 20 ms pieces."""

    kind = "audio"
    RATE, PIECE = 48000, 960

    def __init__(self):
        super().__init__()
        self.position = 0
        self.start = time.monotonic()

    async def recv(self):
        await asyncio.sleep(self.start + self.position / self.RATE - time.monotonic())
        at = np.arange(self.position, self.position + self.PIECE) / self.RATE
        samples = (16384 * np.sin(2 * np.pi * 440 * at)).astype(np.int16).repeat(2).reshape(1, -1)
        frame = AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = self.RATE, self.position, fractions.Fraction(1, self.RATE)
        self.position += self.PIECE
        return frame


async def rtc_config(url):
    """What the server says a connection is made with; aiortc knows no iceTransportPolicy."""
    async with aiohttp.ClientSession() as http, http.get(urllib.parse.urljoin(url, "/rtc-config")) as response:
        config = await response.json()
    return RTCConfiguration([RTCIceServer(**server) for server in config["iceServers"]])


async def visit(url, scene, codec, audio, until, token=None, config=None):
    """One connection, from the offer to its end; `until` is told each result and waits for the end."""
    pc = RTCPeerConnection(config)
    video = Scene(scene)
    video.sender = pc.addTrack(video)
    if audio:
        pc.addTrack(Tone())
    if codec:
        kinds = RTCRtpSender.getCapabilities("video").codecs
        pc.getTransceivers()[0].setCodecPreferences([c for c in kinds if c.mimeType.lower() == f"video/{codec.lower()}"])
    channel = pc.createDataChannel("anything")
    ended = asyncio.ensure_future(until.wait())

    @channel.on("open")
    def on_open():
        tell("open")

    @channel.on("message")
    def on_message(message):
        result = json.loads(message)
        stamp = result.get("video_metadata", {}).get("rtp_timestamp")
        # The newest frame is on its way: its stamp is not yet in the book, but at the sender.
        book = {**video.sent, video.sender._RTCRtpSender__rtp_timestamp: video.count - 1}
        tell("result", frame=book.get(stamp), result=result)
        until.result()

    @channel.on("close")
    def on_close():
        tell("channel-closed")

    @pc.on("connectionstatechange")
    def on_state():
        tell("state", state=pc.connectionState)

    await pc.setLocalDescription(await pc.createOffer())
    asked = time.monotonic()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"} if token else None) as http:
        offer = {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}
        async with http.post(url, json=offer) as response:
            answer = await response.json()
            if response.status != 200:
                tell("refused", status=response.status, body=answer)
                await pc.close()
                return
    tell("answer", took=time.monotonic() - asked, answer=answer)
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    await ended
    tell("closing", sent=video.count)
    await pc.close()
    tell("closed")


class FirstResult:
    def __init__(self):
        self.came = asyncio.Event()

    def result(self):
        self.came.set()

    async def wait(self):
        await self.came.wait()


class StandardInput:
    """Waits until standard input says anything or ends."""

    def result(self):
        pass

    async def wait(self):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--scene", default="three", choices=scenes.SCENES)
    parser.add_argument("--codec")
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--visits", type=int)
    parser.add_argument("--token")
    parser.add_argument("--rtc-config", action="store_true")
    parser.add_argument("--no-ice-servers", action="store_true")
    args = parser.parse_args()
    config = RTCConfiguration([]) if args.no_ice_servers else None
    if args.rtc_config:
        config = await rtc_config(args.url)
    if args.visits is None:
        await visit(args.url, args.scene, args.codec, args.audio, StandardInput(), args.token, config)
    for _ in range(args.visits or 0):
        await visit(args.url, args.scene, args.codec, args.audio, FirstResult(), args.token, config)


if __name__ == "__main__":
    asyncio.run(main())
