"""A WHIP client as RFC 9725 has it, with aiortc: an offer without candidates, the candidates after it, restarts of ICE.

    python client_whip.py http://127.0.0.1:8080/whip [--scene three] [--codec H264] [--audio] [--token T] [--await-checks]

Tells what happens as JSON lines, each with the monotonic time `at`: `refused`, `answer`, `trickled`, `state`, `restarted`,
`closing`, `closed`. Standard input says `restart`, or `close`, as its end does. With --await-checks it does not look at the
server's candidates: only the server can connect the two then, by the candidates that it was told.
"""

import argparse
import asyncio
import re
import sys
from urllib.parse import urljoin

import aiohttp
import aioice
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription

from client_aiortc import Scene, Tone, tell

FRAGMENT = "application/trickle-ice-sdpfrag"
NOBODY = "a=candidate:1 1 udp 2130706431 10.99.0.1 9 typ host"


def without_candidates(sdp):
    return re.sub(r"(?m)^a=(candidate:.*|end-of-candidates)\r\n", "", sdp)


def fragment(sdp, ufrag, pwd, candidates):
    """The credentials and candidates of one ICE session, under the first m-line of the bundle."""
    line = re.search(r"(?m)^m=.*$", sdp)[0].strip()
    mid = re.search(r"(?m)^a=mid:.*$", sdp)[0].strip()
    group = re.search(r"(?m)^a=group:BUNDLE.*$", sdp)[0].strip()
    lines = [group, line, mid, f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}", *candidates, "a=end-of-candidates"]
    return "\r\n".join(lines) + "\r\n"


def value(name, sdp):
    return re.search(rf"(?m)^a={name}:(.*?)\s*$", sdp)[1]


async def restart(pc, http, resource, sdp):
    """A new ICE session below the same DTLS session, which aiortc cannot begin by itself."""
    transport = pc.getSenders()[0].transport.transport
    old = transport._connection
    new = aioice.Connection(ice_controlling=old.ice_controlling)
    await new.gather_candidates()
    candidates = [f"a=candidate:{candidate.to_sdp()}" for candidate in new.local_candidates]
    body = fragment(sdp, new.local_username, new.local_password, candidates)
    headers = {"Content-Type": FRAGMENT, "If-Match": "*"}
    async with http.patch(resource, data=body, headers=headers) as response:
        answer = await response.text()
        told = {"status": response.status, "etag": response.headers.get("ETag"), "body": answer}
        if response.status != 200:
            return tell("restarted", **told)
    new.remote_username, new.remote_password = value("ice-ufrag", answer), value("ice-pwd", answer)
    for line in re.findall(r"(?m)^a=candidate:(.*?)\s*$", answer):
        await new.add_remote_candidate(aioice.Candidate.from_sdp(line))
    await new.add_remote_candidate(None)
    await new.connect()
    # Who waits for datagrams or for the end of the old one waits for the new one's.
    new._queue, new._event_waiter = old._queue, old._event_waiter
    old._queue, old._event_waiter = asyncio.Queue(), None
    transport._connection, transport._recv, transport._send = new, new.recv, new.send
    await old.close()
    tell("restarted", **told)


async def visit(args, http):
    pc = RTCPeerConnection()
    video = Scene(args.scene)
    video.sender = pc.addTrack(video)
    if args.audio:
        pc.addTrack(Tone())
    if args.codec:
        kinds = RTCRtpSender.getCapabilities("video").codecs
        pc.getTransceivers()[0].setCodecPreferences([c for c in kinds if c.mimeType.lower() == f"video/{args.codec.lower()}"])

    @pc.on("connectionstatechange")
    def on_state():
        tell("state", state=pc.connectionState)

    await pc.setLocalDescription(await pc.createOffer())
    sdp = pc.localDescription.sdp
    candidates = re.findall(r"(?m)^a=candidate:.*?(?=\s*$)", sdp)
    async with http.post(args.url, data=without_candidates(sdp), headers={"Content-Type": "application/sdp"}) as response:
        answer = await response.text()
        headers = {name.lower(): text for name, text in response.headers.items()}
        if response.status != 201:
            tell("refused", status=response.status, headers=headers, body=answer)
            return await pc.close()
    # Several of the bundle's m-lines may repeat a candidate.
    body = fragment(sdp, value("ice-ufrag", sdp), value("ice-pwd", sdp), dict.fromkeys(candidates))
    resource = urljoin(args.url, headers["location"])
    tell("answer", status=201, headers=headers, resource=resource, sdp=answer, fragment=body)
    if args.await_checks:
        answer = re.sub(r"(?m)^a=mid:", f"{NOBODY}\r\na=mid:", without_candidates(answer), count=1)
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    headers = {"Content-Type": FRAGMENT, "If-Match": headers["etag"]}
    async with http.patch(resource, data=body, headers=headers) as response:
        tell("trickled", status=response.status, body=await response.text())

    while (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).strip() == "restart":
        await restart(pc, http, resource, sdp)
    tell("closing", sent=video.count)
    async with http.delete(resource) as response:
        tell("deleted", status=response.status, body=await response.text())
    await pc.close()
    tell("closed")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--scene", default="three")
    parser.add_argument("--codec")
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--token")
    parser.add_argument("--await-checks", action="store_true")
    args = parser.parse_args()
    headers = {"Authorization": f"Bearer {args.token}"} if args.token else {}
    async with aiohttp.ClientSession(headers=headers) as http:
        await visit(args, http)


if __name__ == "__main__":
    asyncio.run(main())
