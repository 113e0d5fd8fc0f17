"""One command serves the page and says where."""

import os
import signal
import urllib.request

import pytest

from conftest import ROOT, Lines, free_port


class Demo(Lines):
    def parse(self, line, at):
        return line


@pytest.fixture
def demo(plugin_env, log):
    port = free_port()
    env = {**os.environ, "RTCINFERENCE_PROFILE": "debug", "GST_REGISTRY": plugin_env["GST_REGISTRY"]}
    demo = Demo([str(ROOT / "scripts/demo"), f"LISTEN=http://127.0.0.1:{port}"], log, env=env)
    demo.url = f"http://127.0.0.1:{port}/"
    yield demo
    demo.end()


def test_demo_prints_where_the_page_is_and_ends_with_ctrl_c(demo, visit):
    demo.wait(lambda line: line == demo.url, "the address on a line of its own", timeout=600)
    with urllib.request.urlopen(demo.url) as page:
        assert b"<title>rtcinference</title>" in page.read()
    demo.url = demo.url.rstrip("/")
    visit(demo).event("result")
    demo.wait(lambda line: line.startswith("rtc-connection-created,"), "the visitor")
    demo.process.send_signal(signal.SIGINT)
    assert demo.exit_code() == 0
    demo.wait(lambda line: "server-shutdown" in line, "the visitor's end")
