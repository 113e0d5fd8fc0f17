"""A client of Roboflow's protocol that uploads whatever it is told to.

    python client_upload.py http://127.0.0.1:8080 [KEY]

Tells as JSON lines: `open`, `message` (on the channel `inference`), `answer` (on the channel `video_upload`), `state`. Obeys lines
of standard input: `piece INDEX TOTAL LENGTH`, `file PATH TIMES` (in pieces, each so many times), `text FILE`, `bytes HEX`,
`say TEXT` and `garble HEX` (as a text, on the channel `inference`), `close`.
"""

import asyncio
import json
import pathlib
import struct
import sys

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from client_aiortc import tell


LENGTH = 49152
# What is said to be text (RFC 8831, 8).
STRING = 51


async def main(url, key=None):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    upload = pc.createDataChannel("video_upload")
    upload.on("message", lambda message: tell("answer", bytes=message.hex()))
    # The last of them to open.
    channel = pc.createDataChannel("inference")
    channel.on("open", lambda: tell("open"))
    channel.on("message", lambda message: tell("message", message=json.loads(message[12:])))
    pc.on("connectionstatechange", lambda: tell("state", state=pc.connectionState))
    await pc.setLocalDescription(await pc.createOffer())
    body = {
        "workflow_configuration": {"type": "WorkflowConfiguration"},
        "webrtc_offer": {"type": "offer", "sdp": pc.localDescription.sdp},
        "webrtc_realtime_processing": False,
        "video_file_upload": True,
        "data_output": ["*"],
        "api_key": key,
    }
    async with aiohttp.ClientSession() as http, http.post(url + "/initialise_webrtc_worker", json=body) as response:
        answer = await response.json()
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    loop = asyncio.get_running_loop()
    while True:
        match (await loop.run_in_executor(None, sys.stdin.readline)).split():
            case ["piece", index, total, length]:
                upload.send(struct.pack("<II", int(index), int(total)) + bytes(int(length)))
            case ["file", path, times]:
                data = pathlib.Path(path).read_bytes()
                pieces = [data[at : at + LENGTH] for at in range(0, len(data), LENGTH)]
                for index, piece in enumerate(pieces):
                    for _ in range(int(times)):
                        upload.send(struct.pack("<II", index, len(pieces)) + piece)
            case ["say", *words]:
                channel.send(" ".join(words))
            case ["garble", text]:
                pc.sctp._data_channel_queue.append((channel, STRING, bytes.fromhex(text)))
                await pc.sctp._data_channel_flush()
            case ["text", *words]:
                text = " ".join(words).replace("\\n", "\n")
                upload.send(struct.pack("<II", 0, 1) + text.encode())
            case ["bytes", text]:
                upload.send(bytes.fromhex(text))
            case _:
                break
    await pc.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
