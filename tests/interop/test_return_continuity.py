"""What rtcsessionsink sends goes on without a gap, as the peer who receives it sees and hears it."""

import json
from itertools import groupby

import pytest

from conftest import HERE, Lines, free_port
from returning import look, loud, mark, pictures, rate, silent, sounds


class Feeder(Lines):
    """feeder.py, and what it said."""

    def parse(self, line, at):
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def event(self, name, since=0, **fields):
        def matches(e):
            return e["event"] == name and all(e.get(k) == v for k, v in fields.items())
        return self.wait(matches, name, since)[0]

    def asked(self, command):
        """Asks, and what came of it."""
        since = mark(self)
        self.ask(command)
        return self.event(command.split()[0], since)


@pytest.fixture
def feed(plugin_env, log):
    """Starts the application, listening."""
    started = []

    def start(*properties):
        url = f"http://127.0.0.1:{free_port()}"
        feeder = Feeder(["/usr/bin/python3", str(HERE / "feeder.py"), url, *properties], log, env=plugin_env)
        started.append(feeder)
        feeder.url = url
        feeder.event("rtc-listening")
        return feeder

    yield start
    for feeder in started:
        feeder.end()


def of_sort(picture):
    return picture["shows"] if isinstance(picture["shows"], str) else "number"


def test_black_frames_repeats_black_frames(feed, visit):
    feeder = feed()
    client = look(visit, feeder, "video:recvonly")
    black = lambda e: e["shows"] == "black"  # noqa: E731
    pictures(client, black, 20, "black before the first frame")
    feeder.ask("video 0 60")
    pictures(client, lambda e: e["shows"] == 59, 1, "the last of the frames")
    since = mark(client)
    pictures(client, black, 20, "black after the repeats", since)
    feeder.ask("video 100 30")
    pictures(client, lambda e: e["shows"] == 129, 10, "frames after black")

    seen = client.all("picture")
    assert [sort for sort, _ in groupby(seen, of_sort)] == ["black", "number", "black", "number"]
    runs = [list(run) for _, run in groupby(seen, of_sort)]
    # One rate through all of it, by the clock on the wall and by RTP.
    assert 28 <= rate(seen) <= 32, f"{rate(seen):.1f} pictures a second"
    ticks = (seen[-1]["came"] - seen[0]["came"]) / (len(seen) - 1)
    assert 90000 / 32 <= ticks <= 90000 / 28
    for run in runs:
        assert max(later["came"] - one["came"] for one, later in zip(run, run[1:])) <= 3 * 3000
    numbers = [e["shows"] for e in runs[1]]
    assert numbers == sorted(numbers) and len(set(numbers)) >= 55
    # The last one stays for two seconds; then it is black at once.
    last = next(e for e in runs[1] if e["shows"] == 59)
    assert abs(runs[2][0]["came"] - last["came"] - 2 * 90000) <= 3 * 3000
    # And a fresh frame ends the black at once.
    assert runs[3][0]["shows"] == 100


def of_level(packet):
    return "tone" if loud(packet["level"]) else "silence" if silent(packet["level"]) else "edge"


def test_silence_tone_nothing_silence_tone(feed, visit):
    feeder = feed()
    client = look(visit, feeder, "audio:recvonly")
    sounds(client, silent, 25, "silence before the first data")
    feeder.ask("tone 1000")
    sounds(client, loud, 40, "the tone")
    since = mark(client)
    sounds(client, silent, 25, "silence after the tone", since)
    feeder.ask("tone 600")
    since = mark(client)
    sounds(client, loud, 20, "the tone again", since)

    packets = client.all("packet")
    order = [sort for sort, _ in groupby(packets, of_level) if sort != "edge"]
    assert order == ["silence", "tone", "silence", "tone"]
    # Nothing for as long as is tolerated where the tone ends, and nowhere else.
    holes = [(a, b) for a, b in zip(packets, packets[1:]) if b["came"] - a["came"] > 960]
    assert len(holes) == 1, [(b["came"] - a["came"]) / 48 for a, b in holes]
    before, after = holes[0]
    # By RTP time the encoder's look ahead, 6.5 ms, is taken off it.
    assert 93 <= (after["came"] - before["came"]) / 48 - 20 <= 120
    assert silent(after["level"])
    # The encoder's last milliseconds of the tone come with the silence, so the wait is before them.
    last = [e for e in packets if loud(e["level"]) and e["at"] < after["at"]][-1]
    waited = min(e["at"] for e in packets if e["at"] > last["at"]) - last["at"]
    assert 0.08 <= waited <= 5 * 0.12, f"{waited:.3f} s without a packet"


def test_a_burst_leaves_in_real_time_and_is_told_to_be_used_up(feed, visit):
    feeder = feed()
    client = look(visit, feeder, "audio:recvonly")
    feeder.event("rtc-ready-for-audio", media="audio")
    sounds(client, silent, 5, "silence before the first data")
    assert not [e for e in feeder.said if e["event"] == "rtc-buffer-drained"]
    feeder.ask("burst 3000")
    sounds(client, loud, 5, "the tone")
    queued = feeder.asked("stats")["audio_0"]["all"]["queued"] / 1e9
    assert 2 < queued < 3
    drained = feeder.event("rtc-buffer-drained", media="audio")
    assert drained["pad"] == "audio_0" and drained["stats"]["queued"] == 0
    sounds(client, silent, 5, "silence after the tone", mark(client))

    tone = [e for e in client.all("packet") if loud(e["level"])]
    assert 145 <= len(tone) <= 150
    assert 2.8 <= tone[-1]["at"] - tone[0]["at"] <= 3.5
    assert tone[-1]["came"] - tone[0]["came"] == (len(tone) - 1) * 960
    # Once: nothing was queued since.
    assert len([e for e in feeder.said if e["event"] == "rtc-buffer-drained" and e["media"] == "audio"]) == 1


# A tenth of a second is the promise; other machines' work may be in between.
SILENT_WITHIN = 5 * 0.1


@pytest.mark.parametrize("action", ["clear", "interrupt"])
def test_what_waits_is_dropped_and_silence_is_heard(feed, visit, action):
    feeder = feed()
    client = look(visit, feeder, "audio:recvonly")
    sounds(client, silent, 5, "silence before the first data")
    for _ in range(2):
        feeder.ask("burst 3000")
        sounds(client, loud, 20, "the tone", mark(client))
        since = mark(client)
        did = feeder.asked(action)
        quiet = sounds(client, silent, 1, "silence", since)[0]
        print(f"{action}: silence after {(quiet['at'] - did['asked']) * 1000:.0f} ms")
        assert quiet["at"] - did["asked"] <= SILENT_WITHIN
        stats = feeder.asked("stats")["audio_0"]["all"]
        assert stats["queued"] == 0 and stats["cleared"] > 48000
        assert not [e for e in sounds(client, lambda level: True, 20, "packets", mark(client)) if loud(e["level"])]
