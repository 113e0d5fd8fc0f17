"""Each m-line of an answer says what really goes which way."""

import asyncio

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from conftest import PATIENCE

# What a session returns, and with it every answer below.
SESSIONS = {
    "nothing": ("video-chain=fakesink audio-chain=fakesink", ""),
    "its video": ("video-chain=identity audio-chain=fakesink", ""),
    "both": ("video-chain=identity audio-chain=identity", ""),
    "its audio as video": ('video-chain=fakesink audio-chain="audioconvert ! wavescope ! videoconvert"', ""),
    "what is published": (
        "video-chain=fakesink audio-chain=fakesink",
        "videotestsrc is-live=true ! rtcsessionsink send-to=all",
    ),
}

# An offer, and the directions of the answer by session, in the order above.
TABLE = {
    "audio:sendrecv video:sendrecv": [
        "recvonly recvonly",
        "recvonly sendrecv",
        "sendrecv sendrecv",
        "recvonly sendrecv",
        "recvonly sendrecv",
    ],
    "audio:sendonly video:sendonly": ["recvonly recvonly"] * 5,
    "audio:recvonly video:recvonly": ["inactive inactive"] * 4 + ["inactive sendonly"],
    "audio:inactive video:inactive": ["inactive inactive"] * 5,
    "audio:sendonly video:recvonly": ["recvonly inactive"] * 3 + ["recvonly sendonly"] * 2,
    "video:sendonly video:recvonly video:recvonly": [
        "recvonly inactive inactive",
        "recvonly sendonly inactive",
        "recvonly sendonly inactive",
        "recvonly inactive inactive",
        "recvonly sendonly inactive",
    ],
    "video:sendrecv video:sendrecv audio:recvonly": [
        "recvonly recvonly inactive",
        "sendrecv sendrecv inactive",
        "sendrecv sendrecv inactive",
        "recvonly recvonly inactive",
        "sendrecv recvonly inactive",
    ],
}

# What a visitor of each session does to "audio:sendrecv video:sendrecv" with further offers, each a whole, and the answers.
AGAIN = ["audio:sendrecv video:sendrecv video:sendrecv", "audio:sendrecv video:recvonly video:sendrecv",
         "audio:inactive video:inactive video:sendonly", "audio:sendrecv video:sendrecv video:inactive"]
ANSWERS_AGAIN = {
    "nothing": [
        "recvonly recvonly recvonly",
        "recvonly inactive recvonly",
        "inactive inactive recvonly",
        "recvonly recvonly inactive",
    ],
    "both": [
        "sendrecv sendrecv sendrecv",
        "sendrecv inactive sendrecv",
        "inactive inactive recvonly",
        "sendrecv sendrecv inactive",
    ],
    "its audio as video": [
        "recvonly sendrecv recvonly",
        "recvonly sendonly recvonly",
        "inactive inactive recvonly",
        "recvonly sendrecv inactive",
    ],
    "what is published": [
        "recvonly sendrecv recvonly",
        "recvonly sendonly recvonly",
        "inactive inactive recvonly",
        "recvonly sendrecv inactive",
    ],
}


class Visitor:
    """A connection that only negotiates."""

    def __init__(self, server):
        self.url = server.url + "/offer"
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.stands = asyncio.Event()
        self.pc.on("connectionstatechange", lambda: self.pc.connectionState == "connected" and self.stands.set())
        self.id = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        # Or its threads keep the whole run from ending.
        await self.pc.close()

    async def offer(self, lines):
        """Offers those lines; the directions of the answer."""
        for at, line in enumerate(lines.split()):
            kind, direction = line.split(":")
            known = self.pc.getTransceivers()
            transceiver = known[at] if at < len(known) else self.pc.addTransceiver(kind)
            transceiver.direction = direction
        await self.pc.setLocalDescription(await self.pc.createOffer())
        offer = {"sdp": self.pc.localDescription.sdp, "type": "offer"}
        assert directions(offer["sdp"]) == " ".join(line.split(":")[1] for line in lines.split())
        if self.id:
            offer["pc_id"] = self.id
        async with aiohttp.ClientSession() as http:
            while True:
                async with http.post(self.url, json=offer) as response:
                    answer = await response.json()
                    if response.status == 200:
                        break
                # One connection may not offer as fast as it likes, and is told to wait a second.
                assert response.status == 429, answer
                await asyncio.sleep(1)
        assert self.id in (None, answer["pc_id"])
        self.id = answer["pc_id"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        return directions(answer["sdp"])


def directions(sdp):
    words = ("sendrecv", "sendonly", "recvonly", "inactive")
    return " ".join(line[2:] for line in sdp.splitlines() if line[2:] in words)


def run(steps):
    asyncio.run(asyncio.wait_for(steps, 3 * PATIENCE))


@pytest.mark.parametrize("session", SESSIONS)
def test_answers_have_the_right_directions(serve, session):
    server = serve(*SESSIONS[session])

    async def ask_all():
        seen = {}
        for offer in TABLE:
            async with Visitor(server) as visitor:
                seen[offer] = await visitor.offer(offer)
        return seen

    number = list(SESSIONS).index(session)
    expected = {offer: answers[number] for offer, answers in TABLE.items()}

    async def check():
        assert await ask_all() == expected

    run(check())


@pytest.mark.parametrize("session", ANSWERS_AGAIN)
def test_directions_stay_right_when_tracks_come_and_go(serve, session):
    server = serve(*SESSIONS[session])

    async def check():
        async with Visitor(server) as visitor:
            await visitor.offer("audio:sendrecv video:sendrecv")
            await visitor.stands.wait()
            assert [await visitor.offer(offer) for offer in AGAIN] == ANSWERS_AGAIN[session]

    run(check())
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
