"""Writes the drawings that tests replay: SIMULATED freehand strokes, ten of each class.

    python strokes.py ../tests/data/strokes.json

Nobody drew these. A hand is simulated as overlapping minimum-jerk movements between key points
it aims at inaccurately, with drift, a tremor of 8 to 12 Hz and a slant, sampled as a canvas
delivers pointer events. The strokes training sees come from another model (`scenes.trace`), so
these test how far that one carries.
"""

import json
import math
import sys

import numpy as np

from scenes import CANVAS, CLASSES

SEED = 20_240
EACH = 10
WIDTH, HEIGHT = 640, 480
COLOURS = ("#1b1b1f", "#22304f", "#c0392b", "#1f7a4d", "#7b3fa0", "#b35900")


def ring(count, radius=1.0, turns=1.0, start=-90.0):
    angles = np.radians(start) + np.linspace(0, 2 * np.pi * turns, count)
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def key_points(name, rng):
    """Strokes as lists of points the hand aims at, y down, and how far movements blend (0 to 1).

    Blending much rounds the path; blending little stops the pen at every corner.
    """
    way = rng.integers(2)
    if name == "circle":
        return [ring(15, turns=1 + rng.uniform(-0.03, 0.09), start=rng.uniform(-130, -50))], 0.62
    if name == "square":
        box = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
        return ([box] if way else [box[:3], [box[0], box[3], box[2]]]), 0.12
    if name == "triangle":
        corners = [(0, -1), (0.95, 0.75), (-0.95, 0.75), (0, -1)]
        return ([corners] if way else [corners[:3], [corners[2], corners[3]]]), 0.12
    if name == "star":
        tips = ring(6, start=-90)[:5]
        if way:
            return [[tips[i] for i in (3, 0, 2, 4, 1, 3)]], 0.1
        inner = ring(6, radius=0.44, start=-54)[:5]
        return [[p for pair in zip(tips, inner) for p in pair] + [tips[0]]], 0.12
    if name == "heart":
        right = [(0, -0.42), (0.25, -0.78), (0.58, -0.86), (0.88, -0.62), (0.92, -0.22), (0.68, 0.2), (0.36, 0.55), (0, 0.95)]
        left = [(-x, y) for x, y in right[::-1]]
        return ([right + left[1:]] if way else [right, left[::-1]]), 0.5
    if name == "cross":
        if way:
            return [[(-1, 0), (1, 0)], [(0, -1), (0, 1)]], 0.1
        a = 0.33
        return [[(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a), (-a, -1)]], 0.1
    if name == "arrow":
        if way:
            return [[(-1, 0), (1, 0)], [(0.45, -0.5), (1, 0), (0.45, 0.5)]], 0.1
        return [[(-1, -0.2), (0.25, -0.2), (0.25, -0.6), (1, 0), (0.25, 0.6), (0.25, 0.2), (-1, 0.2), (-1, -0.2)]], 0.1
    outer = ring(12, turns=0.72, start=-130)
    outer = [(-x, y) for x, y in outer][::1]
    inner_start, inner_end = np.array(outer[-1]), np.array(outer[0])
    middle = [(1 - t) * inner_start + t * inner_end for t in np.linspace(0, 1, 7)[1:-1]]
    bulge = (inner_start + inner_end) / 2
    away = -bulge / (np.linalg.norm(bulge) + 1e-9)
    inner = [tuple(m + away * 0.6 * math.sin(math.pi * (i + 1) / 6)) for i, m in enumerate(middle)]
    return [outer + inner + [outer[0]]], 0.42


def move(aims, blend, pace, rng):
    """Pointer track through the aims at 60 Hz: each movement starts before the last one ends."""
    legs = np.diff(aims, axis=0)
    lengths = np.hypot(*legs.T)
    spans = 0.07 + lengths / pace * rng.uniform(0.85, 1.15, len(legs))
    starts = np.concatenate([[0], np.cumsum(spans[:-1] * (1 - blend))])
    clock = np.arange(0, starts[-1] + spans[-1] + 1 / 60, 1 / 60) + rng.uniform(0, 0.004)
    track = np.repeat(aims[:1], len(clock), 0)
    for leg, start, span in zip(legs, starts, spans):
        s = np.clip((clock - start) / span, 0, 1)[:, None]
        track = track + leg * (10 * s**3 - 15 * s**4 + 6 * s**5)
    return clock, track


def draw(name, rng):
    paths, blend = key_points(name, rng)
    half = rng.uniform(45, 130)
    slant, squash, lean = rng.normal(0, 0.09), rng.uniform(0.88, 1.12), rng.normal(0, math.radians(7))
    if name == "arrow":
        lean += rng.integers(4) * math.pi / 2
    turn = np.array([[math.cos(lean), -math.sin(lean)], [math.sin(lean), math.cos(lean)]])
    hand = turn @ np.array([[1, slant], [0, squash]]) * half
    reach = max(half * 1.6, 60)
    centre = rng.uniform([reach, min(reach, 235)], [WIDTH - reach, max(HEIGHT - reach, 245)])
    width, colour = float(rng.integers(4, 13)), str(rng.choice(COLOURS))
    pace = rng.uniform(420, 900)
    error = rng.uniform(0.012, 0.04) * half
    strokes, began = [], 0.0
    for path in paths:
        aims = np.array(path, float) @ hand.T + rng.normal(0, error, (len(path), 2))
        # The last movement is thrown rather than placed, so it stops short or runs past.
        last = aims[-1] - aims[-2]
        aims[-1] += last / (np.linalg.norm(last) + 1e-9) * rng.normal(0.02, 0.05) * half
        clock, track = move(aims, blend, pace, rng)
        tremor = np.sin(2 * np.pi * rng.uniform(8, 12) * clock[:, None] + rng.uniform(0, 7, 2)) * rng.uniform(0.1, 0.8)
        drift = np.cumsum(rng.normal(0, 0.16, track.shape), 0)
        track = np.clip(track + tremor + drift + centre, width / 2, [WIDTH - width / 2, HEIGHT - width / 2])
        points = [[round(float(x), 1), round(float(y), 1), round(float(began + t), 3)] for t, (x, y) in zip(clock, track)]
        strokes.append({"width": width, "colour": colour, "points": points})
        began += float(clock[-1]) + rng.uniform(0.15, 0.4)
    return {"label": name, "strokes": strokes}


def main():
    rng = np.random.default_rng(SEED)
    file = {
        "about": "Simulated freehand drawings, not recordings of people; written by models/strokes.py. Points are x, y in pixels and t in seconds.",
        "canvas": {"width": WIDTH, "height": HEIGHT, "background": "#%02x%02x%02x" % CANVAS},
        "drawings": [draw(name, rng) for name in CLASSES for _ in range(EACH)],
    }
    with open(sys.argv[1], "w") as out:
        json.dump(file, out, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main()
