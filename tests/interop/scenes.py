"""Pictures whose contents are known: plain shapes on a plain sheet, moving a little from frame to frame.

They are drawn here and not by the model's training script, so that the two can disagree.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, FPS = 640, 480, 30
PAPER = (0xF6, 0xF4, 0xEE)
LENGTH = 60  # frames until a scene repeats

SHAPES = {
    "circle": [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 72, endpoint=False)],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -0.95), (0.9, 0.7), (-0.9, 0.7)],
    "star": [
        ((0.4 if i % 2 else 1) * math.sin(i * math.pi / 5), -(0.4 if i % 2 else 1) * math.cos(i * math.pi / 5))
        for i in range(10)
    ],
    "cross": [
        (-0.3, -0.9), (0.3, -0.9), (0.3, -0.3), (0.9, -0.3), (0.9, 0.3), (0.3, 0.3),
        (0.3, 0.9), (-0.3, 0.9), (-0.3, 0.3), (-0.9, 0.3), (-0.9, -0.3), (-0.3, -0.3),
    ],
}

# name, colour, size, where it is in the middle of its way, how far it goes
SCENES = {
    "three": [
        ("circle", (0xC0, 0x39, 0x2B), 60, (140, 130), (70, 30)),
        ("square", (0x1F, 0x61, 0x8D), 70, (470, 140), (60, 40)),
        ("triangle", (0x1E, 0x84, 0x49), 70, (320, 350), (120, 40)),
    ],
    "circle": [("circle", (0xC0, 0x39, 0x2B), 70, (320, 240), (150, 80))],
    "square": [("square", (0x1F, 0x61, 0x8D), 70, (320, 240), (150, 80))],
}


def truth(scene, frame):
    """The boxes of a frame: (class, left, top, right, bottom) in pixels."""
    boxes = []
    for name, _, points in outlines(scene, frame):
        xs, ys = zip(*points)
        boxes.append((name, min(xs), min(ys), max(xs), max(ys)))
    return boxes


def picture(scene, frame):
    """A frame as an array of RGB."""
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    for _, colour, points in outlines(scene, frame):
        draw.polygon(points, fill=colour)
    return np.asarray(image)


def outlines(scene, frame):
    turn = 2 * math.pi * frame / LENGTH
    for name, colour, size, (x, y), (dx, dy) in SCENES[scene]:
        # Around an ellipse: no two neighbouring frames have it in the same place.
        x, y = x + dx * math.cos(turn), y + dy * math.sin(turn)
        yield name, colour, [(x + size * px, y + size * py) for px, py in SHAPES[name]]


def predicted(result, key="predictions"):
    """The boxes of a result, in the form of `truth`."""
    return [
        (p["class"], p["x"] - p["width"] / 2, p["y"] - p["height"] / 2, p["x"] + p["width"] / 2, p["y"] + p["height"] / 2)
        for p in result["serialized_output_data"][key]["predictions"]
    ]


def overlap(one, other):
    """Shared area over joint area; 0 when the classes differ."""
    if one[0] != other[0]:
        return 0.0
    width = min(one[3], other[3]) - max(one[1], other[1])
    height = min(one[4], other[4]) - max(one[2], other[2])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    area = lambda box: (box[3] - box[1]) * (box[4] - box[2])  # noqa: E731
    return shared / (area(one) + area(other) - shared)


def write_y4m(path, scene):
    """The scene as a file that Chromium takes for a camera."""
    with open(path, "wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in range(LENGTH):
            file.write(b"FRAME\n")
            y, u, v = Image.fromarray(picture(scene, frame)).convert("YCbCr").split()
            half = (WIDTH // 2, HEIGHT // 2)
            file.write(y.tobytes() + u.resize(half).tobytes() + v.resize(half).tobytes())
