"""A network between a peer and a server: one UDP port that loses packets and holds them up, both ways.

    python relay.py ADDRESS SERVER_PORT [--seed 1]

Says its port as the first line. Obeys lines of standard input: `LOSS JITTER_MS`, such as `0.05 60`; ends with it. Every
packet is delayed by a time of its own, so that they overtake each other.
"""

import argparse
import asyncio
import random
import sys


class Leg(asyncio.DatagramProtocol):
    """One side; what comes in on it leaves by the other."""

    def __init__(self, network):
        self.network = network
        self.other = None
        self.transport = None
        self.peer = None  # where the last packet came from, or where all go

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.peer = address
        self.network.carry(data, self.other)


class Network:
    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.loss, self.jitter = 0.0, 0.0

    def carry(self, data, leg):
        if self.dice.random() < self.loss:
            return
        asyncio.get_running_loop().call_later(self.dice.random() * self.jitter, self.send, data, leg)

    def send(self, data, leg):
        if leg.peer:
            leg.transport.sendto(data, leg.peer)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    loop = asyncio.get_running_loop()
    network = Network(args.seed)
    legs = [
        (await loop.create_datagram_endpoint(lambda: Leg(network), local_addr=(args.address, 0)))[1] for _ in range(2)
    ]
    front, back = legs
    front.other, back.other = back, front
    back.peer = (args.address, args.port)
    print(front.transport.get_extra_info("sockname")[1], flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        loss, jitter = line.split()
        network.loss, network.jitter = float(loss), float(jitter) / 1000
        print(line.strip(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
