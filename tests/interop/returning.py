"""Words for what client_return.py sees and hears."""

from conftest import PATIENCE


def look(visit, server, *lines, **options):
    """A visitor with those lines, such as "video:sendrecv", who tells what comes back."""
    words = [word for line in lines for word in ("--line", line)]
    words += [word for option, value in options.items() for word in (f"--{option}", value)]
    return visit(server, *words, script="client_return.py")


def pictures(client, test, count=1, what="a picture", since=0, timeout=PATIENCE):
    """So many pictures that pass the test."""
    return client.wait(lambda e: e["event"] == "picture" and test(e), what, since, count, timeout)


def numbered(client, count, since=0):
    """So many pictures with a number."""
    return pictures(client, lambda e: isinstance(e["shows"], int), count, "a numbered picture", since)


def sounds(client, test, count=1, what="a sound", since=0, timeout=PATIENCE):
    """So many packets whose level passes the test."""
    return client.wait(lambda e: e["event"] == "packet" and test(e["level"]), what, since, count, timeout)


def loud(level):
    # The tone is at half scale.
    return -11 < level < -8


def silent(level):
    # What is left of a tone when it ends takes Opus some pieces to forget.
    return level < -45


def rate(events):
    return (len(events) - 1) / (events[-1]["at"] - events[0]["at"])


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def rises(numbers):
    return all(one < other for one, other in zip(numbers, numbers[1:]))


def mark(client):
    """Where in the client's words the present is; for `since`."""
    with client.news:
        return len(client.said)


def same(values, near):
    """Whether they all lie within `near` of each other."""
    return max(values) - min(values) <= near


def check_level(speaker, viewer):
    """Whether the viewer sees when the speaker speaks."""
    for command, wide in ("unmute", True), ("mute", False), ("unmute", True):
        since = mark(viewer)
        speaker.ask(command)
        pictures(viewer, lambda e: (e["light"] > 22) == wide, 10, f"the level after {command}", since)
