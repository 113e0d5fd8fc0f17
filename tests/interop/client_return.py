"""A visitor who looks at and listens to what comes back: sends numbered pictures and a tone, tells what it sees and hears.

    python client_return.py http://127.0.0.1:8080/offer --line audio:sendrecv --line video:sendrecv [--codec H264] [--name x]

Tells as JSON lines, each with the monotonic time `at`: `answer`, `state`, `picture` (its number, `black` or `other`; the RTP
time it was sent with, the one it came with, and how long it was away), `keyframe`, `packet` (of audio, as it arrives: RTP
time, level in dB, and the phase of the tone on the RTP clock), `closing`, `closed`, `refused`. Obeys lines of standard
input: `pli`, `mute`, `unmute`, `close`.
"""

import argparse
import asyncio
import cmath
import json
import math
import sys
import time

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from aiortc.codecs.opus import OpusDecoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

import painted
from client_aiortc import Tone, tell

SILENT = -100.0  # dB, for what has no level


class Numbers(VideoStreamTrack):
    """Pictures numbered from 0, and when each was sent with which RTP timestamp."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.sender = None
        self.stamps, self.times = {}, {}

    async def recv(self):
        # aiortc asks for a frame when the one before has left; its timestamp is the last one the sender wrote.
        if self.count:
            self.stamps[self.count - 1] = self.sender._RTCRtpSender__rtp_timestamp
        pts, time_base = await self.next_timestamp()
        planes = np.frombuffer(painted.i420(self.count), np.uint8).reshape(-1, painted.WIDTH)
        frame = VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        self.times[self.count] = time.monotonic()
        self.count += 1
        return frame

    def stamp(self, number):
        # The newest frame is on its way: its stamp is not yet in the book, but at the sender.
        return self.stamps.get(number, self.sender and self.sender._RTCRtpSender__rtp_timestamp)


class Voice(Tone):
    """The tone, which can be muted."""

    muted = False

    async def recv(self):
        frame = await super().recv()
        if self.muted:
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        return frame


async def watch(track, numbers):
    """Tells what each picture shows."""
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        at = time.monotonic()
        plane = frame.planes[0]
        shown = painted.read(memoryview(plane), plane.line_size, frame.width, frame.height)
        more = {}
        if shown in numbers.times:
            more = {"sent": numbers.stamp(shown), "away": at - numbers.times[shown]}
        light = np.frombuffer(plane, np.uint8)[::7].mean()
        tell("picture", shows=shown, came=frame.pts, size=[frame.width, frame.height], light=float(light), **more)


def inspect(transceiver):
    """Tells of every packet as it arrives, before anything waits in a jitter buffer."""
    receiver = transceiver.receiver
    handle = receiver._handle_rtp_packet
    decoder = OpusDecoder()

    async def hear(packet, arrival_time_ms):
        if packet.payload:
            frame = decoder.decode(JitterFrame(data=packet.payload, timestamp=packet.timestamp))[0]
            samples = frame.to_ndarray().reshape(-1, 2)[:, 0] / 32768
            root = math.sqrt(float((samples**2).mean()))
            # Where the tone stands at RTP time 0: the same for every packet of one unbroken tone.
            turns = np.exp(-2j * np.pi * 440 * (packet.timestamp % 48000 + np.arange(len(samples))) / 48000)
            tell(
                "packet",
                came=packet.timestamp,
                level=20 * math.log10(root) if root > 1e-5 else SILENT,
                phase=cmath.phase(complex((samples * turns).sum())),
            )
        await handle(packet, arrival_time_ms)

    async def see(packet, arrival_time_ms):
        receiver.seen_ssrc = packet.ssrc
        await handle(packet, arrival_time_ms)
        data = getattr(packet, "_data", b"")
        # VP8 without its descriptor: bit 0 of the first byte is clear on keyframes, whose start code follows.
        if data[3:6] == b"\x9d\x01\x2a" and not data[0] & 1:
            tell("keyframe")

    receiver._handle_rtp_packet = hear if transceiver.kind == "audio" else see


def prefer(transceiver, codec):
    kinds = RTCRtpSender.getCapabilities("video").codecs
    wanted = [c for c in kinds if c.mimeType.lower() == f"video/{codec.lower()}"]
    transceiver.setCodecPreferences(wanted)


def prepare(args):
    """A connection with the lines asked for, and what it sends."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    numbers, voice = Numbers(), Voice()
    for line in args.line:
        kind, direction = line.split(":")
        sends = direction in ("sendrecv", "sendonly")
        track = {"video": numbers, "audio": voice}[kind] if sends else kind
        transceiver = pc.addTransceiver(track, direction=direction)
        if kind == "video":
            if sends:
                numbers.sender = transceiver.sender
            if args.codec:
                prefer(transceiver, args.codec)
    return pc, numbers, voice


async def visit(args):
    pc, numbers, voice = prepare(args)
    watchers = []

    @pc.on("connectionstatechange")
    def on_state():
        tell("state", state=pc.connectionState)

    @pc.on("track")
    def on_track(track):
        task = watch(track, numbers) if track.kind == "video" else drain(track)
        watchers.append(asyncio.ensure_future(task))

    await pc.setLocalDescription(await pc.createOffer())
    async with aiohttp.ClientSession() as http:
        offer = {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}
        if args.name:
            offer["webrtc_id"] = args.name
        async with http.post(args.url, json=offer) as response:
            answer = await response.json()
            if response.status != 200:
                tell("refused", status=response.status, body=answer)
                await pc.close()
                return
    for transceiver in pc.getTransceivers():
        inspect(transceiver)
    tell("answer", answer=answer)
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    await obey(pc, voice)
    tell("closing", sent=numbers.count)
    await pc.close()
    tell("closed")


async def drain(track):
    """Takes what the jitter buffer lets out: what is heard was told as it came."""
    while True:
        try:
            await track.recv()
        except MediaStreamError:
            return


async def obey(pc, voice):
    loop = asyncio.get_running_loop()
    while True:
        command = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        match command:
            case "pli":
                for receiver in pc.getReceivers():
                    if hasattr(receiver, "seen_ssrc"):
                        await receiver._send_rtcp_pli(receiver.seen_ssrc)
                tell("asked")
            case "mute" | "unmute":
                voice.muted = command == "mute"
                tell(command)
            case _:
                return


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--line", action="append", default=[])
    parser.add_argument("--codec")
    parser.add_argument("--name", help="by which others find this visitor")
    asyncio.run(visit(parser.parse_args()))
