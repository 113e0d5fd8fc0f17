"""What a user of Roboflow's `inference_sdk` waits for, and how much of what came back was paired.

    bench/sdk [SESSIONS]

Each session sends 300 frames of 640×480 at 30 a second to a server that sends every one back with boxes on it, and asks for the
predictions too. Prints as JSON, for each session: the time from the beginning (the POST is its first step) to the first
frame back, in ms; frames back; the share of them that the SDK's own pairing gave their predictions.
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "interop"
sys.path.insert(0, str(TESTS))
from conftest import free_port, new_network  # noqa: E402

CHAIN = "framemeta ! inferencefilter model=models/shapes.onnx when-busy=latest ! framemetaoverlay"
FRAMES = 300
PATIENCE = 60  # seconds


def serving(folder):
    port = free_port()
    env = {**os.environ, "GST_PLUGIN_PATH": str(ROOT / "target/release"), "GST_REGISTRY": f"{folder}/registry.bin"}
    line = ["gst-launch-1.0", "-m", "rtcsessionsrc", f"listen=http://127.0.0.1:{port}", f"video-chain={CHAIN}"]
    server = subprocess.Popen(line, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    for said in server.stdout:
        if re.search("rtc-listening", said):
            # What it says later is read by nobody, and must not fill the pipe.
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return server, f"http://127.0.0.1:{port}"
    sys.exit(f"the server ended with {server.wait()}")


def session(url):
    """When it began, and each event with its time."""
    command = [str(ROOT / ".venv-sdk/bin/python"), str(TESTS / "client_sdk.py"), url, "--model", "--frames", str(FRAMES)]
    client = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    events = [json.loads(line) for line in client.stdout.splitlines()]
    frames = [event for event in events if event["event"] == "frame"]
    if client.returncode or not frames:
        sys.exit(f"a session failed: {client.stderr[-2000:]}")
    began = next(event["at"] for event in events if event["event"] == "starting")
    return {
        "first_frame_ms": round((frames[0]["at"] - began) * 1000, 1),
        "frames": len(frames),
        "paired": sum(frame["paired"] for frame in frames) / len(frames),
    }


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    new_network()
    with tempfile.TemporaryDirectory() as folder:
        server, url = serving(folder)
        try:
            time.sleep(1)
            sessions = [session(url) for _ in range(count)]
        finally:
            server.terminate()
            server.wait()
    first = [one["first_frame_ms"] for one in sessions]
    print(json.dumps({
        "sessions": sessions,
        "first_frame_ms": {"median": statistics.median(first), "most": max(first)},
        "paired_least": min(one["paired"] for one in sessions),
    }, indent=1))


if __name__ == "__main__":
    main()
