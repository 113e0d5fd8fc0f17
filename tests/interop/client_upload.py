"""A client of Roboflow's protocol that uploads whatever it is told to.

    python client_upload.py http://127.0.0.1:8080

Tells as JSON lines: `open`, `message` (on the channel `inference`), `answer` (on the channel `video_upload`), `state`. Obeys lines
of standard input: `piece INDEX TOTAL LENGTH`, `text FILE`, `bytes HEX`, `close`.
"""

import asyncio
import json
import struct
import sys

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from client_aiortc import tell


async def main(url):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    upload = pc.createDataChannel("video_upload")
    upload.on("open", lambda: tell("open"))
    upload.on("message", lambda message: tell("answer", bytes=message.hex()))
    channel = pc.createDataChannel("inference")
    channel.on("message", lambda message: tell("message", message=json.loads(message[12:])))
    pc.on("connectionstatechange", lambda: tell("state", state=pc.connectionState))
    await pc.setLocalDescription(await pc.createOffer())
    body = {
        "workflow_configuration": {"type": "WorkflowConfiguration"},
        "webrtc_offer": {"type": "offer", "sdp": pc.localDescription.sdp},
        "webrtc_realtime_processing": False,
        "video_file_upload": True,
    }
    async with aiohttp.ClientSession() as http, http.post(url + "/initialise_webrtc_worker", json=body) as response:
        answer = await response.json()
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    loop = asyncio.get_running_loop()
    while True:
        match (await loop.run_in_executor(None, sys.stdin.readline)).split():
            case ["piece", index, total, length]:
                upload.send(struct.pack("<II", int(index), int(total)) + bytes(int(length)))
            case ["text", *words]:
                text = " ".join(words).replace("\\n", "\n")
                upload.send(struct.pack("<II", 0, 1) + text.encode())
            case ["bytes", text]:
                upload.send(bytes.fromhex(text))
            case _:
                break
    await pc.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
