"""The descriptions in pipelines/ that send something back do so."""

from returning import check_level, look, loud, numbered, pictures, sounds


def test_annotate_sends_the_picture_back_and_the_results(run, visit):
    server = run("annotate.launch")
    client = look(visit, server, "video:sendrecv")
    pictures(client, lambda e: e["shows"] != "black", 20, "a picture")
    server.message("inference-result", count=5)


def test_echo_sends_back_what_came(run, visit):
    server = run("echo.launch")
    client = look(visit, server, "audio:sendrecv", "video:sendrecv")
    numbered(client, 30)
    sounds(client, loud, 30, "the tone")


def test_echo_by_pads_ends_with_the_visitor(run, visit):
    server = run("echo-pads.launch")
    client = look(visit, server, "audio:sendrecv", "video:sendrecv")
    # Mirrored, so no number can be read.
    pictures(client, lambda e: e["shows"] != "black", 30, "a picture")
    sounds(client, loud, 30, "the tone")
    client.close()
    server.message("rtc-connection-ended", reason="client-closed")
    assert server.exit_code() == 0


def test_level_shows_the_visitor_how_loud_it_is(run, visit):
    server = run("level.launch")
    client = look(visit, server, "audio:sendonly", "video:recvonly")
    check_level(client, client)


def test_level_pair_shows_it_to_another_one(run, visit):
    server = run("level-pair.launch")
    viewer = look(visit, server, "video:recvonly", name="viewer")
    viewer.event("state", state="connected")
    check_level(look(visit, server, "audio:sendonly"), viewer)


def test_broadcast_reaches_everybody(run, visit):
    server = run("broadcast.launch")
    for client in [look(visit, server, "video:recvonly", "audio:recvonly") for _ in range(2)]:
        # A white ball on black; black alone is 16.
        pictures(client, lambda e: 16.4 < e["light"] < 25, 20, "the ball")
        sounds(client, lambda level: level > -30, 2, "a tick")
