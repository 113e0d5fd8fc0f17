"""A user's script on Roboflow's `inference_sdk`, as it comes from PyPI; only `api_url` is ours.

    python client_sdk.py http://127.0.0.1:8080 [--workflow ID] [--model] [--stream NAME] [--data NAME] [--every] [--frames N] [--film PATH]
        [--file PATH [--realtime] [--track] | --rtsp URL | --mjpeg URL] [--fps F] [--timeout S] [--parameters JSON] [--reconfigure] [--slow S] [--close-from data|frame]

Sends a scene, or what a film shows, from a ManualSource, or a file, or names a server to pull from, and tells as JSON lines, each with the monotonic time `at`: `started`, `frame` (its pts, size
and whether predictions were paired with it), `data` (what on_data got), `predictions` (what on_data("predictions") got),
`error`, `failed`, `over`. Sends N frames, then closes, unless it was closed before, or told to by a line `close` of standard input.
"""

import argparse
import itertools
import json
import logging
import sys
import threading
import time

import av
import scenes
from inference_sdk import InferenceHTTPClient
from inference_sdk.webrtc import ManualSource, MJPEGSource, RTSPSource, StreamConfig, VideoFileSource


# Handlers are called from several threads.
telling = threading.Lock()


def tell(event, **fields):
    with telling:
        print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


def metadata_of(metadata):
    if metadata is None:
        return None
    fields = ("frame_id", "pts", "time_base", "declared_fps", "measured_fps", "errors")
    said = {name: getattr(metadata, name) for name in fields}
    said["time_base"] = said["time_base"] and float(said["time_base"])
    return {**said, "received_at": metadata.received_at.isoformat()}


def source_of(args):
    if args.rtsp:
        return RTSPSource(args.rtsp)
    if args.mjpeg:
        return MJPEGSource(args.mjpeg)
    if not args.file:
        return ManualSource()
    return VideoFileSource(args.file, use_datachannel_frames=not args.track, realtime_processing=args.realtime)


def session_of(args, source):
    client = InferenceHTTPClient.init(api_url=args.url, api_key=args.key)
    config = StreamConfig(
        stream_output=args.stream,
        data_output=args.data,
        realtime_processing=not args.every,
        turn_server={"iceServers": []},
        workflow_parameters=json.loads(args.parameters),
        processing_timeout=args.timeout,
        declared_fps=args.fps,
    )
    what = {"workflow": args.workflow, "workspace": "ours"} if args.workflow else {"workflow": {"version": "1.0"}}
    if args.model:
        what = {"model_id": "shapes/1", "task_type": "object-detection"}
    return client.webrtc.stream(source=source, config=config, **what)


def scene():
    pictures = [scenes.picture("three", i)[:, :, ::-1].copy() for i in range(scenes.LENGTH)]
    return itertools.cycle(pictures)


def film(path):
    """Decoded one by one, as they are sent."""
    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="bgr24")


def send(args, source, session):
    pictures = film(args.film) if args.film else scene()
    since = time.monotonic()
    try:
        for number, picture in enumerate(itertools.islice(pictures, args.frames)):
            source.send(picture)
            if args.reconfigure and number == args.frames // 2:
                reconfigure(session, {"data_output": ["*"]})
            time.sleep(max(0, since + (number + 1) / 30 - time.monotonic()))
        tell("sent", count=args.frames)
    except RuntimeError:
        pass  # The session is closed.
    if not args.stay:
        session.close()


def reconfigure(session, wish):
    """There is no public way but the channel itself."""
    channels = [c for c in session._pc.sctp._data_channels.values() if c.label == "inference"]
    session._loop.call_soon_threadsafe(channels[0].send, json.dumps(wish))


def main(args):
    logging.basicConfig(level=logging.WARNING)
    source = source_of(args)
    session = session_of(args, source)

    @session.on_frame
    def on_frame(frame, said, metadata=None):
        paired = {"paired": said is not None} if args.model else {}
        tell("frame", size=[frame.shape[1], frame.shape[0]], pts=(metadata or said).pts, **paired)
        time.sleep(args.slow)
        if args.close_from == "frame":
            session.close()

    @session.on_data
    def on_data(data, metadata):
        tell("data", names=sorted(data or {}), metadata=metadata_of(metadata))
        if args.close_from == "data":
            session.close()

    @session.on_data("predictions")
    def on_predictions(predictions, metadata):
        classes = [found["class"] for found in predictions["predictions"]]
        boxes = [[found[side] for side in ("x", "y", "width", "height")] for found in predictions["predictions"]]
        tell("predictions", classes=classes, boxes=boxes, image=predictions["image"], frame_id=metadata.frame_id)

    @session.on_error
    def on_error(errors, metadata):
        tell("error", errors=errors)

    def obey():
        if sys.stdin.readline().strip() == "close":
            session.close()

    threading.Thread(target=obey, daemon=True).start()
    tell("starting")
    try:
        session._ensure_started()
        tell("started")
        if isinstance(source, ManualSource):
            threading.Thread(target=send, args=(args, source, session), daemon=True).start()
        if args.wait:
            session.wait()
        else:
            session.run()
    except Exception as error:
        tell("failed", why=f"{type(error).__name__}: {error}")
    tell("over")
    session.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--key", default="none")
    parser.add_argument("--workflow")
    parser.add_argument("--model", action="store_true", help="pair frames and predictions as model_id does")
    parser.add_argument("--stream", action="append", default=[])
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--every", action="store_true", help="every frame, acknowledged")
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--film", metavar="PATH", help="what is sent, instead of a scene")
    parser.add_argument("--fps", type=float)
    parser.add_argument("--timeout", type=int)
    parser.add_argument("--parameters", default="{}")
    parser.add_argument("--file")
    parser.add_argument("--rtsp", metavar="URL")
    parser.add_argument("--mjpeg", metavar="URL")
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--track", action="store_true", help="the file's frames come back as video")
    parser.add_argument("--reconfigure", action="store_true", help="ask for data in the middle")
    parser.add_argument("--slow", type=float, default=0)
    parser.add_argument("--stay", action="store_true", help="until the server ends it")
    parser.add_argument("--wait", action="store_true", help="session.wait instead of session.run")
    parser.add_argument("--close-from", choices=["data", "frame"])
    main(parser.parse_args())
