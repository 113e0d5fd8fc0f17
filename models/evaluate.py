"""Measures a detector on scenes it was not trained on, on drawings and on a moving ball.

    python evaluate.py                                       headline figure, then the other kinds
    python evaluate.py --strokes ../tests/data/strokes.json  simulated drawings
"""

import argparse
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw

from scenes import CLASSES, letterbox, round_line, scene

SEED = 500_000  # training draws its scenes from seeds of a million up
FLOOR = 0.01  # detections below count for nothing
SHARED = 0.5  # IoU of a hit, and of two boxes of which suppression drops one


class Detector:
    def __init__(self, path):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]
        self.height, self.width = self.input.shape[2:]

    def __call__(self, frame, floor=FLOOR):
        """Returns (boxes [n, 4] corners in frame pixels, labels [n], scores [n]), best first."""
        image, scale, left, top = letterbox(frame, self.width, self.height)
        tensor = image.astype(np.float32).transpose(2, 0, 1)[None] / 255
        rows = self.session.run(None, {self.input.name: tensor})[0][0].T
        labels, scores = rows[:, 4:].argmax(1), rows[:, 4:].max(1)
        order = np.flatnonzero(scores >= floor)
        order = order[np.argsort(-scores[order], kind="stable")]
        centre, side = rows[order, :2], rows[order, 2:4]
        boxes = (np.concatenate([centre - side / 2, centre + side / 2], 1) - [left, top, left, top]) / scale
        h, w = frame.shape[:2]
        boxes = np.clip(boxes, 0, [w, h, w, h])
        kept = suppress(boxes, labels[order])
        return boxes[kept], labels[order][kept], scores[order][kept]


def suppress(boxes, labels):
    """Indices of the boxes, given best first, that no better one of their class covers."""
    kept = []
    left = np.arange(len(boxes))
    while len(left):
        kept.append(left[0])
        covered = (iou(boxes[left[0]], boxes[left]) > SHARED) & (labels[left] == labels[left[0]])
        covered[0] = True
        left = left[~covered]
    return np.array(kept, int)


def iou(box, boxes):
    side = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = side.clip(0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + area - shared + 1e-9)


def held_out(kind, count, seed=SEED):
    return (scene(seed + i, kind) for i in range(count))


def mean_ap(detector, scenes, sure=0.4):
    """All-point AP of each class, and recall by size of the shape at confidence `sure`.

    Returns (mean, {class: AP}, {size range: (found, drawn)}, false detections at `sure` in all).
    """
    found = [[] for _ in CLASSES]
    drawn = np.zeros(len(CLASSES), int)
    sizes, wrong = {}, 0
    for frame, truth, truth_labels in scenes:
        boxes, labels, scores = detector(frame)
        free = np.ones(len(truth), bool)
        seen = np.zeros(len(truth), bool)
        for box, label, score in zip(boxes, labels, scores):
            fits = iou(box, truth) * free * (truth_labels == label) if len(truth) else np.zeros(1)
            best = fits.argmax()
            hit = fits[best] >= SHARED
            if hit:
                free[best], seen[best] = False, score >= sure
            found[label].append((score, hit))
            wrong += bool(score >= sure and not hit)
        np.add.at(drawn, truth_labels, 1)
        for box, ok in zip(truth, seen):
            side = max(box[2:] - box[:2])
            name = next(f"to {limit} px" for limit in (36, 60, 120, 999) if side <= limit)
            hits, total = sizes.get(name, (0, 0))
            sizes[name] = hits + bool(ok), total + 1
    each = {name: area(f, n) for name, f, n in zip(CLASSES, found, drawn) if n}
    return float(np.mean(list(each.values()))) if each else math.nan, each, sizes, wrong


def limit_of(size):
    return int(size[0].split()[1])


def area(found, drawn):
    """Area under precision over recall, precision made never to rise with recall."""
    if not found:
        return 0.0
    hits = np.array([hit for _, hit in sorted(found, key=lambda f: -f[0])], float)
    recall = np.concatenate([[0], hits.cumsum() / drawn])
    precision = np.maximum.accumulate((hits.cumsum() / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((np.diff(recall) * precision).sum())


def moving_balls(count):
    """White discs of radius 20 on black at both stream sizes, clean and recompressed."""
    for i in range(count):
        w, h = ((320, 240), (640, 480))[i % 2]
        x = w / 2 + (w / 2 - 21) * math.sin(i * 0.13)
        y = h / 2 + (h / 2 - 21) * math.sin(i * 0.17 + 1)
        far = np.hypot(np.arange(w) + 0.5 - x, np.arange(h)[:, None] + 0.5 - y)
        frame = np.clip((20.5 - far) * 255, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
        if i % 4 >= 2:
            packed = io.BytesIO()
            Image.fromarray(frame).save(packed, "JPEG", quality=20 + i % 60, subsampling=2)
            frame = np.asarray(Image.open(packed).convert("RGB"))
        yield frame, np.array([x - 20, y - 20, x + 20, y + 20])


def drawing(record, canvas):
    """Renders one record of the strokes file; returns (frame, tight box of the ink)."""
    w, h, factor = canvas["width"], canvas["height"], 3
    image = Image.new("RGB", (w * factor, h * factor), canvas["background"])
    pen = ImageDraw.Draw(image)
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for stroke in record["strokes"]:
        points = np.array(stroke["points"], float)[:, :2]
        round_line(pen, points * factor, stroke["width"] * factor, stroke["colour"])
        low = np.minimum(low, points.min(0) - stroke["width"] / 2)
        high = np.maximum(high, points.max(0) + stroke["width"] / 2)
    return np.asarray(image.reduce(factor)), np.concatenate([low, high])


def strokes(detector, path):
    """The share of drawings whose most confident detection is the right class, well placed.

    Prints by how much the right class leads the next one where it does so least: what a picture that
    was coded on its way may lose.
    """
    file = json.loads(Path(path).read_text())
    right, least = 0, (1.0, None)
    for number, record in enumerate(file["drawings"]):
        frame, box = drawing(record, file["canvas"])
        boxes, labels, scores = detector(frame)
        its = labels == CLASSES.index(record["label"])
        lead = scores[its].max(initial=0) - scores[~its].max(initial=0)
        least = min(least, (lead, number))
        said = CLASSES[labels[0]] if len(labels) else None
        fit = iou(box, boxes[:1])[0] if len(labels) else 0.0
        if said == record["label"] and fit >= SHARED:
            right += 1
        else:
            print(f"drawing {number}: {record['label']} seen as {said}, IoU {fit:.2f}")
    print(f"drawings recognised: {right} of {len(file['drawings'])}, by {least[0]:.2f} or more (drawing {least[1]})")
    return right / len(file["drawings"])


def main():
    here = Path(__file__).parent
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default=here / "shapes.onnx")
    options.add_argument("--scenes", type=int, default=400)
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument("--minimum", type=float, default=0.95, help="exit 1 when the headline mAP@0.5, or the share of drawings, is below")
    options.add_argument("--confidence", type=float, default=0.4, help="least confidence of what counts as found or false")
    options.add_argument("--strokes", help="a file of drawings to measure on instead")
    options = options.parse_args()
    detector, sure = Detector(options.model), options.confidence
    if options.strokes:
        sys.exit(strokes(detector, options.strokes) < options.minimum)

    headline, each, sizes, wrong = mean_ap(detector, held_out("plain", options.scenes, options.seed), sure)
    print(f"mAP@0.5 {headline:.4f} on {options.scenes} scenes of seeds from {options.seed}")
    print("  " + ", ".join(f"{name} {value:.3f}" for name, value in each.items()))
    print(f"  found at confidence {sure}: " + ", ".join(f"{k} {a} of {b}" for k, (a, b) in sorted(sizes.items(), key=limit_of)))
    print(f"  {wrong} false detections at confidence {sure}")
    for kind in ("small", "freehand", "ball", "clutter", "empty"):
        count = options.scenes // 2
        value, _, _, wrong = mean_ap(detector, held_out(kind, count, options.seed), sure)
        shown = "" if math.isnan(value) else f"mAP@0.5 {value:.4f}, "
        print(f"{kind}: {shown}{wrong} false detections at confidence {sure} in {count} frames")
    hits = 0
    for frame, box in moving_balls(400):
        boxes, labels, _ = detector(frame, sure)
        hits += bool(len(boxes) and labels[0] == 0 and iou(box, boxes[:1])[0] >= SHARED)
    print(f"moving ball: circle first at confidence {sure} and IoU 0.5 in {hits} of 400 frames")
    sys.exit(headline < options.minimum)


if __name__ == "__main__":
    main()
