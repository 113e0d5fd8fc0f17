"""What a client of a Roboflow server costs that sends video and takes what comes back: ours, and Roboflow's `inference_sdk`.

    bench/client [ROUNDS]

The same server, the same 300 pictures of 640×480 at 30 a second, the same outputs; both clients in turn, ROUNDS times (5): first with
pictures that are in memory, then with the same as a recording in VP8, which the SDK's user decodes and ours sends as it is. The
server is ours, a process of its own that is not counted. Prints as JSON: milliseconds of CPU for 1,000 frames that came back, from
the tenth frame back to the last one, so that what each takes to start is left out; and their ratio, median, least and most.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "interop"
sys.path.insert(0, str(TESTS))
sys.path.insert(0, str(ROOT / "bench"))
import scenes  # noqa: E402
from conftest import new_network  # noqa: E402
from sdk import serving  # noqa: E402

FRAMES = 300
# The first ones are left out.
WARM = 10
PATIENCE = 90  # seconds
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cost(command, env, is_frame):
    """Runs a client, and tells milliseconds of CPU for 1,000 frames, and how many came back."""
    client = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    over = threading.Timer(PATIENCE, client.kill)
    over.start()
    frames, first, last = 0, None, None
    for line in client.stdout:
        if is_frame(line):
            frames += 1
            last = cpu_seconds(client.pid)
            if frames == WARM:
                first = last
    client.wait()
    over.cancel()
    if first is None or frames < FRAMES // 2:
        sys.exit(f"only {frames} frames came back: {command}")
    return {"frames": frames, "cpu_ms_per_1000": round((last - first) * 1e6 / (frames - WARM), 1)}


def is_frame(line):
    return '"event": "frame"' in line


def theirs(url, *what):
    command = [ROOT / ".venv-sdk/bin/python", TESTS / "client_sdk.py", url, "--model", "--frames", FRAMES, *what]
    return cost([str(word) for word in command], None, is_frame)


def ours(url, folder, source, *pictures):
    options = "options=roboflow,workspace=any,workflow-id=shapes,stream-output=image,data-output=predictions"
    line = f"""{source} ! rtcsessionsink uri=roboflow+{url} session=call continuity=false {options}
        rtcsessionsrc name=s session=call  s.video_0 ! identity name=back ! fakesink"""
    env = {**os.environ, "GST_PLUGIN_PATH": str(ROOT / "target/release"), "GST_REGISTRY": f"{folder}/registry.bin"}
    return cost(["/usr/bin/python3", str(ROOT / "bench/client_gst.py"), line, *map(str, pictures)], env, is_frame)


def both_of_pictures(url, folder, film):
    source = """appsrc name=film is-live=true do-timestamp=true format=time
        caps=video/x-raw,format=BGR,width=640,height=480,framerate=30/1"""
    return {"sdk": theirs(url), "ours": ours(url, folder, source, film, 640 * 480 * 3, FRAMES)}


def both_of_a_recording(url, folder, recording):
    source = f"filesrc location={recording} ! matroskademux"
    return {"sdk": theirs(url, "--film", recording), "ours": ours(url, folder, source)}


def record(pictures, recording):
    """The same pictures as VP8, as many as are sent."""
    line = f"""fdsrc ! rawvideoparse format=bgr width=640 height=480 framerate=30/1 ! videoconvert
        ! vp8enc deadline=1 target-bitrate=1000000 keyframe-max-dist=60 ! webmmux ! filesink location={recording}"""
    sent = b"".join(pictures) * (FRAMES // scenes.LENGTH)
    subprocess.run(["gst-launch-1.0", "-q", *line.split()], input=sent, check=True, timeout=PATIENCE)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    new_network()
    with tempfile.TemporaryDirectory() as folder:
        film, recording = pathlib.Path(folder) / "film.bgr", pathlib.Path(folder) / "film.webm"
        pictures = [scenes.picture("three", i)[:, :, ::-1].tobytes() for i in range(scenes.LENGTH)]
        film.write_bytes(b"".join(pictures))
        record(pictures, recording)
        server, url = serving(folder)
        try:
            time.sleep(1)
            runs = [
                {
                    "pictures": both_of_pictures(url, folder, film),
                    "recording": both_of_a_recording(url, folder, recording),
                }
                for _ in range(rounds)
            ]
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({"rounds": runs, "ours_over_sdk": {kind: compared(kind, runs) for kind in runs[0]}}, indent=1))


def compared(kind, runs):
    ratios = [run[kind]["ours"]["cpu_ms_per_1000"] / run[kind]["sdk"]["cpu_ms_per_1000"] for run in runs]
    return {"median": round(statistics.median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3)}


if __name__ == "__main__":
    main()
