"""Visitors that only a TURN server reaches are reached through it, and a server that does not work does no harm.

Where it matters there is no other way: server and visitor have a network each, with a wire to ours and none to each other,
and coturn is in ours.
"""

import json
import re
import socket
import sys
import threading
import time
import urllib.request

import pytest

from conftest import ADDRESS, CHAIN, HERE, PATIENCE, TURN_ACCOUNT, TURN_PASSWORD, figure, free_port, turn
from test_aiortc import check_results
from test_refusals import post, sdp  # noqa: F401

# The ends of the wires, here and there.
SERVERS, VISITORS = ("10.99.1.1", "10.99.1.2"), ("10.99.2.1", "10.99.2.2")
RESULTS = 30
# A server that has forgotten us is found out within a quarter of a minute.
NOTICED = 45


class Elsewhere:
    """A TCP port of ours that leads to a server which visitors cannot see: signalling has a way where media has none."""

    def __init__(self, to):
        self.listener = socket.create_server((ADDRESS, 0))
        self.url = f"http://{ADDRESS}:{self.listener.getsockname()[1]}"
        self.to = to
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.to)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=pair, daemon=True).start()

    @staticmethod
    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def over_a_wire(name, ends):
    return [sys.executable, str(HERE / "wire.py"), name, *ends]


@pytest.fixture
def apart(launch, visit):
    """Starts a server with these properties in a network of its own; gives it, and what starts a visitor in another."""

    def start(properties):
        port = free_port()
        line = f'rtcsessionsrc name=s listen=http://{SERVERS[1]}:{port} insecure=true video-chain="{CHAIN}" {properties}'
        server = launch(line, host=SERVERS[1], port=port, inside=over_a_wire("servers0", SERVERS))
        server.message("rtc-listening")
        elsewhere = Elsewhere((SERVERS[1], port))

        def visitor(*args):
            return visit(elsewhere, *args, inside=over_a_wire("visitors0", VISITORS))

        return server, visitor

    return start


def until(what, check, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"{what}: not in {timeout} s"
        time.sleep(0.1)


def test_visitor_without_a_way_is_reached_through_the_servers_relay(coturn, apart):
    relay = coturn()
    server, visitor = apart(turn(relay))
    client = visitor("--no-ice-servers")
    answer = client.event("answer")["answer"]["sdp"]
    assert re.search(rf"{ADDRESS} \d+ typ relay", answer), answer
    check_results(client.event("result", count=RESULTS), "three")
    client.close()
    ended = server.message("rtc-connection-ended")
    assert ended["reason"] == "client-closed"


def test_without_a_relay_there_is_no_way(coturn, apart):
    """The other tests would prove nothing if there were one."""
    server, visitor = apart("setup-timeout=4000")
    visitor("--no-ice-servers").event("answer")
    assert server.message("rtc-connection-ended")["reason"] == "setup-timeout"


def test_relay_to_relay_when_nothing_else_is_allowed(coturn, apart):
    relay = coturn()
    server, visitor = apart(f"ice-transport-policy=relay {turn(relay)}")
    client = visitor("--rtc-config")
    answer = client.event("answer")["answer"]["sdp"]
    kinds = re.findall(r"a=candidate:.* typ (\w+)", answer)
    assert kinds and set(kinds) == {"relay"}, answer
    check_results(client.event("result", count=RESULTS), "three")
    assert TURN_PASSWORD not in answer


def test_wrong_password_is_warned_of_once_and_does_no_harm(coturn, serve, visit):
    relay = coturn()
    server = serve(f'video-chain="{CHAIN}" {turn(relay, account="ann:wr0ng")}')
    until("a warning", lambda: server.warnings)
    assert f"turn:{ADDRESS}:{relay.port}?transport=udp does not take the user name and password" in server.warnings[0]
    client = visit(server)
    assert client.event("answer")["took"] < 2
    client.event("result", count=RESULTS)
    until("another try", lambda: figure(server, 'relay_allocations_total{outcome="failed"}') >= 2)
    assert len(server.warnings) == 1
    assert "wr0ng" not in "".join(server.warnings) + urllib.request.urlopen(f"{server.url}/info").read().decode()


@pytest.mark.parametrize("policy", ["all", "relay"])
def test_server_that_never_answers_delays_an_offer_by_little(serve, sdp, policy):  # noqa: F811
    offer = json.dumps({"sdp": sdp, "type": "offer"}).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((ADDRESS, 0))
        server = serve(
            f"video-chain=fakesink ice-transport-policy={policy} "
            f"turn-servers=turn://{TURN_ACCOUNT}@{ADDRESS}:{silent.getsockname()[1]}"
        )
        for _ in range(2):
            asked = time.monotonic()
            status, answer = post(f"{server.url}/offer", offer)
            assert time.monotonic() - asked < 3
            assert status == (200 if policy == "all" else 503), answer
            if policy == "relay":
                assert answer["error"] == "no-relay" and "ice-transport-policy=relay" in answer["message"]
        until("a warning", lambda: server.warnings)
        assert "does not answer" in server.warnings[0]
        # One that failed is not waited for.
        asked = time.monotonic()
        post(f"{server.url}/offer", offer)
        assert time.monotonic() - asked < 1


def test_relay_comes_back_after_the_turn_server_was_started_again(coturn, serve, visit):
    relay = coturn()
    server = serve(f'ice-transport-policy=relay video-chain="{CHAIN}" {turn(relay)}')
    until("a relay", lambda: figure(server, "relays") == 1)
    relay.kill()
    relay.wait()
    coturn(relay.port)
    lost = 'relay_allocations_total{outcome="lost"}'
    until("the loss", lambda: figure(server, lost) == 1, NOTICED)
    until("a relay", lambda: figure(server, "relays") == 1, NOTICED)
    visit(server, "--no-ice-servers").event("result", count=RESULTS)
    assert len(server.warnings) == 1
