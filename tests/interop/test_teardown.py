"""Every visitor's end is told once, in time, and leaves nothing behind."""

import os
import socket
from statistics import median

import pytest

from conftest import MODEL

PADS = f"s.video_0 ! queue ! framemeta ! inferencesink model={MODEL}"


def ended_once(server, connection):
    """The last word about a connection, after checking that all its streams' ends came before."""
    last = server.message("rtc-connection-ended", connection_id=connection)
    said = [m for m in server.said if m.fields.get("connection-id") == connection]
    assert [m.name for m in said].count("rtc-connection-ended") == 1
    started = [m["stream-id"] for m in said if m.name == "rtc-stream-started"]
    over = [m["stream-id"] for m in said[: said.index(last)] if m.name == "rtc-stream-ended"]
    assert sorted(started) == sorted(over)
    return last


def connection_of(client):
    return client.event("answer")["answer"]["pc_id"]


def test_client_that_closes_is_told_at_once_five_times(serve, visit):
    server = serve()
    took = []
    for _ in range(5):
        client = visit(server)
        client.event("result")
        closing = client.close()
        last = ended_once(server, connection_of(client))
        assert last["reason"] == "client-closed"
        assert last["had-media"] and last["duration"] > 0
        took.append(last.at - closing)
    # The promise is 200 ms; one of five may have met a busy machine.
    assert median(took) <= 0.2 and max(took) <= 1, f"told after {took} s"
    assert server.process.poll() is None, "a server with a chain ended with its visitor"


def test_killed_client_is_lost_within_six_seconds(serve, visit):
    server = serve()
    client = visit(server)
    client.event("result")
    killed = client.kill()
    last = ended_once(server, connection_of(client))
    assert last["reason"] == "peer-lost"
    assert last.at - killed <= 6
    # Others go on.
    visit(server).event("result")


def test_pads_pipeline_ends_with_its_visitor(serve, visit):
    server = serve("max-connections=1", PADS)
    client = visit(server)
    client.event("result")
    client.close()
    assert ended_once(server, connection_of(client))["reason"] == "client-closed"
    assert server.exit_code() == 0
    stats = server.all("inference-stats")[-1]
    # Nothing is left waiting at EOS.
    assert stats["received"] == stats["inferred"] + dropped(stats) + stats["failed"]


def dropped(stats):
    """The count of dropped frames, told as a number or by reason."""
    told = stats["dropped"]
    if isinstance(told, int):
        return told
    return sum(int(part.split(")")[-1]) for part in told.split(",")[1:] if "=(" in part)


def test_chain_pipeline_ends_with_its_visitor_when_told_to(serve, visit):
    server = serve("eos-policy=connection video-chain=fakesink")
    client = visit(server)
    server.message("rtc-stream-started")
    client.close()
    ended_once(server, connection_of(client))
    assert server.exit_code() == 0


def test_visitor_without_a_linked_pad_does_not_end_the_pipeline(serve, visit):
    server = serve("", PADS)
    first = visit(server)
    first.event("result")
    second = visit(server)
    server.message("rtc-stream-started", count=2)
    second.close()
    ended_once(server, connection_of(second))
    seen = len(first.all("result"))
    first.event("result", count=seen + 10)
    first.close()
    ended_once(server, connection_of(first))
    assert server.exit_code() == 0


TWO_PADS = "s.video_0 ! queue ! fakesink  s.video_1 ! queue ! fakesink"


@pytest.mark.parametrize("setup", [(), ("", TWO_PADS)], ids=["chains", "pads"])
def test_interrupt_ends_every_visitor_and_says_so(serve, visit, setup):
    server = serve(*setup)
    clients = [visit(server) for _ in range(2)]
    server.message("rtc-stream-started", count=2)
    server.interrupt()
    for client in clients:
        assert ended_once(server, connection_of(client))["reason"] == "server-shutdown"
    assert server.exit_code(timeout=10) == 0
    for client in clients:
        client.event("channel-closed")


def test_pads_pipeline_ends_with_the_last_of_its_visitors(serve, visit):
    server = serve("", TWO_PADS)
    clients = [visit(server) for _ in range(2)]
    server.message("rtc-stream-started", count=2)
    for client in clients:
        client.close()
        assert ended_once(server, connection_of(client))["reason"] == "client-closed"
    assert server.exit_code() == 0


def test_interrupt_without_visitors_ends_too(serve):
    server = serve("video-chain=fakesink")
    server.interrupt()
    assert server.exit_code(timeout=5) == 0


def test_listener_is_free_again_after_the_end(serve):
    server = serve("video-chain=fakesink")
    server.interrupt()
    server.exit_code(timeout=5)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", server.port))


def test_fifty_visitors_leave_nothing_behind(serve, visit):
    server = serve()
    level = None
    client = visit(server, "--visits", "50")
    for number in range(1, 51):
        server.message("rtc-connection-ended", count=number, timeout=30)
        if number == 1:
            level = counts(server)
    after = counts(server)
    assert client.exit_code() == 0
    reasons = {m["reason"] for m in server.all("rtc-connection-ended")}
    assert reasons == {"client-closed"}
    for what in level:
        assert abs(after[what] - level[what]) <= 3, f"{what}: {level[what]} after the first visitor, {after[what]} after 50"


def counts(server):
    return {what: len(os.listdir(f"/proc/{server.process.pid}/{what}")) for what in ("task", "fd")}
