"""Draws training scenes once, at the network's resolution, into two arrays on disk.

Drawing a scene costs more than a training step spends on it, so epochs share the drawings.
"""

import multiprocessing
from pathlib import Path

import numpy as np

from scenes import MAX_SHAPES, letterbox, mixed, scene

FIRST_SEED = 1_000_000  # evaluation draws from seeds below
ROWS = 2 * MAX_SHAPES  # boxes a scene may have; unused rows carry class -1
# Mostly the expected frame; some others so that grey bars and other scales are no surprise.
SIZES = [(640, 480)] * 18 + [(320, 240), (640, 360), (960, 540), (480, 640)]


def sample(index, width, height):
    """Image uint8 [height, width, 3] and targets float32 [ROWS, 5]: class, x0, y0, x1, y1."""
    seed = FIRST_SEED + index
    frame, boxes, labels = scene(seed, size=SIZES[index % len(SIZES)])
    image, scale, left, top = letterbox(frame, width, height)
    targets = np.full((ROWS, 5), -1, np.float32)
    targets[: len(labels), 0] = labels
    targets[: len(labels), 1:] = boxes * scale + [left, top, left, top]
    return image, targets


def of_kind(kind, count):
    """Indices of the samples whose scenes are of a kind."""
    return [i for i in range(count) if mixed(np.random.default_rng(FIRST_SEED + i)) == kind]


def fill(folder, start, stop, width, height):
    images = np.lib.format.open_memmap(folder / "images.npy", "r+")
    targets = np.lib.format.open_memmap(folder / "targets.npy", "r+")
    for index in range(start, stop):
        images[index], targets[index] = sample(index, width, height)


def build(folder, count, width, height, workers):
    """Returns (images, targets), drawing them only when the folder does not hold them yet."""
    folder = Path(folder)
    done = folder / f"{count}x{width}x{height}"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, height, width, 3))
        np.lib.format.open_memmap(folder / "targets.npy", "w+", np.float32, (count, ROWS, 5))
        step = 250
        tasks = [(folder, a, min(a + step, count), width, height) for a in range(0, count, step)]
        with multiprocessing.Pool(workers) as pool:
            pool.starmap(fill, tasks, chunksize=1)
        done.touch()
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "targets.npy", mmap_mode="r")
