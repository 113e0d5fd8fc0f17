"""What the elements find is what Python's ONNX Runtime finds, with the steps before and after it written here in numpy.

Everything that such programs write themselves and elements bring along is done twice: YUV to RGB, resizing, padding,
normalising, the layout of the input, and what the outputs mean. tests/data/reference/make.py made the models.
"""

import functools
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from conftest import ROOT

MODELS = ROOT / "tests/data/reference"
RUNTIME = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
# Neither is a multiple of what rows or chroma are rounded up to.
WIDTH, HEIGHT = 101, 76
FORMATS = "i420", "nv12", "rgb", "bgr", "rgba", "bgra"
FITS = "letterbox", "stretch"
# Of each format and each way to resize: more than 100 frames a decoder.
FRAMES = 9
THRESHOLD, OVERLAP = 0.62, 0.2
# One box in so many may be of another class: where two are equally likely, a rounding decides.
UNDECIDED = 200
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# Frames


def picture(random):
    """Height × width × RGB: a slope of colours with discs and rectangles on it, and the noise of a camera."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    corner, down, across = random.uniform(0, 255, (3, 3))
    share = np.stack([y / HEIGHT, x / WIDTH], -1)
    image = corner + share[..., :1] * (down - corner) + share[..., 1:] * (across - corner)
    for _ in range(12):
        top, left = random.uniform(-10, HEIGHT), random.uniform(-10, WIDTH)
        size, colour = random.uniform(8, 40), random.choice([0, 40, 128, 220, 255], 3)
        if random.random() < 0.5:
            inside = (y - top) ** 2 + (x - left) ** 2 < (size / 2) ** 2
        else:
            inside = (y > top) & (y < top + size) & (x > left) & (x < left + size)
        image[inside] = colour
    image += random.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).round().astype(np.uint8)


def padded(rows):
    """As GStreamer lays rows out by default: each begins at a multiple of four bytes."""
    rows = rows.reshape(rows.shape[0], -1)
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()


def written(rgb, form):
    """The bytes of a picture in a format, and the picture that is in them: what the format loses is lost to both sides."""
    if form in ("i420", "nv12"):
        return yuv(rgb, form)
    packed = rgb if form.startswith("rgb") else rgb[..., ::-1]
    if form.endswith("a"):
        alpha = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
        packed = np.concatenate([packed, alpha], -1)
    return padded(packed), rgb


def yuv(rgb, form):
    """BT.601, 16 to 235, chroma halved both ways."""
    red, green, blue = np.moveaxis(rgb / 255, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    even = ((0, HEIGHT % 2), (0, WIDTH % 2))
    planes = [16 + 219 * luma]
    for chroma in (blue - luma) / 1.772, (red - luma) / 1.402:
        chroma = np.pad(chroma, even, "edge")
        planes.append(128 + 224 * (chroma[::2, ::2] + chroma[1::2, ::2] + chroma[::2, 1::2] + chroma[1::2, 1::2]) / 4)
    y, u, v = (np.clip(plane, 0, 255).round().astype(np.uint8) for plane in planes)
    chroma = padded(u) + padded(v) if form == "i420" else padded(np.stack([u, v], -1))
    luma = (y.astype(float) - 16) / 219
    u, v = ((plane.repeat(2, 0).repeat(2, 1)[:HEIGHT, :WIDTH] - 128.0) / 224 for plane in (u, v))
    red, blue = luma + 1.402 * v, luma + 1.772 * u
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    back = np.clip(np.stack([red, green, blue], -1) * 255, 0, 255)
    return padded(y) + chroma, np.floor(back + 0.5).astype(np.uint8)


# Before the model


def resized(image, width, height):
    """Bilinear with half-pixel centres; where it shrinks, over as many pixels as become one. In bytes, rows first."""
    for axis, size in (1, width), (0, height):
        weights = bilinear(image.shape[axis], size)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
        image = np.floor(np.clip(image, 0, 255) + 0.5)
    return image


@functools.cache
def bilinear(before, after):
    """A row of weights for each pixel after, of all those before."""
    scale = before / after
    reach = max(scale, 1)
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before)[None] + 0.5 - centres[:, None]) / reach
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


def placed(image, width, height, fit):
    """The picture in the input, and what takes x and y of the input back to the picture: times this, plus that."""
    if fit == "stretch":
        scale = np.array([WIDTH / width, HEIGHT / height])
        return resized(image, width, height), scale, np.zeros(2)
    scale = min(width / WIDTH, height / HEIGHT)
    across, down = int(WIDTH * scale + 0.5), int(HEIGHT * scale + 0.5)
    left, top = (width - across) // 2, (height - down) // 2
    whole = np.full((height, width, 3), 114.0)
    whole[top : top + down, left : left + across] = resized(image, across, down)
    back = np.array([WIDTH / across, HEIGHT / down])
    return whole, back, -back * [left, top]


# After the model. Each gives boxes left, top, right, bottom in pixels of the input, scores and classes.


def around(boxes, width=1, height=1):
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1) * [width, height, width, height]


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def best(boxes, scores):
    classes = scores.argmax(1)
    return boxes, scores[np.arange(len(scores)), classes], classes


def yolov8(outputs, size):
    rows = outputs["output0"][0].T
    return best(around(rows[:, :4]), rows[:, 4:])


def yolov5(outputs, size):
    rows = outputs["output0"][0]
    return best(around(rows[:, :4]), rows[:, 5:] * rows[:, 4:5])


def end2end(outputs, size):
    rows = outputs["output0"][0]
    return rows[:, :4], rows[:, 4], rows[:, 5].astype(int)


def ssd(outputs, size):
    meant = int(outputs["num_detections:0"][0])
    boxes, scores, classes = (outputs[f"detection_{what}:0"][0][:meant] for what in ("boxes", "scores", "classes"))
    return boxes[:, [1, 0, 3, 2]] * (2 * list(size)), scores, classes.astype(int)


def torchvision(outputs, size):
    return outputs["boxes"], outputs["scores"], outputs["labels"]


def detr(outputs, size):
    logits = outputs["logits"][0]
    likely = np.exp(logits - logits.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    return best(around(outputs["pred_boxes"][0], *size), likely[:, :-1])


def rtdetr(outputs, size):
    scores = sigmoid(outputs["logits"][0])
    query, classes = np.indices(scores.shape).reshape(2, -1)
    return around(outputs["pred_boxes"][0], *size)[query], scores.ravel(), classes


def rtdetr_ultralytics(outputs, size):
    rows = outputs["output0"][0]
    return best(around(rows[:, :4], *size), rows[:, 4:])


def classification(outputs, size):
    likely = np.exp(outputs["logits"][0])
    likely /= likely.sum()
    five = np.argsort(-likely)[:5]
    return np.tile([0, 0, *size], (5, 1)), likely[five], five


def overlap(box, others):
    """Intersection over union."""
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(shared, 0, None).prod(1)
    area = (others[:, 2:] - others[:, :2]).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + area - shared)


# Each decoder with a model of it

CASES = {
    # Size of the input, how it is filled, what the element is told, and how far off a score may be.
    "yolov8": dict(size=(96, 64), read=yolov8, merge=True),
    "yolov5": dict(size=(64, 64), read=yolov5, merge=True, kind=np.float16, engine="onnxruntime", threshold=0.3, slack=1e-2),
    "end2end": dict(size=(96, 96), read=end2end, frames=2),
    "ssd": dict(size=(96, 64), read=ssd, kind=np.uint8, engine="onnxruntime", last=True, told="input-size=96x64"),
    "torchvision": dict(size=(96, 64), read=torchvision, mean=MEAN, std=STD, told="mean={mean} std={std}"),
    "detr": dict(
        size=(96, 64), read=detr, mean=MEAN, std=STD, told="mean={mean} std={std}", engine="onnxruntime", threshold=0.28
    ),
    "rtdetr": dict(size=(160, 128), read=rtdetr, threshold=0.7),
    "rtdetr_ultralytics": dict(size=(96, 96), read=rtdetr_ultralytics),
    "classification": dict(
        size=(64, 64), read=classification, mean=(0.5,) * 3, std=(0.5,) * 3, blue_first=True,
        told="channel-order=bgr", threshold=0.14,
    ),
}


class Reference:
    """Python's ONNX Runtime and what belongs around it."""

    def __init__(self, name, size, read, merge=False, kind=np.float32, frames=1, last=False, mean=(0,) * 3, std=(1,) * 3,
                 blue_first=False, threshold=THRESHOLD, told="", engine="rten", slack=1e-3):
        self.path = MODELS / f"{name}.onnx"
        self.session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        self.size, self.read, self.merge, self.kind, self.frames, self.last = size, read, merge, kind, frames, last
        self.mean, self.std, self.blue_first = mean, std, blue_first
        self.threshold, self.engine, self.slack = threshold, engine, slack
        self.told = told.format(mean=",".join(map(str, mean)), std=",".join(map(str, std)))

    def find(self, image, fit):
        """What may be found: boxes in pixels of the picture and of the input, scores, classes, and which are to be seen."""
        whole, scale, shift = placed(image, *self.size, fit)
        if self.kind != np.uint8:
            whole = (whole / 255 - self.mean) / self.std
        whole = whole[..., ::-1] if self.blue_first else whole
        whole = whole if self.last else np.moveaxis(whole, -1, 0)
        batch = np.zeros((self.frames, *whole.shape), self.kind)
        batch[0] = whole
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, {self.session.get_inputs()[0].name: batch})))
        outputs = {name: value.astype(np.float64) for name, value in outputs.items()}
        boxes, scores, classes = self.read(outputs, self.size)
        # Those below by a rounding may be found.
        likely = scores >= self.threshold - self.slack
        inputs, scores, classes = boxes[likely], scores[likely], classes[likely].astype(int)
        boxes = np.clip(inputs * np.tile(scale, 2) + np.tile(shift, 2), 0, [WIDTH, HEIGHT] * 2)
        return boxes, inputs, scores, classes, (boxes[:, 2:] > boxes[:, :2]).all(1)

    def differences(self, ours, theirs):
        """The largest of boxes and of scores, between those that belong together; and how many there ought not to be, or
        are missing."""
        boxes, inputs, scores, classes, seen = theirs
        free, off, aside, wrong = seen.copy(), [0], [0], 0
        for box, score, kind in zip(*ours):
            distance = np.abs(boxes - box).max(1) + np.abs(scores - score)
            distance[~free | (classes != kind)] = np.inf
            nearest = distance.argmin() if len(distance) else None
            if nearest is None or distance[nearest] > 2:
                wrong += 1
                continue
            free[nearest] = False
            off.append(np.abs(boxes[nearest] - box).max())
            aside.append(abs(scores[nearest] - score))
        kept = seen & ~free
        for i in np.flatnonzero(free & (scores > self.threshold + self.slack)):
            # Merging leaves those, and none but those, that overlap with no better one of their class.
            better = (kept | ~seen) & (classes == classes[i]) & (scores > scores[i] - 2 * self.slack)
            wrong += not (self.merge and (overlap(inputs[i], inputs[better]) > OVERLAP - 0.01).any())
        if self.merge:
            for i in np.flatnonzero(kept):
                others = kept & (classes == classes[i]) & (np.arange(len(kept)) > i)
                wrong += (overlap(inputs[i], inputs[others]) > OVERLAP + 0.01).sum()
        return max(off), max(aside), wrong


def found(result):
    """Boxes, scores and classes of what an element said."""
    output = result["serialized_output_data"]["predictions"]["predictions"]
    numbers = [[p[key] for key in ("x", "y", "width", "height", "confidence", "class_id")] for p in output]
    numbers = np.array(numbers, float).reshape(-1, 6)
    return around(numbers[:, :4]), numbers[:, 4], numbers[:, 5].astype(int)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """For each format the file of its frames, and the pictures that are in it."""
    random = np.random.default_rng(20)
    folder = tmp_path_factory.mktemp("frames")
    made = {}
    for form in FORMATS:
        pairs = [written(picture(random), form) for _ in range(FRAMES)]
        path = folder / f"{form}.raw"
        path.write_bytes(b"".join(pair[0] for pair in pairs))
        made[form] = path, [pair[1] for pair in pairs]
    return made


@pytest.mark.parametrize("name", CASES)
def test_the_elements_find_what_numpy_and_onnxruntime_find(name, frames, launch):
    reference = Reference(name, **CASES[name])
    expected = {
        (form, fit): [reference.find(image, fit) for image in images]
        for form, (_, images) in frames.items()
        for fit in FITS
    }
    branches = [
        f"filesrc location={path} ! rawvideoparse format={form} width={WIDTH} height={HEIGHT} framerate=30/1 "
        f"! inferencesink name={form}_{fit} when-busy=wait model={reference.path} engine={reference.engine} "
        f"runtime-library={RUNTIME} resize={fit} threshold={reference.threshold} iou-threshold={OVERLAP} {reference.told}"
        for form, (path, _) in frames.items()
        for fit in FITS
    ]
    server = launch(" ".join(branches))
    assert server.exit_code(60) == 0
    results = defaultdict(list)
    for message in server.all("inference-result"):
        results[message.source].append(json.loads(message["json"]))
    worst, boxes, wrong = {}, 0, 0
    for key, each in expected.items():
        ours = results["_".join(key)]
        assert len(ours) == FRAMES
        assert {result["model"]["engine"] for result in ours} == {reference.engine}
        ours = [found(our) for our in ours]
        figures = [reference.differences(our, their) for our, their in zip(ours, each)]
        off, aside, lone = zip(*figures)
        worst[key] = max(off), max(aside)
        boxes += sum(len(scores) for _, scores, _ in ours)
        wrong += sum(lone)
    print(f"{name}: {boxes} boxes, {wrong} otherwise;", {key: [f"{value:.5f}" for value in worst[key]] for key in worst})
    # A test of nothing would pass.
    assert boxes >= 300
    assert all(off <= 1 for off, _ in worst.values()), worst
    assert all(score <= reference.slack for _, score in worst.values()), worst
    assert wrong <= boxes / UNDECIDED
