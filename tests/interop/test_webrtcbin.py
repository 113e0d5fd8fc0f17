"""The doors of a webrtcbin of one's own: real clients walk in, its media is on its own pads, every end is told."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from conftest import HERE, MODEL, PATIENCE, Lines, free_port
from test_chromium import chromium, page, start, until  # noqa: F401
from test_refusals import ask, post

NEIGHBOUR = "webrtcbin name=neighbour bundle-policy=max-bundle latency=20"
DETECT = f"""{NEIGHBOUR}
    neighbour. ! capsfilter caps=application/x-rtp,media=video,encoding-name=VP8 ! rtpvp8depay ! vp8dec
        ! framemeta ! inferencesink model={MODEL}
    neighbour. ! capsfilter caps=application/x-rtp,media=audio ! rtpopusdepay ! fakesink async=false"""
# Whatever packet comes first, pads find the branch that is for them; a visitor without audio needs none for it.
VIDEO = f"""{NEIGHBOUR}
    neighbour. ! application/x-rtp,media=video ! rtpvp8depay ! vp8dec ! framemeta ! inferencesink model={MODEL}"""


@pytest.fixture
def behind(serve):
    def start(properties="", rest=DETECT, **kwargs):
        return serve(f"webrtcbin=neighbour {properties}", rest, **kwargs)

    return start


def offer(url, body):
    return post(url + "/offer", json.dumps(body).encode())


def an_offer():
    command = [sys.executable, HERE / "client_talk.py", "--print"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def told_once(server):
    """Every stream and connection that began has ended, once and in this order."""
    names = [m.name for m in server.said if m.name.startswith("rtc-")]
    assert names.count("rtc-connection-created") == names.count("rtc-connection-ended")
    assert names.count("rtc-stream-started") == names.count("rtc-stream-ended")
    last = max(i for i, name in enumerate(names) if name == "rtc-connection-ended")
    assert "rtc-stream-ended" not in names[last:]


def test_results_of_its_pads_find_their_visitor_and_the_pipeline_ends_with_the_visit(behind, visit):
    server = behind()
    client = visit(server, "--audio")
    results = client.event("result", count=20)
    # The RTP timestamp says which of its frames each result is of.
    assert sum(result["frame"] is not None for result in results) >= 15
    created = server.message("rtc-connection-created")["connection-id"]
    started = server.message("rtc-stream-started", count=2)
    assert {(m["stream-id"], m["media"], m["codec"]) for m in started} == {
        (f"{created}/0", "video", "vp8"), (f"{created}/1", "audio", "opus"),
    }
    _, listed = ask(server.url + "/connections")
    assert [(one["connection_id"], one["state"]) for one in listed] == [(created, "playing")]
    client.close()
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
    assert server.exit_code() == 0
    told_once(server)
    assert all(m["buffers"] > 0 for m in server.all("rtc-stream-ended"))


def test_the_page_shows_boxes_of_a_webrtcbin(run, page):  # noqa: F811
    server = run("neighbour.launch")
    page.goto(server.url)
    took = start(page)
    assert isinstance(took, float | int), took
    until(page, "rtcinference.results >= 30 && rtcinference.latency")
    assert page.evaluate("rtcinference.latency.kind").startswith("measured")
    page.click("#stop")
    # The page sends no sound: the branch for it waits, and the pipeline with it.
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"


def test_visitor_who_is_gone_without_a_word_is_lost(behind, visit):
    server = behind(rest=VIDEO)
    client = visit(server)
    client.event("result")
    client.kill()
    assert server.message("rtc-connection-ended", timeout=30)["reason"] == "peer-lost"
    assert server.exit_code() == 0
    told_once(server)


def test_application_ends_a_visit_and_the_visitor_is_told(behind, visit):
    server = behind(rest=VIDEO)
    client = visit(server)
    client.event("result")
    connection = ask(server.url + "/connections")[1][0]["connection_id"]
    ask(urllib.request.Request(f"{server.url}/connections/{connection}", method="DELETE"))
    assert server.message("rtc-connection-ended")["reason"] == "closed-by-application"
    last = client.wait(lambda e: e["event"] == "result" and e["result"]["processing_complete"], "the last word")
    assert last[0]["result"]["termination_reason"] == "closed-by-application"
    client.event("state", state="closed")
    assert server.exit_code() == 0
    told_once(server)


def test_eos_ends_visit_and_pipeline(behind, visit):
    server = behind(rest=VIDEO)
    client = visit(server)
    client.event("result")
    server.interrupt()
    assert server.message("rtc-connection-ended")["reason"] == "server-shutdown"
    assert server.exit_code() == 0
    told_once(server)


def test_one_visitor_at_a_time(behind, visit):
    server = behind("eos-policy=never", rest=NEIGHBOUR)
    first = visit(server)
    first.event("open")
    refused = visit(server).event("refused")
    assert (refused["status"], refused["body"]["error"]) == (503, "too-many-connections")
    assert server.message("rtc-connection-rejected")["limit"] == 1
    first.close()
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
    told_once(server)
    # A webrtcbin cannot begin anew, which who comes is told.
    refused = visit(server).event("refused")
    assert refused["status"] == 503 and "a new one of that name" in refused["body"]["message"]


APPLICATION = f"""
import gi, sys
gi.require_version("Gst", "1.0")
from gi.repository import Gst, GLib
Gst.init(None)
pipeline = Gst.parse_launch("rtcsessionsrc name=s listen={{}} webrtcbin=neighbour eos-policy=never {NEIGHBOUR}".format(sys.argv[1]))
source, loop = pipeline.get_by_name("s"), GLib.MainLoop()

def renew():
    old = pipeline.get_by_name("neighbour")
    pipeline.remove(old)
    old.set_state(Gst.State.NULL)
    new = Gst.parse_launch("{NEIGHBOUR}")
    pipeline.add(new)
    new.sync_state_with_parent()

def on_message(bus, message):
    said = message.get_structure()
    name = said.get_name() if said else ""
    if name.startswith("rtc-"):
        print(said.to_string(), flush=True)
    if name == "rtc-data":
        source.emit("send-data", said.get_string("connection-id"), None, "you said " + said.get_string("text"))
    if name == "rtc-connection-ended":
        renew()
        print("renewed", flush=True)

bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message::element", on_message)
pipeline.set_state(Gst.State.PLAYING)
GLib.unix_signal_add(GLib.PRIORITY_HIGH, 15, loop.quit)
loop.run()
pipeline.set_state(Gst.State.NULL)
"""


def test_application_talks_with_visitors_and_puts_a_new_webrtcbin_for_each(plugin_env, log):
    url = f"http://127.0.0.1:{free_port()}"
    application = Lines(["/usr/bin/python3", "-c", APPLICATION, url], log, env=plugin_env)
    application.parse = lambda line, at: line
    try:
        application.wait(lambda line: line.startswith("rtc-listening"), "the listener")
        for count in (1, 2, 3):
            talk = [sys.executable, HERE / "client_talk.py", url + "/offer", "hello"]
            spoken = subprocess.run(talk, capture_output=True, text=True, timeout=PATIENCE)
            assert spoken.stdout.strip() == "you said hello", spoken
            application.wait(lambda line: line == "renewed", "a new webrtcbin", count=count)
        application.process.send_signal(signal.SIGTERM)
        assert application.exit_code() == 0
    finally:
        application.end()


def test_video_that_goes_back_through_its_own_sink_pad_arrives(behind, visit):
    back = f"""{NEIGHBOUR}
        videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1 ! vp8enc deadline=1
            ! rtpvp8pay ! application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000 ! neighbour.
        neighbour. ! application/x-rtp,media=video ! rtpvp8depay ! fakesink async=false"""
    server = behind(rest=back)
    client = visit(server, "--frames", "30", script="client_talk.py")
    assert client.event("frames")["width"] == 320
    answer = client.event("answer")["sdp"]
    assert "a=sendrecv" in answer
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
    assert server.exit_code() == 0


def test_it_offers_where_it_is_told_to(behind, visit):
    sends = f"""{NEIGHBOUR}
        videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1 ! vp8enc deadline=1
            ! rtpvp8pay ! application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000 ! neighbour."""
    server = behind("offer=true eos-policy=never", rest=sends)
    status, body = offer(server.url, {"type": "offer", "sdp": "v=0"})
    assert status == 422 and "request" in body["message"], body
    client = visit(server, "--frames", "30", "--asks", script="client_talk.py")
    assert client.event("frames")["width"] == 320
    assert client.event("channel")["label"] == "inference"
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"


def test_later_offers_add_a_track(behind, visit):
    server = behind("eos-policy=never", rest=NEIGHBOUR)
    client = visit(server, "--later", script="client_talk.py")
    created = server.message("rtc-connection-created")["connection-id"]
    started = server.message("rtc-stream-started", count=2)
    assert [m["stream-id"] for m in started] == [f"{created}/0", f"{created}/2"]
    client.close()
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
    told_once(server)


# Two offers that webrtcbin 1.22 aborts at, made of one that it takes.
def without_its_own_credentials(lines):
    """The session has them twice, and no m-line has any."""
    kept = [line for line in lines if not line.startswith(("a=ice-ufrag", "a=ice-pwd"))]
    at = next(i for i, line in enumerate(kept) if line.startswith("m="))
    own = ["a=ice-ufrag:user", "a=ice-pwd:twenty-two-characters!"]
    return [*kept[:at], *own, "a=ice-ufrag:resu", "a=ice-pwd:twenty-two-characters?", *kept[at:]]


def with_its_lines_in_another_order(lines):
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")] + [len(lines)]
    sections = [lines[a:b] for a, b in zip(starts, starts[1:])]
    return [*lines[: starts[0]], *(line for section in reversed(sections) for line in section)]


def test_offers_that_abort_a_webrtcbin_do_not_get_there(behind):
    first = an_offer()
    lines = first.splitlines()
    server = behind("eos-policy=never", rest=NEIGHBOUR)
    for (made, again), what in [((without_its_own_credentials, False), "ice-ufrag"), ((with_its_lines_in_another_order, True), "place")]:
        aborting = "\r\n".join(made(lines)) + "\r\n"
        # The webrtcbin by itself, so that it is known what is kept from it.
        given = [first, aborting] if again else [aborting]
        child = subprocess.run(
            ["/usr/bin/python3", HERE / "bare_webrtcbin.py"], input=json.dumps(given), text=True, capture_output=True
        )
        assert child.returncode == -signal.SIGABRT, child
        body = {"sdp": aborting, "type": "offer"}
        if again:
            status, answer = offer(server.url, {"sdp": first, "type": "offer"})
            assert status == 200, answer
            body["pc_id"] = answer["pc_id"]
        status, answer = offer(server.url, body)
        assert status == 400 and what in answer["message"], answer
    assert ask(server.url + "/healthz")[0] == 200
    assert server.process.poll() is None


def test_what_is_half_negotiated_serves_nobody_else(behind):
    """Refused by webrtcbin itself, or left by who asked: a sound offer that differs would make 1.22 abort."""
    first = an_offer()
    lines = first.splitlines()
    at = max(i for i, line in enumerate(lines) if line.startswith("a=fingerprint:"))
    foreign = [*lines[:at], "a=fingerprint:sha-256 " + ":".join(["11"] * 32), *lines[at + 1:]]
    reordered = "\r\n".join(with_its_lines_in_another_order(lines)) + "\r\n"
    server = behind("eos-policy=never setup-timeout=1000", rest=NEIGHBOUR)
    status, answer = offer(server.url, {"sdp": "\r\n".join(foreign) + "\r\n", "type": "offer"})
    assert status == 400 and "fingerprint" in answer["message"], answer
    # Whoever hangs up has been a visitor who does not come.
    with socket.create_connection(("127.0.0.1", server.port)) as hasty:
        body = json.dumps({"sdp": first, "type": "offer"}).encode()
        head = f"POST /offer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        hasty.sendall(head.encode() + body)
        time.sleep(0.1)
    status, answer = offer(server.url, {"sdp": reordered, "type": "offer"})
    assert status == 503, answer
    assert server.message("rtc-connection-ended")["reason"] == "setup-timeout"
    status, answer = offer(server.url, {"sdp": reordered, "type": "offer"})
    assert status == 503 and "a new one of that name" in answer["message"], answer
    server.interrupt()
    assert server.exit_code() == 0


def test_visitor_who_never_comes_ends_the_pipeline(behind):
    server = behind("setup-timeout=1000", rest=NEIGHBOUR)
    assert offer(server.url, {"sdp": an_offer(), "type": "offer"})[0] == 200
    assert server.message("rtc-connection-ended")["reason"] == "setup-timeout"
    assert server.exit_code() == 0


def test_eos_does_not_wait_for_a_visitor_on_the_way_even_with_something_to_send(behind):
    sends = f"""{NEIGHBOUR}
        videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! vp8enc deadline=1 ! rtpvp8pay ! neighbour."""
    server = behind(rest=sends)
    assert offer(server.url, {"sdp": an_offer(), "type": "offer"})[0] == 200
    time.sleep(0.5)
    began = time.monotonic()
    server.interrupt()
    # EOS reaches the source and us; whichever is told first ends it.
    assert server.message("rtc-connection-ended")["reason"] in ("server-shutdown", "source-ended")
    assert time.monotonic() - began < 5 * 0.5
    assert server.exit_code() == 0


def test_visitor_without_a_channel_who_closes_is_known_to(behind, visit):
    server = behind(rest=VIDEO)
    client = visit(server, "--silent", script="client_talk.py")
    server.message("rtc-stream-started")
    began = time.monotonic()
    client.close()
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"
    # Silence alone would take eight seconds.
    assert time.monotonic() - began < 4
    assert server.exit_code() == 0


def test_later_offers_that_a_webrtcbin_cannot_follow_are_refused(behind):
    server = behind("eos-policy=never", rest=NEIGHBOUR)
    first = an_offer()
    status, answer = offer(server.url, {"sdp": first, "type": "offer"})
    assert status == 200
    for changed, what in [
        (re.sub(r"a=ice-ufrag:\w{4}", "a=ice-ufrag:else", first), "restart ICE"),
        (first.replace("a=sendrecv", "a=inactive", 1), "direction"),
    ]:
        time.sleep(1)
        status, refused = offer(server.url, {"sdp": changed, "type": "offer", "pc_id": answer["pc_id"]})
        assert status == 422 and what in refused["message"], refused
    time.sleep(1)
    assert offer(server.url, {"sdp": first, "type": "offer", "pc_id": answer["pc_id"]})[0] == 200


@pytest.mark.parametrize(("line", "said"), [
    ("webrtcbin=nobody", None),
    ("webrtcbin=other fakesink name=other", "the element of that name is a fakesink"),
    ("webrtcbin=neighbour video-chain=identity webrtcbin name=neighbour", "video-chain is for a session without webrtcbin"),
    ("offer=true", "webrtcbin=NAME is needed"),
])
def test_what_cannot_be_is_said(launch, line, said):
    url = f"http://127.0.0.1:{free_port()}"
    server = launch(f"rtcsessionsrc listen={url} {line}")
    if said is None:
        # It may come later; who asks now is told.
        server.message("rtc-listening")
        status, body = offer(url, {"sdp": an_offer(), "type": "offer"})
        assert status == 503 and "nobody" in body["message"], body
    else:
        assert server.exit_code() != 0
        assert said in open(server.log.name, encoding="utf-8").read()


# Prints what is said on the bus. A buffer that comes to an element named "stuck" stays there until standard input ends.
LISTENER = """
import gi, sys
gi.require_version("Gst", "1.0")
from gi.repository import Gst, GLib
Gst.init(None)
pipeline = Gst.parse_launch(sys.argv[1])
stuck, loop = pipeline.get_by_name("stuck"), GLib.MainLoop()
if stuck:
    stuck.connect("handoff", lambda *_: sys.stdin.read())

def on_message(bus, message):
    said = message.get_structure()
    name = said.get_name() if said else ""
    if message.type == Gst.MessageType.EOS:
        print("eos", flush=True)
    elif name.startswith("rtc-"):
        print(said.to_string(), flush=True)

bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message", on_message)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
"""


@pytest.fixture
def listener(plugin_env, log):
    """Starts a pipeline with a session behind a webrtcbin in an application that goes on whatever happens."""
    started = []

    def start(properties, rest):
        port = free_port()
        line = f"rtcsessionsrc name=s listen=http://127.0.0.1:{port} webrtcbin=neighbour {properties} {rest}"
        application = Lines(["/usr/bin/python3", "-c", LISTENER, line], log, env=plugin_env)
        application.parse = lambda line, at: line
        application.url = f"http://127.0.0.1:{port}"
        started.append(application)
        application.wait(lambda line: line.startswith("rtc-listening"), "the listener")
        return application

    yield start
    for application in started:
        application.end()


def test_branch_that_hangs_holds_up_no_end_and_is_told_of_until_it_goes_on(listener, visit):
    stuck = f"""{NEIGHBOUR}
        neighbour. ! application/x-rtp,media=video ! identity name=stuck signal-handoffs=true ! fakesink async=false"""
    server = listener("drain-timeout=200 eos-policy=never", stuck)
    client = visit(server, "--silent", script="client_talk.py")
    server.wait(lambda line: line.startswith("rtc-stream-started"), "a stream")
    client.close()
    server.wait(lambda line: line.startswith("rtc-connection-ended"), "the last word")

    def left_behind():
        return int(re.search(r"(?m)^\w*connections_left_behind (\d+)$", ask(server.url + "/metrics")[1].decode())[1])

    assert left_behind() == 1
    server.process.stdin.close()
    deadline = time.monotonic() + PATIENCE
    while left_behind():
        assert time.monotonic() < deadline, "it is told of for good"
        time.sleep(0.1)


def test_whoever_comes_to_a_spent_webrtcbin_ends_no_pipeline_again(listener):
    server = listener("setup-timeout=500", NEIGHBOUR)
    sound = {"sdp": an_offer(), "type": "offer"}
    assert offer(server.url, sound)[0] == 200
    server.wait(lambda line: line == "eos", "the end")
    status, body = offer(server.url, sound)
    assert status == 503 and "a new one of that name" in body["message"], body
    server.wait(lambda line: line.startswith("rtc-connection-rejected"), "the refusal")
    assert server.said.count("eos") == 1


def test_source_that_has_ended_ends_the_visit_of_whoever_comes_then(behind, visit):
    sends = f"""{NEIGHBOUR}
        videotestsrc num-buffers=1 ! video/x-raw,width=320,height=240 ! vp8enc deadline=1
            ! rtpvp8pay ! application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000 ! neighbour."""
    server = behind(rest=sends)
    visit(server, "--silent", "--watching", script="client_talk.py")
    assert server.message("rtc-connection-ended")["reason"] == "source-ended"
    assert server.exit_code() == 0
