"""Clients of all doors at once: one list, one limit, one kind of end."""

import json

from conftest import CHAIN
from test_chromium import chromium, page, start  # noqa: F401: two are fixtures
from test_hostile import DOORS
from test_refusals import ask, post, sdp  # noqa: F401: the last is a fixture
from test_roboflow import use
from test_teardown import ended_once

# Five visitors at once, on whatever machine.
BUSY = 60
FULL = {"offer": 503, "pipecat": 503, "fastrtc": 200, "roboflow": 429, "whip": 503}


def listed(server):
    return ask(f"{server.url}/connections")[1]


def test_clients_of_all_doors_are_in_one_list_under_one_limit_and_end_alike(serve, visit, page, sdp):  # noqa: F811
    server = serve(f'max-connections=5 video-chain="{CHAIN}"')
    # The one that takes longest to begin.
    sdk = use(visit, server, "--data", "*", "--frames", "100000")
    page.goto(server.url)
    assert isinstance(start(page), float | int)
    scripts = {
        "roboflow": sdk,
        "offer": visit(server, route="/api/offer"),
        "fastrtc": visit(server, "--id", "abc", route="", script="client_fastrtc.py"),
        "whip": visit(server, route="/whip", script="client_whip.py"),
    }
    created = server.message("rtc-connection-created", count=5, timeout=BUSY)
    doors = sorted(m["door"] for m in created)
    # The page comes in by the door that scripts use.
    assert doors == ["fastrtc", "offer", "offer", "roboflow", "whip"]
    ids = {m["connection-id"]: m["door"] for m in created}
    for connection in ids:
        server.message("inference-result", connection_id=connection, timeout=BUSY)

    found = listed(server)
    assert {c["connection_id"]: c["door"] for c in found} == ids
    assert {c["state"] for c in found} == {"playing"} and all(c["had_media"] for c in found)
    assert [c["external_id"] for c in found if c["external_id"]] == ["abc"]

    for name, status in FULL.items():
        its = DOORS[name]
        since = len(server.said)
        # Another id than that of the one who is there.
        said = post(server.url + its.path, its.body(sdp), its.kind)
        assert said[0] == status and "5" in json.dumps(said[1]), said
        rejected = server.message("rtc-connection-rejected", since=since)
        assert rejected["limit"] == 5 and rejected["door"] == {"pipecat": "offer"}.get(name, name)
    assert listed(server) == found

    page.click("#stop")
    for client in scripts.values():
        client.ask("close")
    for connection, door in ids.items():
        ended = ended_once(server, connection)
        assert (ended["door"], ended["reason"], ended["had-media"]) == (door, "client-closed", True)
    assert len({frozenset(m.fields) - {"external-id"} for m in server.all("rtc-connection-ended")}) == 1
    assert len(server.all("rtc-connection-ended")) == 5 and listed(server) == []
    # All five places are free.
    visit(server).event("result")
