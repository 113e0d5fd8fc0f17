"""What the servers that bench/echo compares have in common: where they listen, what they cost, and when they end.

A server says its URL on standard output, and on each line of standard input what it has cost so far; it ends with its input.
"""

import argparse
import json
import os
import socket
import sys
import threading
import time

import uvicorn
from aiortc.codecs import vpx


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bitrate", type=int, help="bits a second of what is sent back; aiortc's own limits when absent")
    chosen = parser.parse_args()
    if chosen.bitrate:
        vpx.DEFAULT_BITRATE = vpx.MIN_BITRATE = vpx.MAX_BITRATE = chosen.bitrate
    return chosen


def resident_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def say(words):
    print(json.dumps(words), flush=True)


def tell():
    for _ in sys.stdin:
        say({"cpu_ns": time.process_time_ns(), "at_ns": time.monotonic_ns(), "rss_mb": resident_mb()})
    os._exit(0)


def serve(app):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))

    say({"uri": f"http://127.0.0.1:{listener.getsockname()[1]}"})
    threading.Thread(target=tell, daemon=True).start()
    server.run(sockets=[listener])
