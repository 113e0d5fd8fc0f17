"""A visitor with aiortc that does one thing and leaves.

    python client_talk.py URL hello         says it on its channel and prints the first answer
    python client_talk.py URL --frames N    sends a video and tells, as JSON lines, the answer and the Nth picture that came back
    python client_talk.py URL --later       adds a track with a later offer, and stays until it is told to close
    python client_talk.py URL --silent      sends a video and has no channel, until it is told to close
    python client_talk.py --print           prints an offer as JSON
    --watching                              sends nothing, where a video would be sent
    --asks                                  asks for an offer and answers it
"""

import argparse
import asyncio
import json
import sys

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription

from client_aiortc import Scene, Tone, tell


def with_video(watching):
    pc = RTCPeerConnection()
    if watching:
        pc.addTransceiver("video", direction="recvonly")
        return pc
    video = Scene("three")
    video.sender = pc.addTrack(video)
    return pc


async def offer(pc, url, **more):
    await pc.setLocalDescription(await pc.createOffer())
    answer = await post(url, {"sdp": pc.localDescription.sdp, "type": "offer", **more})
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    return answer


async def post(url, body):
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("text", nargs="?")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--later", action="store_true")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--watching", action="store_true")
    parser.add_argument("--asks", action="store_true")
    parser.add_argument("--print", action="store_true")
    args = parser.parse_args()
    pc = RTCPeerConnection() if args.asks else with_video(args.watching)
    over = asyncio.get_running_loop().create_future()

    @pc.on("datachannel")
    def on_channel(channel):
        tell("channel", label=channel.label)

    @pc.on("track")
    def on_track(track):
        async def look():
            for _ in range(args.frames):
                frame = await track.recv()
            tell("frames", width=frame.width, height=frame.height)
            over.set_result(None)

        if args.frames and track.kind == "video":
            asyncio.ensure_future(look())

    if args.asks:
        asked = await post(args.url, {"type": "request"})
        await pc.setRemoteDescription(RTCSessionDescription(asked["sdp"], asked["type"]))
        await pc.setLocalDescription(await pc.createAnswer())
        await post(args.url, {"type": "answer", "sdp": pc.localDescription.sdp, "pc_id": asked["pc_id"]})
        await over
        return await pc.close()

    if args.silent:
        await offer(pc, args.url)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        tell("closing")
        return await pc.close()
    channel = pc.createDataChannel("anything")

    @channel.on("open")
    def on_open():
        if args.text:
            channel.send(args.text)

    @channel.on("message")
    def on_message(message):
        if args.text:
            print(message)
            over.set_result(None)

    if args.print:
        pc.addTrack(Tone())
        await pc.setLocalDescription(await pc.createOffer())
        print(json.dumps(pc.localDescription.sdp))
        return await pc.close()
    answer = await offer(pc, args.url)
    if args.frames:
        tell("answer", sdp=answer["sdp"])
    if args.later:
        while pc.connectionState != "connected":
            await asyncio.sleep(0.05)
        pc.addTrack(Tone())
        await offer(pc, args.url, pc_id=answer["pc_id"])
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        tell("closing")
    else:
        await over
    await pc.close()


if __name__ == "__main__":
    asyncio.run(main())
