"""A visitor who speaks FastRTC's protocol as its own front end does, but trickles as aiortc writes candidates.

    python client_fastrtc.py http://127.0.0.1:8080 --id abc [--no-channel]

Sends numbered pictures, tells what comes back as JSON lines like client_return.py, and each `message` of the channel. Its first
candidate is posted before the offer. Obeys lines of standard input: `say TEXT`, `input JSON`, `close`.
"""

import argparse
import asyncio
import json
import sys

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from client_return import Numbers, tell, watch


def trickled(sdp):
    """The description without candidates, and the candidates."""
    lines = sdp.splitlines()
    candidates = [line.removeprefix("a=") for line in lines if line.startswith("a=candidate:")]
    rest = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    return "\r\n".join(rest) + "\r\n", list(dict.fromkeys(candidates))


async def visit(args):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    numbers = Numbers()
    numbers.sender = pc.addTrack(numbers)
    channel = None if args.no_channel else pc.createDataChannel("text")
    if channel:
        channel.on("open", lambda: channel.send("handshake"))
        channel.on("message", lambda text: tell("message", message=json.loads(text)))
    watchers = []
    pc.on("track", lambda track: watchers.append(asyncio.ensure_future(watch(track, numbers))))
    pc.on("connectionstatechange", lambda: tell("state", state=pc.connectionState))
    await pc.setLocalDescription(await pc.createOffer())
    sdp, candidates = trickled(pc.localDescription.sdp)
    async with aiohttp.ClientSession() as http:

        async def post(path, **body):
            async with http.post(args.url + path, json={"webrtc_id": args.id, **body}) as response:
                return {"status": response.status, "body": await response.json()}

        async def candidate(value):
            tell("posted", candidate=value, **await post("/webrtc/offer", type="ice-candidate", candidate=value))

        def line(text):
            return {"candidate": text, "sdpMid": "0", "sdpMLineIndex": 0}

        await candidate(line(candidates[0]))
        answer = await post("/webrtc/offer", type="offer", sdp=sdp)
        tell("answer", **answer)
        if "sdp" not in answer["body"]:
            await pc.close()
            return
        await pc.setRemoteDescription(RTCSessionDescription(answer["body"]["sdp"], answer["body"]["type"]))
        for value in [*map(line, candidates[1:]), line(""), None]:
            await candidate(value)
        loop = asyncio.get_running_loop()
        while True:
            word, _, rest = (await loop.run_in_executor(None, sys.stdin.readline)).strip().partition(" ")
            match word:
                case "say":
                    channel.send(rest)
                case "input":
                    tell("input", **await post("/input_hook", **json.loads(rest)))
                case _:
                    break
    tell("closing")
    await pc.close()
    tell("closed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--id", required=True)
    parser.add_argument("--no-channel", action="store_true")
    asyncio.run(visit(parser.parse_args()))
