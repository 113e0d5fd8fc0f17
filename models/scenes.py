"""Seeded scenes of the eight shapes: a frame, the tight boxes in it and their classes.

One seed always gives one scene, whatever was drawn before it, so training and evaluation stay
apart by using different seeds. Nothing here knows of the network beyond `letterbox`.

    python scenes.py --sheet sheet.png     draws the first scenes of every kind with their boxes
"""

import argparse
import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CLASSES = ("circle", "square", "triangle", "star", "heart", "cross", "arrow", "crescent")

FRAME = (640, 480)
SIZE = (24.0, 240.0)  # larger side of the drawn outline's box, pixels of the frame
MAX_SHAPES = 8
MAX_OVERLAP = 0.3  # shared box area over the smaller box
MIN_CONTRAST = 25.0  # grey levels of luma
MAX_TILT = math.radians(35.0)
MAX_BLUR = 2.0  # sigma, pixels
MAX_NOISE = 12.0  # sigma, grey levels
JPEG_QUALITY = (30, 95)
CANVAS = (0xF6, 0xF4, 0xEE)
PAD = 114

# Share of each kind in training. "small" is "plain" with sizes even on a logarithmic scale: small
# shapes are the hard ones, and half of these stay below 76 pixels. "plain" makes the headline figure.
MIX = {"small": 0.57, "freehand": 0.2, "ball": 0.04, "clutter": 0.15, "empty": 0.04}


def scene(seed, kind=None, size=None):
    """Returns (frame uint8 [h, w, 3], boxes float32 [n, 4] as x0 y0 x1 y1, labels int64 [n])."""
    rng = np.random.default_rng(seed)
    drawn = mixed(rng)
    return KINDS[kind or drawn](rng, size or FRAME)


def mixed(rng):
    """The kind of scene that a seed gives when none is asked for: its generator's first draw."""
    return rng.choice(list(MIX), p=list(MIX.values()))


def plain(rng, size):
    page = Page(background(rng, size))
    for _ in range(rng.integers(1, MAX_SHAPES + 1)):
        page.place(rng, extent=rng.uniform(*SIZE))
    return page.finish(rng)


def small(rng, size, clutter=0):
    page = Page(background(rng, size))
    for _ in range(clutter):
        page.clutter(rng)
    for _ in range(rng.integers(1, MAX_SHAPES + 1)):
        page.place(rng)
    return page.finish(rng)


def cluttered(rng, size):
    most = rng.integers(2, 9)
    if rng.random() < 0.5:
        return small(rng, size, clutter=most)
    page = Page(background(rng, size))
    for _ in range(most):
        page.clutter(rng)
    return page.finish(rng)


def empty(rng, size):
    return Page(background(rng, size)).finish(rng)


def freehand(rng, size):
    """A drawing canvas: pen strokes, and now and then the filled symbols that move across it."""
    paper = np.array(CANVAS if rng.random() < 0.7 else rng.integers(215, 256, 3), np.uint8)
    page = Page(np.broadcast_to(paper, (size[1], size[0], 3)).copy())
    if rng.random() < 0.15:
        page.frame[:] = 255 - page.frame
    symbols = rng.integers(0, 5) if rng.random() < 0.35 else 0
    drawings = rng.integers(0 if symbols else 1, 5)
    for _ in range(drawings):
        page.draw(rng)
    for _ in range(symbols):
        page.place(rng, style="fill")
    if rng.random() < 0.15:
        for _ in range(rng.integers(1, 4)):
            page.clutter(rng, pen=True)
    return page.finish(rng, gentle=True)


def ball(rng, size):
    """A bright disc on a dark field, as a test source draws it, at the size of either stream."""
    radius = 20 * size[0] / rng.choice([320, 640]) * rng.uniform(0.85, 1.15)
    dark = rng.integers(0, 12)
    page = Page(np.full((size[1], size[0], 3), dark, np.uint8))
    centre = rng.uniform([radius, radius], [size[0] - radius, size[1] - radius])
    shade = np.full(3, rng.integers(225, 256)) if rng.random() < 0.8 else rng.integers(120, 256, 3)
    page.paint(outline("circle", rng) * radius + centre, shade, label=0)
    return page.finish(rng, gentle=True)


KINDS = {"plain": plain, "small": small, "freehand": freehand, "ball": ball, "clutter": cluttered, "empty": empty}


class Page:
    """A frame being drawn on, and what counts as drawn."""

    def __init__(self, frame):
        self.frame = frame
        self.size = frame.shape[1], frame.shape[0]
        self.boxes, self.labels = [], []

    def place(self, rng, style=None, extent=None):
        """A geometric shape anywhere it fits; gives up silently on a page that is full."""
        label = int(rng.integers(len(CLASSES)))
        style = style or rng.choice(["fill", "line", "both"], p=[0.5, 0.4, 0.1])
        points = tilt(outline(CLASSES[label], rng), rng)
        extent = extent or SIZE[0] * (SIZE[1] / SIZE[0]) ** rng.random()
        points, scale = sized(points, extent, self.size)
        width = 0 if style == "fill" else rng.uniform(2, min(14, max(4, 0.1 * scale)))
        points = self.settle(points, width, rng)
        if points is None:
            return
        colour = contrasting(self.patch(points, width), rng)
        if style == "line":
            self.paint(points, colour, label, [closed(points)], width)
        else:
            self.paint(points, colour, label)
        if style == "both":
            self.boxes.pop(), self.labels.pop()
            rim = contrasting(self.patch(points, width), rng)
            self.paint(points, rim, label, [closed(points)], width)

    def draw(self, rng):
        """A shape as an unsteady hand traces it."""
        label = int(rng.integers(len(CLASSES)))
        strokes = trace(CLASSES[label], rng)
        points, _ = sized(np.concatenate(strokes), rng.uniform(45, 340), self.size)
        width = rng.uniform(4, 14)
        # A thick pen closes up a tiny drawing, which then shows no shape.
        width = min(width, max(4, 0.12 * np.ptp(points, axis=0).max()))
        settled = self.settle(points, width, rng)
        if settled is None:
            return
        cuts = np.cumsum([len(s) for s in strokes])[:-1]
        ink = contrasting(self.patch(settled, width), rng, least=60)
        if rng.random() < 0.4:
            dark = self.frame.mean() > 128
            ink = rng.integers(0, 70, 3) if dark else rng.integers(190, 256, 3)
        self.paint(settled, ink, label, np.split(settled, cuts), width)

    def settle(self, points, width, rng):
        """Moves the points to where their box overlaps no other by more than MAX_OVERLAP."""
        low, high = points.min(0) - width / 2, points.max(0) + width / 2
        room = np.array(self.size) - (high - low)
        if (room <= 2).any():
            return None
        for _ in range(12):
            shift = rng.uniform(1, room - 1) - low
            box = np.concatenate([low + shift, high + shift])
            if all(overlap(box, other) <= MAX_OVERLAP for other in self.boxes):
                return points + shift
        return None

    def patch(self, points, width):
        x0, y0 = np.maximum(0, np.floor(points.min(0) - width)).astype(int)
        x1, y1 = np.ceil(points.max(0) + width).astype(int) + 1
        return self.frame[y0:y1, x0:x1]

    def paint(self, points, colour, label=None, strokes=None, width=0.0):
        """Fills the polygon, or draws the strokes with round caps and joins, antialiased."""
        low, high = points.min(0) - width / 2, points.max(0) + width / 2
        x0, y0 = np.floor(low).astype(int) - 1
        x1, y1 = np.ceil(high).astype(int) + 1
        factor = 2 if max(x1 - x0, y1 - y0) > 150 else 4
        mask = Image.new("L", ((x1 - x0) * factor, (y1 - y0) * factor))
        pen = ImageDraw.Draw(mask)
        if strokes is None:
            pen.polygon(flat((points - (x0, y0)) * factor), fill=255)
        else:
            for stroke in strokes:
                round_line(pen, (stroke - (x0, y0)) * factor, width * factor)
        alpha = np.asarray(mask.reduce(factor), np.float32)[..., None] / 255
        w, h = self.size
        cx0, cy0, cx1, cy1 = max(x0, 0), max(y0, 0), min(x1, w), min(y1, h)
        alpha = alpha[cy0 - y0 : cy1 - y0, cx0 - x0 : cx1 - x0]
        under = self.frame[cy0:cy1, cx0:cx1]
        under[:] = np.rint(under + alpha * (np.asarray(colour, np.float32) - under))
        if label is not None:
            self.boxes.append(np.clip(np.concatenate([low, high]), 0, (w, h, w, h)))
            self.labels.append(label)

    def clutter(self, rng, pen=False):
        """Something that is none of the shapes, drawn as they are and kept off them."""
        kinds = ["line", "curve", "text"] if pen else ["line", "curve", "text", "blob", "polygon", "ellipse", "bar"]
        kind = rng.choice(kinds)
        extent = 30 * 8 ** rng.random()
        width = rng.uniform(2, 9)
        if kind == "text":
            return self.write(rng)
        if kind == "line":
            points = turn(np.array([[-1.0, 0.0], [1.0, 0.0]]), rng)
        elif kind == "curve":
            points = smooth(np.cumsum(rng.normal(size=(40, 2)), 0), 9, loop=False)
        elif kind == "blob":
            angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            radius = 1 + sum(rng.uniform(0.12, 0.35) * np.cos(k * angle + rng.uniform(0, 7)) / k**0.5 for k in (2, 3, 4, 5))
            points = polar(np.maximum(radius, 0.15), angle)
        elif kind == "polygon":
            corners = rng.integers(5, 9)
            angle = np.sort(rng.uniform(0, 1, corners) * 0.7 + np.arange(corners)) / corners * 2 * np.pi
            points = polar(rng.uniform(0.35, 1, corners), angle)
        else:
            stretch = np.array([1, rng.uniform(0.12, 0.5)])
            points = turn(outline("circle" if kind == "ellipse" else "square", rng) * stretch, rng)
        points, _ = sized(points, extent, self.size)
        points = self.settle(points, width, rng)
        if points is None:
            return
        colour = contrasting(self.patch(points, width), rng)
        if kind in ("line", "curve"):
            self.paint(points, colour, None, [points], width)
        elif rng.random() < 0.5:
            self.paint(points, colour, None, [closed(points)], width)
        else:
            self.paint(points, colour)

    def write(self, rng):
        words = "".join(rng.choice(list("abdeghkmnprstwyABDEGHKMNPRSW23456789 "), rng.integers(2, 14)))
        font = ImageFont.load_default(size=float(rng.uniform(10, 44)))
        ink = np.array(font.getbbox(words))
        room = np.array(self.size) - ink[2:]
        if (room <= 0).any():
            return
        where = rng.uniform(0, room)
        image = Image.fromarray(self.frame)
        colour = contrasting(self.frame, rng)
        ImageDraw.Draw(image).text(tuple(where), words, font=font, fill=tuple(int(c) for c in colour))
        self.frame = np.array(image)

    def finish(self, rng, gentle=False):
        """Camera and codec: blur, noise, JPEG with 4:2:0."""
        often = 0.3 if gentle else 0.5
        image = Image.fromarray(self.frame)
        if rng.random() < often:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, MAX_BLUR)))
        if rng.random() < often:
            grain = rng.standard_normal((self.size[1], self.size[0], 3 if rng.random() < 0.3 else 1), np.float32)
            noisy = np.asarray(image) + grain * rng.uniform(1, MAX_NOISE / (2 if gentle else 1))
            image = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        if rng.random() < 0.6:
            packed = io.BytesIO()
            image.save(packed, "JPEG", quality=int(rng.integers(*JPEG_QUALITY)), subsampling=2)
            image = Image.open(packed).convert("RGB")
        boxes = np.array(self.boxes, np.float32).reshape(-1, 4)
        return np.asarray(image), boxes, np.array(self.labels, np.int64)


def outline(name, rng):
    """The closed outline of a class around the origin, reaching about one unit."""
    squeeze = np.array([1.0, rng.uniform(0.96, 1.04)])
    if name == "circle":
        return polar(1.0, np.linspace(0, 2 * np.pi, 72, endpoint=False))
    if name == "square":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * squeeze
    if name == "triangle":
        return polar(1.0, np.array([0, 1, 2]) * 2 * np.pi / 3 - np.pi / 2) * [rng.uniform(0.88, 1.12), 1]
    if name == "star":
        radius = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.36, 0.54))
        return polar(radius, np.arange(10) * np.pi / 5 - np.pi / 2) * squeeze
    if name == "heart":
        t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([x, -y - 2.5], 1) / 15 * [rng.uniform(0.88, 1.12), 1]
    if name == "cross":
        a = rng.uniform(0.16, 0.4)
        quarter = np.array([[a, -a], [1, -a], [1, a], [a, a]])
        turns = [quarter @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        return np.concatenate([t[1:] for t in turns]) * squeeze
    if name == "arrow":
        shaft, head, neck = rng.uniform(0.1, 0.22), rng.uniform(0.42, 0.65), rng.uniform(-0.05, 0.4)
        barb = neck - rng.choice([0, rng.uniform(0, 0.2)])
        return np.array([[-1, -shaft], [neck, -shaft], [barb, -head], [1, 0], [barb, head], [neck, shaft], [-1, shaft]])
    radius, shift = rng.uniform(0.75, 1.0), rng.uniform(0.38, 0.85)
    x = (1 - radius**2 + shift**2) / (2 * shift)
    y = math.sqrt(1 - x * x)
    a, b = math.atan2(y, x), math.atan2(y, x - shift)
    outer = polar(1.0, np.linspace(a, 2 * np.pi - a, 40))
    inner = polar(radius, np.linspace(2 * np.pi - b, b, 34)[1:-1]) + [shift, 0]
    return np.concatenate([outer, inner]) + [x / 4, 0]


def trace(name, rng):
    """Pen strokes of a class: wobbling, with ends that miss each other, some as stick drawings."""
    stick = rng.random() < 0.45
    if name == "cross" and stick:
        lines = [np.array([[-1.0, 0], [1, 0]]), np.array([[0, -1.0], [0, 1]]) * rng.uniform(0.85, 1.25)]
    elif name == "arrow" and stick:
        back, half = rng.uniform(0.3, 0.75), rng.uniform(0.3, 0.65)
        head = np.array([[1 - back, -half], [1, 0], [1 - back, half]])
        lines = [np.array([[-1.0, 0], [1, 0]]), head]
        if rng.random() < 0.3:
            lines = [lines[0], head[:2], head[1:]]
    elif name == "star" and stick:
        lines = [closed(polar(1.0, np.arange(5) * 4 * np.pi / 5 - np.pi / 2))]
    else:
        path = outline(name, rng)
        path = np.roll(path, rng.integers(len(path)), axis=0)
        lines = [closed(path[:: rng.choice([-1, 1])])]
        if name in ("square", "triangle", "cross") and rng.random() < 0.3:
            lines = [lines[0][i : i + 2] for i in range(len(lines[0]) - 1)]
    upright = rng.random() < 0.65
    angle = rng.normal(0, 0.22) + (rng.integers(4) * np.pi / 2 if name == "arrow" else 0)
    angle = angle + (np.pi / 4 if name == "cross" and rng.random() < 0.35 else 0)
    spin = rotation(angle if upright else rng.uniform(0, 2 * np.pi))
    lean = np.array([[1, rng.normal(0, 0.08)], [0, rng.uniform(0.82, 1.2)]])
    wobble = rng.uniform(0.01, 0.05)
    strokes = []
    for line in lines:
        loop = len(line) > 3 and np.allclose(line[0], line[-1])
        path = resample(line, 96 if len(lines) < 3 else 40)
        path = smooth(path, rng.choice([1, 3, 5, 7]), loop=False)
        if loop:
            path = mismatch(path, rng)
        drift = smooth(rng.normal(size=(len(path), 2)), 15, loop=False) * 3.9 * wobble
        shake = smooth(rng.normal(size=(len(path), 2)), 3, loop=False) * wobble * rng.uniform(0, 0.35)
        astray = rng.normal(0, 0.035, 2) if len(lines) > 1 else 0
        strokes.append((path + drift + shake + astray) @ (spin @ lean).T)
    return strokes


def mismatch(path, rng):
    """Leaves a closed path open, or carries it past its start."""
    count = int(len(path) * rng.uniform(0, 0.09))
    if count and rng.random() < 0.5:
        return path[:-count]
    if count:
        end = path[1 : count + 1] + np.linspace(0, 1, count)[:, None] * rng.normal(0, 0.12, 2)
        return np.concatenate([path, end])
    return path


def tilt(points, rng):
    """Turns the flat shape by any angle in the picture, then up to MAX_TILT out of it, and projects."""
    points = turn(points, rng)
    if rng.random() < 0.3:
        return points
    axis, angle = rng.uniform(0, np.pi), rng.uniform(0, MAX_TILT)
    spin = rotation(axis)
    flat_points = points @ spin.T
    distance = rng.uniform(3, 8)
    depth = distance + flat_points[:, 1] * math.sin(angle)
    seen = flat_points * [1, math.cos(angle)] * (distance / depth)[:, None]
    return seen @ spin


def sized(points, extent, frame):
    """Scales to `extent` pixels on the larger side, measured in a frame 640 wide."""
    extent = min(extent * max(frame) / FRAME[0], 0.9 * min(frame))
    return points * (extent / np.ptp(points, axis=0).max()), extent


def background(rng, size):
    w, h = size
    kind = rng.choice(["flat", "gradient", "texture", "photo"], p=[0.25, 0.2, 0.27, 0.28])
    base = rng.integers(0, 256, 3).astype(np.float32)
    if kind == "flat":
        return np.broadcast_to(base.astype(np.uint8), (h, w, 3)).copy()
    if kind == "gradient":
        other = rng.integers(0, 256, 3)
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.add.outer(np.linspace(-1, 1, h) * math.sin(angle), np.linspace(-1, 1, w) * math.cos(angle))
        ramp = (ramp - ramp.min()) / np.ptp(ramp)
        image = base + ramp[..., None].astype(np.float32) * (other - base)
    elif kind == "texture":
        tint = rng.uniform(0.4, 1, 3).astype(np.float32)
        if rng.random() < 0.4:
            angle, period = rng.uniform(0, np.pi), rng.uniform(5, 60)
            phase = np.add.outer(np.arange(h) * math.sin(angle), np.arange(w) * math.cos(angle)) * 2 * np.pi / period
            wave = np.sin(phase).astype(np.float32)
            wave = np.sign(wave) if rng.random() < 0.4 else wave
            image = base + (wave * rng.uniform(3, 14))[..., None] * tint
        else:
            cell = 2 * 30 ** rng.random()
            image = base + (cells(rng, size, cell) * rng.uniform(3, 16))[..., None] * tint
    else:
        image = np.broadcast_to(base, (h, w, 3)).copy()
        amount = rng.uniform(5, 26)
        for cell in (320, 110, 40, 14, 5):
            tint = rng.normal(1, 0.35, 3).astype(np.float32)
            image += (cells(rng, size, cell) * (amount * (cell / 320) ** 0.45))[..., None] * tint
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def cells(rng, size, cell):
    """Smooth random field of about unit deviation whose features are `cell` pixels wide."""
    w, h = size
    coarse = rng.normal(size=(int(h / cell) + 3, int(w / cell) + 3)).astype(np.float32)
    left, top = rng.uniform(0, 1, 2)
    box = (left, top, left + w / cell, top + h / cell)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC, box=box)) * 1.3


def contrasting(patch, rng, least=MIN_CONTRAST):
    """A colour whose luma keeps away from what is there, further where that varies."""
    luma = patch.reshape(-1, 3)[::7] @ LUMA
    mean, need = luma.mean(), least + 1.5 * luma.std()
    best = None
    for _ in range(40):
        colour = rng.integers(0, 256, 3)
        gap = abs(float(colour @ LUMA) - mean)
        if gap >= need:
            return colour
        if best is None or gap > best[0]:
            best = gap, colour
    far = np.zeros(3, int) if mean > 127 else np.full(3, 255)
    return best[1] if best[0] >= least + 5 else far


LUMA = np.array([0.299, 0.587, 0.114])


def letterbox(frame, width, height):
    """Fits a frame into the input; returns (uint8 [height, width, 3], scale, left, top)."""
    h, w = frame.shape[:2]
    scale = min(width / w, height / h)
    fit = max(1, round(w * scale)), max(1, round(h * scale))
    left, top = (width - fit[0]) // 2, (height - fit[1]) // 2
    image = np.full((height, width, 3), PAD, np.uint8)
    resized = Image.fromarray(frame).resize(fit, Image.BILINEAR)
    image[top : top + fit[1], left : left + fit[0]] = np.asarray(resized)
    return image, scale, left, top


def overlap(a, b):
    side = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (side <= 0).any():
        return 0.0
    return side.prod() / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod())


def round_line(pen, points, width, fill=255):
    pen.line(flat(points), fill=fill, width=max(1, round(width)))
    r = width / 2
    for x, y in points:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def resample(points, count):
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0, along[-1], count)
    return np.stack([np.interp(at, along, points[:, i]) for i in (0, 1)], 1)


def smooth(points, taps, loop):
    if taps < 2:
        return points
    padded = np.pad(points, ((taps // 2, taps // 2), (0, 0)), mode="wrap" if loop else "edge")
    kernel = np.hanning(taps + 2)[1:-1]
    return np.stack([np.convolve(padded[:, i], kernel / kernel.sum(), "valid") for i in (0, 1)], 1)


def polar(radius, angle):
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def turn(points, rng):
    return points @ rotation(rng.uniform(0, 2 * np.pi)).T


def closed(points):
    return np.concatenate([points, points[:1]])


def flat(points):
    return [tuple(p) for p in points]


def sheet(path, columns=6):
    """A row for each kind, with the boxes drawn in."""
    tiles = Image.new("RGB", (columns * 320, len(KINDS) * 240))
    for row, kind in enumerate(KINDS):
        for column in range(columns):
            frame, boxes, labels = scene(column, kind)
            image = Image.fromarray(frame)
            pen = ImageDraw.Draw(image)
            for box, label in zip(boxes, labels):
                pen.rectangle(tuple(box), outline=(255, 0, 0))
                pen.text((box[0], box[1] - 12), CLASSES[label], fill=(255, 0, 0))
            tiles.paste(image.resize((320, 240)), (column * 320, row * 240))
    tiles.save(path)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sheet", required=True, help="PNG to write")
    sheet(options.parse_args().sheet)
