"""engine=kserve with the servers it is for: Triton, which takes bytes, and MLServer, which takes JSON."""

import datetime
import ipaddress
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request

import pytest
from conftest import HERE, MODEL, PATIENCE, ROOT, free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PYTHON = ROOT / ".venv-kserve/bin/python"
PACKAGES = ROOT / ".venv-kserve/lib/python3.11/site-packages"
LABELS = ["circle", "square", "triangle", "star", "heart", "cross", "arrow", "crescent"]
SIZE = "video/x-raw,format=I420,width=640,height=480,framerate=30/1"
DEADLINE = 1  # seconds, by default
TRITON_MODEL = f"""
backend: "python"
input [ {{ name: "images" data_type: TYPE_FP32 dims: [ -1, 3, 288, 384 ] }} ]
output [ {{ name: "output0" data_type: TYPE_FP32 dims: [ -1, 12, 2160 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "file" value {{ string_value: "{ROOT / MODEL}" }} }}
"""


class InferenceServer:
    """A process that serves the model "shapes", and can be stopped and started again at the same place."""

    def __init__(self, command, port, log, env={}):
        self.command, self.port, self.log, self.env = command, port, log, env
        self.url = f"http://127.0.0.1:{port}"
        self.process = None

    def start(self, headers={}):
        # A group of its own: Triton runs the model in a child.
        self.process = subprocess.Popen(
            self.command, env={**os.environ, **self.env}, cwd=HERE, stdin=subprocess.DEVNULL, stdout=open(self.log, "ab"),
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        request = urllib.request.Request(f"{self.url}/v2/models/shapes/ready", headers=headers)
        deadline = time.monotonic() + 3 * PATIENCE
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, f"no inference server; see {self.log}"
            try:
                urllib.request.urlopen(request, timeout=5).close()
                return self
            except OSError:
                time.sleep(0.1)

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def triton(log, tmp_path):
    """Starts Triton with the model; with a token it lets in only who shows it."""
    started = []

    def start(token=None):
        own = PACKAGES / "pytriton/tritonserver"
        backend = tmp_path / "backends/python"
        model = tmp_path / "models/shapes"
        if not backend.exists():
            backend.mkdir(parents=True)
            for part in [*(own / "backends/python").glob("*.*"), own / "python_backend_stubs/3.11/triton_python_backend_stub"]:
                (backend / part.name).symlink_to(part)
            (model / "1").mkdir(parents=True)
            (model / "config.pbtxt").write_text(TRITON_MODEL)
            (model / "1/model.py").symlink_to(HERE / "server_triton.py")
        port = free_port()
        command = [
            own / "bin/tritonserver", f"--model-repository={model.parent}", f"--backend-directory={backend.parent}",
            "--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false",
        ]
        if token:
            apis = "health,metadata,inference,model-repository"
            command.append(f"--http-restricted-api={apis}:authorization=Bearer {token}")
        env = {
            "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(PACKAGES),
            "LD_LIBRARY_PATH": str(PACKAGES / "nvidia_pytriton.libs"),
        }
        server = InferenceServer(command, port, log, env)
        started.append(server)
        return server.start({"Authorization": f"Bearer {token}"} if token else {})

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def mlserver(log, tmp_path):
    port = free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    shape = [-1, 3, 288, 384]
    model = {
        "name": "shapes",
        "implementation": "server_mlserver.Shapes",
        "inputs": [{"name": "images", "datatype": "FP32", "shape": shape}],
        "outputs": [{"name": "output0", "datatype": "FP32", "shape": [-1, 12, 2160]}],
        "parameters": {"uri": str(ROOT / MODEL), "version": "v1"},
    }
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
    (tmp_path / "model-settings.json").write_text(json.dumps(model))
    command = [PYTHON.parent / "mlserver", "start", tmp_path]
    server = InferenceServer(command, port, log, {"PYTHONPATH": str(HERE)}).start()
    yield server
    server.kill()


@pytest.fixture
def remote(tmp_path):
    """The properties of an element that has the model of that server."""
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    return lambda url, rest="", model="shapes": f"engine=kserve model={model} server-uris={url} labels={labels} {rest}"


def results(launch, properties, frames=30):
    """What is said of each frame of a bouncing ball, and the last accounts."""
    pipeline = launch(
        f"videotestsrc pattern=ball num-buffers={frames} ! {SIZE} ! framemeta ! inferencesink when-busy=wait {properties}"
    )
    assert pipeline.exit_code(3 * PATIENCE) == 0
    stats = check_accounts(pipeline)
    assert (stats["inferred"], stats["pending"]) == (frames, 0)
    said = [json.loads(m["json"]) for m in pipeline.all("inference-result")]
    assert len(said) == frames
    return {result["video_metadata"]["frame_id"]: result for result in said}, stats


def check_accounts(pipeline):
    """The last statistics; in all of them each frame is somewhere."""
    every = pipeline.all("inference-stats")
    for stats in every:
        where = ["inferred", "dropped", "failed", "pending"]
        assert stats["received"] == sum(stats[key] for key in where), stats
        assert stats["pending"] <= 2, stats
    return every[-1]


def boxes(result):
    return result["serialized_output_data"]["predictions"]["predictions"]


def same_boxes(one, other):
    assert one.keys() == other.keys()
    for frame in one:
        assert len(boxes(one[frame])) == len(boxes(other[frame])) > 0
        for a, b in zip(boxes(one[frame]), boxes(other[frame])):
            assert a["class"] == b["class"]
            assert all(abs(a[side] - b[side]) < 1 for side in ("x", "y", "width", "height")), (a, b)
            assert abs(a["confidence"] - b["confidence"]) < 1e-3


def test_triton_finds_what_the_embedded_engine_finds(launch, triton, remote):
    server = triton()
    found, stats = results(launch, remote(server.url))
    here, _ = results(launch, f"engine=rten model={MODEL}")
    same_boxes(found, here)
    named = {"name": "shapes", "hash": "kserve:shapes/1", "engine": "kserve", "device": f"127.0.0.1:{server.port}"}
    assert all(result["model"] == named for result in found.values())
    assert (stats["engine"], stats["device"]) == ("kserve", f"127.0.0.1:{server.port}")
    versioned, _ = results(launch, remote(server.url, model="shapes/1"), frames=2)
    assert all(result["model"] == named for result in versioned.values())


def test_mlserver_finds_what_the_embedded_engine_finds(launch, mlserver, remote):
    found, _ = results(launch, remote(mlserver.url), frames=5)
    here, _ = results(launch, f"engine=rten model={MODEL}", frames=5)
    same_boxes(found, here)
    assert all(result["model"]["hash"] == "kserve:shapes" for result in found.values())


def live(launch, properties):
    """Frames at the pace of a camera, until it is interrupted."""
    return launch(
        f"videotestsrc is-live=true pattern=ball ! {SIZE} ! framemeta ! inferencesink {properties} stats-interval=200"
    )


def wait_for(pipeline, key, count):
    """The first statistics with so many of these."""
    found = pipeline.wait(
        lambda m: m.name == "inference-stats" and m[key] >= count, f"{key} >= {count}", timeout=3 * PATIENCE
    )
    return found[0]


def memory(pipeline):
    """Of the process, in bytes."""
    status = pathlib.Path(f"/proc/{pipeline.process.pid}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def end(pipeline):
    """EOS, which waits for the frames that were taken in; the last accounts."""
    pipeline.interrupt()
    assert pipeline.exit_code(3 * DEADLINE + PATIENCE) == 0
    stats = check_accounts(pipeline)
    assert stats["pending"] == 0
    told = pipeline.all("inference-result")
    failed = [m for m in told if json.loads(m["json"])["errors"]]
    assert (len(told) - len(failed), len(failed)) == (stats["inferred"], stats["failed"])
    return stats, [json.loads(m["json"])["errors"] for m in failed]


def test_frames_go_on_when_the_server_was_restarted(launch, triton, remote):
    server = triton()
    pipeline = live(launch, remote(server.url))
    before = wait_for(pipeline, "inferred", 30)
    held = memory(pipeline)
    server.kill()
    wait_for(pipeline, "failed", before["failed"] + 1)
    server.start()
    down = pipeline.all("inference-stats")[-1]
    wait_for(pipeline, "inferred", down["inferred"] + 30)
    assert memory(pipeline) < held + (32 << 20)
    stats, failures = end(pipeline)
    assert 1 <= stats["failed"] <= 10
    assert all(server.url in failure for errors in failures for failure in errors), failures


def test_a_server_that_has_gone_silent_fails_each_frame_in_time_and_lets_the_stream_end(launch, triton, remote):
    server = triton()
    pipeline = live(launch, remote(server.url))
    wait_for(pipeline, "inferred", 30)
    held = memory(pipeline)
    server.signal(signal.SIGSTOP)
    wait_for(pipeline, "failed", 2)
    assert memory(pipeline) < held + (32 << 20)
    stats, failures = end(pipeline)
    assert stats["failed"] >= 2 and stats["dropped-busy"] > 0
    assert {failure for errors in failures for failure in errors} == {f"inference failed: {server.url}: no answer in time"}
    times = [json.loads(m["json"]) for m in pipeline.all("inference-result")]
    took = [t["timing_us"]["total"] / 1e6 for t in times if t["errors"]]
    assert all(DEADLINE - 0.1 < seconds < 5 * DEADLINE for seconds in took), took


def test_another_server_has_the_frames_of_one_that_is_gone(launch, triton, remote):
    one, other = triton(), triton()
    pipeline = live(launch, remote(f"{one.url},{other.url}"))
    wait_for(pipeline, "inferred", 30)
    one.kill()
    gone = pipeline.all("inference-stats")[-1]
    wait_for(pipeline, "inferred", gone["inferred"] + 60)
    stats, _ = end(pipeline)
    assert stats["failed"] == 0


def refusal(plugin_env, properties):
    """What an element says that cannot get its model."""
    done = subprocess.run(
        ["gst-launch-1.0", "-v", *f"videotestsrc ! {SIZE} ! inferencesink {properties}".split()],
        env={**plugin_env, "GST_DEBUG": "2,kserve:6,inferencesink:6"}, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE,
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: from element")]
    assert len(lines) == 1, done.stderr[-2000:]
    return lines[0], done.stdout + done.stderr


def test_what_is_wrong_is_named(plugin_env, triton, remote):
    server = triton(token="s3cret")
    nobody = f"http://127.0.0.1:{free_port()}"
    right = "server-token=s3cret"

    error, _ = refusal(plugin_env, remote(nobody))
    assert f"no server at {nobody}: " in error and "server-uris" in error
    error, _ = refusal(plugin_env, remote(server.url, right, model="forms/3"))
    assert f"{server.url} has no model \"forms/3\": HTTP 404: " in error and "; it has shapes/1" in error
    error, _ = refusal(plugin_env, remote(server.url, right, model=MODEL))
    assert "has no model" in error
    error, _ = refusal(plugin_env, remote(server.url, right, model="a/b/c"))
    assert "NAME or NAME/VERSION is right" in error
    error, _ = refusal(plugin_env, remote(server.url, right + " device=cuda:0"))
    assert "device cuda:0 cannot be had: engine kserve runs on what the server chooses" in error
    error, said = refusal(plugin_env, remote("http://ann:s3cret@127.0.0.1:8000"))
    assert "server-uris" in error and "s3cret" not in error
    for token in ("", "server-token=wr0ng"):
        error, said = refusal(plugin_env, remote(server.url, token))
        assert f"{server.url} does not let us in: HTTP 403: " in error and "server-token" in error
        assert "wr0ng" not in said


def test_who_has_the_token_comes_in(launch, triton, remote):
    results(launch, remote(triton(token="s3cret").url, "server-token=s3cret"), frames=2)


class TlsRelay:
    """https in front of a server that has none of its own."""

    def __init__(self, server, folder):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        self.ca_file, key_file = folder / "ca.pem", folder / "key.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ))
        self.server = server
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.ca_file, key_file)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "https://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.relay, args=[stream], daemon=True).start()

    def relay(self, stream):
        try:
            near = self.context.wrap_socket(stream, server_side=True)
        except OSError:
            return
        far = socket.create_connection(("127.0.0.1", self.server.port))
        threading.Thread(target=self.copy, args=[far, near], daemon=True).start()
        self.copy(near, far)

    @staticmethod
    def copy(source, sink):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_with_https_whom_the_file_names_is_trusted_and_nobody_else(plugin_env, launch, triton, remote, tmp_path):
    relay = TlsRelay(triton(), tmp_path)
    try:
        found, _ = results(launch, remote(relay.url, f"server-ca-file={relay.ca_file}"), frames=5)
        assert all(result["model"]["device"] == relay.url.removeprefix("https://") for result in found.values())

        other = "/etc/ssl/certs/ca-certificates.crt"
        for ca_file in ("", f"server-ca-file={other}"):
            error, _ = refusal(plugin_env, remote(relay.url, ca_file))
            assert f"no server at {relay.url}: no TLS: its certificate is not trusted" in error
            assert "server-ca-file" in error
        error, _ = refusal(plugin_env, remote(relay.url, "server-ca-file=/nowhere/ca.pem"))
        assert "server-ca-file /nowhere/ca.pem: No such file" in error
    finally:
        relay.listener.close()
