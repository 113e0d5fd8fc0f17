"""Words for what client_return.py sees and hears."""

from conftest import PATIENCE


def look(visit, server, *lines, codec=None, route="/offer"):
    """A visitor with those lines, such as "video:sendrecv", who tells what comes back."""
    words = [word for line in lines for word in ("--line", line)]
    return visit(server, *words, *(["--codec", codec] if codec else []), script="client_return.py", route=route)


def numbered(client, count, timeout=PATIENCE, since=0):
    """So many pictures with a number."""
    return client.wait(
        lambda e: e["event"] == "picture" and isinstance(e["shows"], int), "a numbered picture", since, count, timeout
    )


def sounds(client, test, count=1, what="a sound", since=0, timeout=PATIENCE):
    """So many packets whose level passes the test."""
    return client.wait(lambda e: e["event"] == "packet" and test(e["level"]), what, since, count, timeout)


def loud(level):
    # The tone is at half scale.
    return -11 < level < -8


def silent(level):
    return level < -60


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
