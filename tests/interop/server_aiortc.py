"""The server that anybody would write with aiortc: sends every visitor's video back as it came, decoded and encoded again.

    python server_aiortc.py PORT

Says `ready` when it listens; ends with its standard input.
"""

import asyncio
import sys

from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

peers = set()


class PassThrough(MediaStreamTrack):
    kind = "video"

    def __init__(self, track):
        super().__init__()
        self.track = track

    async def recv(self):
        return await self.track.recv()


async def offer(request):
    asked = await request.json()
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peers.add(pc)

    @pc.on("track")
    def on_track(track):
        pc.addTrack(PassThrough(track))

    await pc.setRemoteDescription(RTCSessionDescription(asked["sdp"], asked["type"]))
    await pc.setLocalDescription(await pc.createAnswer())
    return web.json_response({"sdp": pc.localDescription.sdp, "type": pc.localDescription.type})


async def main():
    app = web.Application()
    app.router.add_post("/offer", offer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.gather(*(pc.close() for pc in peers))
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
