"""What every test here stands on: a network of its own, servers and clients that are always ended, and their words.

The whole run happens in a network namespace with nothing in it but the loopback and 10.99.0.1: nothing can be fetched from
anywhere, and aiortc and browsers, which never use 127.0.0.1, have an address to meet on.
"""

import ctypes
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
ARTIFACTS = ROOT / "artifacts"
PROFILE = os.environ.get("RTCINFERENCE_PROFILE", "debug")
MODEL = "models/shapes.onnx"
# Whatever else is on the machine: the choice of an engine is said on the bus.
CHAIN = f"framemeta ! inferencesink model={MODEL} engine=rten"
BROWSER_FLAGS = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
ADDRESS = "10.99.0.1"  # where everybody meets who does not on the loopback
TURN_USER, TURN_PASSWORD = "ann", "s3cr,t"
TURN_ACCOUNT = "ann:s3cr%2Ct"  # as it is in a URL
PATIENCE = 20  # seconds until a test stops waiting for something that should have come


def pytest_configure(config):
    new_network()
    ARTIFACTS.mkdir(exist_ok=True)


def new_network():
    new_user, new_net = 0x10000000, 0x40000000
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(new_net | (0 if uid == 0 else new_user)) != 0:
        raise pytest.UsageError(f"no network namespace: {os.strerror(ctypes.get_errno())}; run as root")
    if uid != 0:
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    # /sbin is not on everybody's PATH.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Browsers use no address of the loopback, so 10.99.0.1 gets a link that leads nowhere; where the kernel has no such
    # links it goes on the loopback and the browser is told to look there.
    link, peer = "nowhere0", "nowhere1"
    if subprocess.run(["ip", "link", "add", link, "type", "veth", "peer", "name", peer], stderr=subprocess.DEVNULL).returncode:
        link = peer = "lo"
        BROWSER_FLAGS.append("--allow-loopback-in-peer-connection")
    for command in (f"address add {ADDRESS}/32 dev {link}", f"link set {link} up", f"link set {peer} up"):
        subprocess.run(["ip", *command.split()], check=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Lines:
    """What a process said, line by line with the time of each; `wait` finds what matches or waits for it."""

    def __init__(self, args, log, **kwargs):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, cwd=ROOT, **kwargs
        )
        self.said = []
        self.over = False
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            at = time.monotonic()
            self.log.write(line)
            entry = self.parse(line.decode(errors="replace").rstrip("\n"), at)
            if entry is not None:
                with self.news:
                    self.said.append(entry)
                    self.news.notify_all()
        with self.news:
            self.over = True
            self.news.notify_all()

    def wait(self, matches, what, since=0, count=1, timeout=PATIENCE):
        """The first `count` entries from number `since` on that match; fails when they cannot come any more."""
        deadline = time.monotonic() + timeout
        with self.news:
            while True:
                found = [entry for entry in self.said[since:] if matches(entry)]
                if len(found) >= count:
                    return found[:count]
                left = deadline - time.monotonic()
                if self.over or left <= 0:
                    why = f"it ended with {self.process.wait(PATIENCE)}" if self.over else f"none came in {timeout} s"
                    pytest.fail(f"waited for {count} × {what}, saw {len(found)}: {why}; see {self.log.name}")
                self.news.wait(left)

    def exit_code(self, timeout=PATIENCE):
        code = self.process.wait(timeout)
        self.reader.join(timeout)
        return code

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()


class Message:
    """An element message as `gst-launch-1.0 -m` prints it."""

    LINE = re.compile(r'Got message #\d+ from element "([^"]*)" \(([^)]*)\): ([\w.-]+)(.*);$')
    FIELD = re.compile(r', ([\w-]+)=\((\w+)\)("(?:[^"\\]|\\.)*"|[^,;]*)')

    def __init__(self, match, at):
        self.source, self.kind, self.name, fields = match.groups()
        self.at = at
        self.fields = {key: self.value(kind, text) for key, kind, text in self.FIELD.findall(fields)}

    @staticmethod
    def value(kind, text):
        if text.startswith('"'):
            text = re.sub(r"\\([0-7]{3}|.)", lambda m: chr(int(m[1], 8)) if len(m[1]) == 3 else m[1], text[1:-1])
            # Bytes beyond ASCII are written as octal escapes.
            text = text.encode("latin-1", "replace").decode(errors="replace")
        if text.startswith("<"):
            return text  # an array, of whatever kind
        if kind in ("uint", "int", "guint64", "gint64", "uint64", "int64"):
            return int(text)
        if kind == "boolean":
            return text == "true"
        return text

    def __getitem__(self, key):
        return self.fields[key]

    def __repr__(self):
        return f"{self.name}{self.fields}"


class Server(Lines):
    """gst-launch-1.0 with our plugin, and what its bus said."""

    def __init__(self, words, log, *, options=("-m", "-e"), scheme="http", host="127.0.0.1", port=None, inside=(), env=None):
        self.port = port
        self.url = f"{scheme}://{host}:{port}"
        self.warnings = []  # as they are printed: a message of theirs has no text
        super().__init__([*inside, "gst-launch-1.0", *options, *words], log, env=env)

    def parse(self, line, at):
        if line.startswith("WARNING: from element"):
            self.warnings.append(line)
        match = Message.LINE.match(line)
        return Message(match, at) if match else None

    def message(self, name, since=0, count=None, timeout=PATIENCE, **fields):
        """The first message of that name and with these fields, or the first `count` of them."""
        def matches(m):
            return m.name == name and all(m.fields.get(k.replace("_", "-")) == v for k, v in fields.items())
        found = self.wait(matches, f"{name} {fields or ''}", since, count or 1, timeout)
        return found if count else found[0]

    def all(self, name):
        with self.news:
            return [m for m in self.said if m.name == name]

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)


class Client(Lines):
    """client_aiortc.py or another script that tells JSON lines, and what it said."""

    def __init__(self, url, log, *args, script="client_aiortc.py", python=sys.executable, inside=()):
        super().__init__([*inside, str(python), str(HERE / script), url, *args], log)

    def parse(self, line, at):
        return json.loads(line)

    def event(self, name, count=None, timeout=PATIENCE, **fields):
        def matches(e):
            return e["event"] == name and all(e.get(k) == v for k, v in fields.items())
        found = self.wait(matches, name, count=count or 1, timeout=timeout)
        return found if count else found[0]

    def all(self, name):
        with self.news:
            return [e for e in self.said if e["event"] == name]

    def ask(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def close(self):
        """Says good-bye; when it began to is told."""
        self.ask("close")
        return self.event("closing")["at"]

    def kill(self):
        self.process.kill()
        return time.monotonic()


@pytest.fixture(scope="session")
def plugin_env(tmp_path_factory):
    """The environment of a process that knows our plugin, with a registry of this run's own."""
    folder = ROOT / "target" / PROFILE
    assert (folder / "libgstrtcinference.so").exists(), f"no plugin in {folder}; run cargo build"
    env = {
        **os.environ,
        "GST_PLUGIN_PATH": str(folder),
        "GST_REGISTRY": str(tmp_path_factory.mktemp("gst") / "registry.bin"),
        "GST_DEBUG": os.environ.get("GST_DEBUG", "2"),
        "GST_DEBUG_NO_COLOR": "1",
        "G_DEBUG": "fatal-criticals",
        "LC_ALL": "C.UTF-8",  # gst-launch-1.0 translates what it says
    }
    subprocess.run(["gst-inspect-1.0", "rtcsessionsrc"], env=env, check=True, stdout=subprocess.DEVNULL)
    return env


@pytest.fixture
def log(request):
    """Where the processes of this test write what they say."""
    path = ARTIFACTS / "logs" / (re.sub(r"[^\w.-]+", "_", request.node.name) + ".log")
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    return path


@pytest.fixture
def launch(plugin_env, log):
    """Starts gst-launch-1.0 with a description, words as in a shell; everything started is ended with the test."""
    started = []

    def start(description, env={}, **kwargs):
        server = Server(shlex.split(description), log, env={**plugin_env, **env}, **kwargs)
        started.append(server)
        return server

    yield start
    for server in started:
        server.end()


@pytest.fixture
def serve(launch):
    """Starts a server: rtcsessionsrc with these properties and what follows it, listening."""

    def start(properties=f'video-chain="{CHAIN}"', rest="", scheme="http", host="127.0.0.1", **kwargs):
        port = free_port()
        line = f"rtcsessionsrc name=s listen={scheme}://{host}:{port} {properties} {rest}"
        server = launch(line, scheme=scheme, host=host, port=port, **kwargs)
        server.message("rtc-listening")
        return server

    return start


@pytest.fixture
def run(launch):
    """Starts a description as scripts/run does, with its variables at their defaults."""

    def start(name):
        text = (ROOT / "pipelines" / name).read_text()
        values = dict(re.findall(r"^# var (\w+)=(.*)$", text, re.MULTILINE))
        port = free_port()
        values["LISTEN"] = f"http://127.0.0.1:{port}"
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        line = re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], " ".join(lines))
        server = launch(line, port=port)
        server.message("rtc-listening")
        return server

    return start


@pytest.fixture
def visit(log):
    """Starts an aiortc client of a server."""
    started = []

    def start(server, *args, route="/offer", **kwargs):
        client = Client(server.url + route, log, *args, **kwargs)
        started.append(client)
        return client

    yield start
    for client in started:
        client.end()


@pytest.fixture
def coturn(log):
    """Starts coturn; every one is ended with the test."""
    program = shutil.which("turnserver")
    assert program, "no turnserver; run scripts/setup"
    started = []

    def start(port=None):
        port = port or free_port()
        process = subprocess.Popen(
            [program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-multicast-peers", "--log-file", "stdout", "--simple-log"]
            + ["--pidfile", "/dev/null", "-p", str(port), "-L", ADDRESS, "-a", "-r", "test", "-v"]
            + ["-u", f"{TURN_USER}:{TURN_PASSWORD}"],
            stdout=open(log, "ab"), stderr=subprocess.STDOUT, cwd=log.parent,
        )
        process.port = port
        started.append(process)
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.connect((ADDRESS, port))
        probe.settimeout(0.1)
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None and time.monotonic() < deadline, f"coturn does not answer; see {log}"
            try:
                probe.send(b"\0\1\0\0\x21\x12\xa4\x42" + 12 * b"x")  # a binding request
                probe.recv(100)
                break
            except OSError:
                time.sleep(0.05)
        probe.close()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def turn(coturn, account=TURN_ACCOUNT):
    """The property that names it."""
    return f"turn-servers=turn://{account}@{ADDRESS}:{coturn.port}?transport=udp"


def figure(server, sample):
    """A figure of /metrics; 0 while it is not there."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as response:
        found = re.search(rf"^rtcinference_{re.escape(sample)} (\d+)$", response.read().decode(), re.M)
    return int(found[1]) if found else 0
