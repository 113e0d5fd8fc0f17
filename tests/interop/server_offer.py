"""The server that anybody would write with aiortc: sends every visitor's media back as it came, decoded and encoded again,
and each text of a data channel.

    python server_offer.py [--port 0] [--text TEXT]

Says `listening PORT`, then what it sees as JSON lines with the monotonic time `at`: `request`, `track`, `channel`, `message`,
`state`. With --text a channel hears that as soon as it is open.
"""

import argparse
import asyncio
import itertools
import json
import time

from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError

peers = {}
numbers = itertools.count(1)


def tell(event, **fields):
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


class PassThrough(MediaStreamTrack):
    def __init__(self, track):
        super().__init__()
        self.kind = track.kind
        self.track = track

    async def recv(self):
        return await self.track.recv()


def echo(channel, name, text):
    tell("channel", peer=name, label=channel.label)
    if text:
        channel.send(text)

    @channel.on("message")
    def on_message(message):
        if isinstance(message, str):
            tell("message", peer=name, label=channel.label, text=message)
        channel.send(message)


async def offer(request):
    asked = await request.json()
    tell("request", body={key: value for key, value in asked.items() if key != "sdp"})
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    name = str(next(numbers))
    peers[name] = pc

    @pc.on("track")
    def on_track(track):
        tell("track", peer=name, kind=track.kind)
        pc.addTrack(PassThrough(track))

    @pc.on("datachannel")
    def on_channel(channel):
        echo(channel, name, request.app["text"])

    @pc.on("connectionstatechange")
    async def on_state():
        tell("state", peer=name, state=pc.connectionState)
        if pc.connectionState == "failed":
            await pc.close()

    try:
        await pc.setRemoteDescription(RTCSessionDescription(asked["sdp"], asked["type"]))
        await pc.setLocalDescription(await pc.createAnswer())
    except (KeyError, ValueError, InvalidStateError) as error:
        await pc.close()
        raise web.HTTPBadRequest(text=str(error)) from error
    return web.json_response({"sdp": pc.localDescription.sdp, "type": pc.localDescription.type, "pc_id": name})


async def main(args):
    app = web.Application()
    app["text"] = args.text
    app.router.add_post("/offer", offer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", args.port).start()
    print("listening", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--text")
    asyncio.run(main(parser.parse_args()))
