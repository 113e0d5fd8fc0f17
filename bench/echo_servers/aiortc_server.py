"""Bare aiortc: what comes is decoded, and what was decoded is encoded and sent back."""

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from fastapi import Body, FastAPI

import serving

app = FastAPI()
connections = set()


class Echo(MediaStreamTrack):
    kind = "video"

    def __init__(self, track):
        super().__init__()
        self.track = track

    async def recv(self):
        return await self.track.recv()


@app.post("/offer")
async def offer(body: dict = Body()):
    # Without STUN servers: none can be reached, and none is needed.
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connections.add(connection)

    @connection.on("connectionstatechange")
    async def changed():
        if connection.connectionState in ("failed", "closed"):
            await connection.close()
            connections.discard(connection)

    @connection.on("track")
    def came(track):
        connection.addTrack(Echo(track))

    await connection.setRemoteDescription(RTCSessionDescription(sdp=body["sdp"], type=body["type"]))
    await connection.setLocalDescription(await connection.createAnswer())
    answer = connection.localDescription
    return {"sdp": answer.sdp, "type": answer.type, "pc_id": str(id(connection))}


if __name__ == "__main__":
    serving.arguments()
    serving.serve(app)
