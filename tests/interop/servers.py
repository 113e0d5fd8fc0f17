"""The servers of others that are called here: server_offer.py, server_roboflow.py and server_fastrtc.py."""

import json
import sys

import pytest

from conftest import HERE, ROOT, Client, Lines

PYTHONS = {"server_fastrtc.py": ROOT / ".venv-fastrtc/bin/python"}


class Peer(Client):
    """A server, and what it told; it listens once this is made."""

    def __init__(self, script, log, *args):
        python = PYTHONS.get(script, sys.executable)
        Lines.__init__(self, [str(python), str(HERE / script), *args], log)
        # What FastRTC imports takes seconds.
        self.port = self.event("listening", timeout=60)["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    def parse(self, line, at):
        if line.startswith("listening "):
            return {"event": "listening", "at": at, "port": int(line.split()[1])}
        return json.loads(line)


@pytest.fixture
def peer(log):
    """Starts such a server by the name of its script, with its options; all are ended with the test."""
    started = []

    def start(script, *args):
        started.append(Peer(script, log, *args))
        return started[-1]

    yield start
    for server in started:
        server.end()
