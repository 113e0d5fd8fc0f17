"""The applications of examples/ do what they say, with a visitor of flesh and aiortc."""

import asyncio
import json
import re
import signal
import subprocess

import aiohttp
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack

from conftest import PATIENCE, PROFILE, ROOT, Lines, free_port


class Program(Lines):
    """An example and its lines."""

    def parse(self, line, at):
        return line

    def line(self, pattern, timeout=PATIENCE):
        return re.match(pattern, self.wait(lambda line: re.match(pattern, line), pattern, timeout=timeout)[0])

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()


@pytest.fixture
def program(plugin_env, log):
    started = []

    def start(*words):
        one = Program([*map(str, words)], log, env=plugin_env)
        started.append(one)
        return one

    yield start
    for one in started:
        one.end()


LIFECYCLES = {
    "python": ["/usr/bin/python3", "examples/lifecycle.py"],
    "rust": [f"target/{PROFILE}/examples/lifecycle"],
}


@pytest.mark.parametrize("language", LIFECYCLES)
def test_lifecycle_allocates_and_releases_once(program, visit, language):
    if language == "rust":
        profile = ["--release"] if PROFILE == "release" else []
        subprocess.run(["cargo", "build", "--quiet", "--locked", *profile, "--example", "lifecycle"], cwd=ROOT, check=True)
    url = f"http://127.0.0.1:{free_port()}"
    one = program(*LIFECYCLES[language], url)
    one.line("listening")
    one.url = url
    first, second = visit(one), visit(one)
    ids = [client.event("answer")["answer"]["pc_id"] for client in (first, second)]
    for connection in ids:
        one.line(rf"started\s+{connection}/.*\[.+\]")
        one.line(rf"frame\s+{connection}/\S+ 1\s")
        one.line(rf"state\s+{connection} connecting → playing")
    one.tell("list")
    one.line("2 connections")
    one.tell(f"end {ids[0]} the time is up")
    one.line("ending")
    one.line(rf"ended\s+{ids[0]}/\S+ closed-by-application after")
    first.event("channel-closed")
    second.close()
    one.line(rf"ended\s+{ids[1]}/\S+ client-closed after")
    one.tell(f"end {ids[0]}")
    one.line("no such connection")
    one.tell("quit")
    one.line("left over: 0")
    assert one.exit_code() == 0
    started = [line for line in one.said if line.startswith("started")]
    ended = [line for line in one.said if line.startswith("ended")]
    assert len(started) == len(ended) == 2


def test_a_slider_of_a_visitor_reaches_the_filter(program):
    url = f"http://127.0.0.1:{free_port()}"
    one = program("/usr/bin/python3", "examples/filter.py", url, "fakesink")
    one.line("listening")
    wishes = [{"saturation": 0.5}, {"saturation": 9}, {"hue": -1}, {"planes": 3}, {"hue": "high"}]
    assert asyncio.run(slide(url, wishes)) == [True, False, True, False, False]
    one.process.send_signal(signal.SIGINT)
    assert one.exit_code() == 0


async def slide(url, wishes):
    """Whether each of a visitor's wishes was taken."""
    pc = RTCPeerConnection()
    pc.addTrack(VideoStreamTrack())
    channel = pc.createDataChannel("sliders")
    answers, opened = asyncio.Queue(), asyncio.Event()
    channel.on("open", opened.set)
    channel.on("message", answers.put_nowait)
    await pc.setLocalDescription(await pc.createOffer())
    async with aiohttp.ClientSession() as http:
        offer = {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}
        async with http.post(url + "/offer", json=offer) as response:
            answer = await response.json()
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    await asyncio.wait_for(opened.wait(), PATIENCE)
    taken = []
    for wish in wishes:
        channel.send(json.dumps(wish))
        taken.append(json.loads(await asyncio.wait_for(answers.get(), PATIENCE))["taken"])
    await pc.close()
    return taken
