"""Trains the shape detector on drawn scenes and writes it as ONNX in the YOLOv8 raw layout.

    python train.py --output shapes.onnx        the README has the options of the released file

The seed fixes scenes, weights and the order of batches; a CPU with another vector unit still
rounds differently, so expect the same figures, not the same bytes.
"""

import argparse
import copy
import math
import queue
import tempfile
import threading
import time
import warnings

import numpy as np
import onnx
import torch
from torch import distributed, nn
from torch.nn import functional as F

import cache
from evaluate import Detector, held_out, mean_ap
from scenes import CLASSES, PAD

WIDTH, HEIGHT = 384, 288  # 4:3, so that the usual camera frame leaves no bars
STRIDES = (8, 16)
LEVELS = ((0, 56), (40, math.inf))  # longer side, input pixels, that each stride answers for
CELLS = sum(WIDTH // s * (HEIGHT // s) for s in STRIDES)
VERSION = "1.1.0"


class Conv(nn.Sequential):
    """Convolution and batch norm; the norm is folded away by `fold` before export."""

    def __init__(self, inputs, outputs, kernel=3, stride=1, padding=None, act=True):
        padding = kernel // 2 if padding is None else padding
        layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs)]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(Conv(channels, channels), Conv(channels, channels, act=False))

    def forward(self, x):
        return F.relu(x + self.body(x))


class Net(nn.Module):
    """Four stages at strides 4 to 32, context handed back down to 16 and 8, one head on each.

    Most of the work sits at strides 16 and 32: there a 3x3 convolution spends its time multiplying,
    at stride 8 and with few channels it spends it gathering its input.
    """

    def __init__(self, c=(16, 42, 56, 70), heads=(42, 42)):
        super().__init__()
        self.stem = Conv(3, c[0], 4, 4, 0)
        self.down8 = Conv(c[0], c[1], 3, 2)
        self.down16 = nn.Sequential(Conv(c[1], c[2], 3, 2), Residual(c[2]))
        self.down32 = nn.Sequential(Conv(c[2], c[3], 3, 2), Residual(c[3]))
        self.side16 = Conv(c[3], c[2], 1, act=False)
        self.mix16 = Conv(c[2], c[2], 1)
        self.side8 = Conv(c[2], c[1], 1, act=False)
        outputs = 4 + len(CLASSES)
        self.head8 = nn.Sequential(Conv(c[1], heads[0]), nn.Conv2d(heads[0], outputs, 1))
        self.head16 = nn.Sequential(Conv(c[2], heads[1], 1), nn.Conv2d(heads[1], outputs, 1))
        for head in (self.head8, self.head16):
            # A cell seldom holds a shape; starting there keeps the first steps calm.
            nn.init.zeros_(head[-1].bias)
            nn.init.constant_(head[-1].bias[4:], -math.log(99))
            nn.init.constant_(head[-1].bias[2:4], 1.0)
        centres, strides = cells()
        self.register_buffer("centres", centres)
        self.register_buffer("strides", strides)

    def raw(self, x):
        eight = self.down8(self.stem(x))
        sixteen = self.down16(eight)
        deep = self.side16(self.down32(sixteen))
        sixteen = self.mix16(F.relu(sixteen + F.interpolate(deep, scale_factor=2.0)))
        eight = F.relu(eight + F.interpolate(self.side8(sixteen), scale_factor=2.0))
        hidden = [(self.head8, eight), (self.head16, sixteen)]
        hidden = [(head[-1], head[:-1](x)) for head, x in hidden]
        # Eight bits of mantissa are too few for positions.
        with torch.autocast("cpu", enabled=False):
            return torch.cat([last(x.float()).flatten(2) for last, x in hidden], 2)

    def forward(self, x):
        """[batch, 4 + classes, cells]: cx, cy, w, h in input pixels, class logits."""
        raw = self.raw(x)
        centre = raw[:, :2] * self.strides + self.centres
        side = torch.exp(raw[:, 2:4]) * self.strides
        return torch.cat([centre, side, raw[:, 4:]], 1)


class Exported(nn.Module):
    """The network with its logits made probabilities."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        out = self.net(images)
        return torch.cat([out[:, :4], torch.sigmoid(out[:, 4:])], 1)


def cells():
    """Centre [1, 2, n] and stride [1, 1, n] of every cell, finest level first."""
    centres, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(HEIGHT // stride), torch.arange(WIDTH // stride), indexing="ij")
        centres.append((torch.stack([x, y]).flatten(1) + 0.5) * stride)
        strides.append(torch.full((1, centres[-1].shape[1]), float(stride)))
    return torch.cat(centres, 1)[None], torch.cat(strides, 1)[None]


def corners(boxes):
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def iou(a, b, complete=False):
    """Intersection over union of boxes given by corners; complete adds centre and aspect terms."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    sa, sb = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    value = shared / (sa.prod(-1) + sb.prod(-1) - shared + 1e-6)
    if not complete:
        return value
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    skew = torch.atan(sa[..., 0] / (sa[..., 1] + 1e-6)) - torch.atan(sb[..., 0] / (sb[..., 1] + 1e-6))
    skew = 4 / math.pi**2 * skew**2
    with torch.no_grad():
        weight = skew / (1 - value + skew + 1e-6)
    return value - apart / ((hull**2).sum(-1) + 1e-6) - weight * skew


def answerable(targets):
    """The cells that answer for each target: those around its centre, on the level of its size.

    Takes [batch, rows, 5] and returns arrays of one length: index into batch * cells, class, corners.
    """
    rows = []
    for image, row in zip(*np.nonzero(targets[..., 0] >= 0)):
        label, x0, y0, x1, y1 = targets[image, row]
        side, first = max(x1 - x0, y1 - y0), 0
        for stride, (low, high) in zip(STRIDES, LEVELS):
            wide, tall = WIDTH // stride, HEIGHT // stride
            if low <= side < high:
                x, y = (x0 + x1) / 2 / stride - 0.5, (y0 + y1) / 2 / stride - 0.5
                # A thin shape may cover no cell's centre, so its reach is at least three quarters of a cell.
                rx, ry = (min(1.5, max(0.75, length / 2 / stride)) for length in (x1 - x0, y1 - y0))
                for j in range(max(0, math.ceil(y - ry)), min(tall - 1, math.floor(y + ry)) + 1):
                    for i in range(max(0, math.ceil(x - rx)), min(wide - 1, math.floor(x + rx)) + 1):
                        cell = image * CELLS + first + j * wide + i
                        rows.append((side, cell, label, x0, y0, x1, y1))
            first += wide * tall
    # A cell wanted twice goes to the smaller shape, which has fewer.
    rows = np.array(sorted(rows), np.float64).reshape(-1, 7)
    _, first = np.unique(rows[:, 1], return_index=True)
    rows = rows[first]
    return rows[:, 1].astype(np.int64), rows[:, 2].astype(np.int64), rows[:, 3:].astype(np.float32)


def loss(net, images, cell, label, box):
    out = net(images).transpose(1, 2).flatten(0, 1)
    logits, held = out[:, 4:], out[cell]
    complete = iou(corners(held[:, :4]), box, complete=True)
    # The class is asked for as surely as the box is right, so that suppression keeps the best box.
    with torch.no_grad():
        quality = iou(corners(held[:, :4]), box).clamp(min=0.2)
        wanted = torch.zeros_like(logits)
        wanted[cell, label] = quality
        # Focal on the empty cells: their number would drown the few that hold something.
        said = logits.sigmoid()
        weight = torch.where(wanted > 0, wanted, said**1.5)
    total = max(1, len(cell))
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum") / total
    return 2 * (1 - complete).sum() / total + entropy


class Batches:
    """Flipped, shifted and recoloured batches, gathered on a thread beside the training step."""

    def __init__(self, images, targets, repeated, size, steps, seed):
        self.images, self.targets, self.size = images, targets, size
        self.epoch = np.concatenate([np.arange(len(images)), np.array(repeated, int)])
        self.rng = np.random.default_rng(seed)
        self.ready = queue.Queue(4)
        threading.Thread(target=self.gather, args=(steps,), daemon=True).start()

    def gather(self, steps):
        order = np.empty(0, int)
        for _ in range(steps):
            if len(order) < self.size:
                order = self.rng.permutation(self.epoch)
            take, order = order[: self.size], order[self.size :]
            batch = np.full((self.size, HEIGHT, WIDTH, 3), PAD, np.uint8)
            targets = self.targets[take]
            for index, image, rows in zip(take, batch, targets):
                self.vary(self.images[index], image, rows)
            gain = self.rng.uniform(0.9, 1.15, (self.size, 1)) * self.rng.uniform(0.93, 1.07, (self.size, 3))
            lift = self.rng.uniform(-0.07, 0.05, (self.size, 1)) + np.zeros(3)
            negative = self.rng.random(self.size) < 0.3
            gain[negative], lift[negative] = -gain[negative], 1 - lift[negative]
            colour = np.stack([gain / 255, lift]).astype(np.float32)[..., None, None]
            self.ready.put([torch.from_numpy(a) for a in (batch, colour, *answerable(targets))])

    def vary(self, image, out, targets):
        """Writes a varied image into `out` and moves its targets along."""
        rng, real = self.rng, targets[:, 0] >= 0
        boxes = targets[real, 1:]
        if rng.random() < 0.5:
            image, boxes = image[:, ::-1], np.array([WIDTH, 0, WIDTH, 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
        if rng.random() < 0.5:
            image, boxes = image[::-1], np.array([0, HEIGHT, 0, HEIGHT]) + boxes[:, [0, 3, 2, 1]] * [1, -1, 1, -1]
        # Shapes fall differently on the stem's grid each time; the edge cuts little off.
        dx, dy = rng.integers(-5, 6, 2)
        out[max(dy, 0) : HEIGHT + min(dy, 0), max(dx, 0) : WIDTH + min(dx, 0)] = image[
            max(-dy, 0) : HEIGHT + min(-dy, 0), max(-dx, 0) : WIDTH + min(-dx, 0)
        ]
        targets[real, 1:] = np.clip(boxes + [dx, dy, dx, dy], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])

    def __iter__(self):
        while True:
            batch, (gain, lift), *wanted = self.ready.get()
            yield batch.permute(0, 3, 1, 2).float().mul_(gain).add_(lift).clamp_(0, 1), *wanted


def fold(net):
    """A copy whose batch norms are absorbed by the convolutions before them."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, Conv) and isinstance(module[1], nn.BatchNorm2d):
            module[0] = nn.utils.fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return net.to(memory_format=torch.contiguous_format)


def load(path):
    """A network to go on from: a checkpoint's, or that of an exported file, which has no batch norms any more."""
    if not path.endswith(".onnx"):
        net = Net()
        net.load_state_dict(torch.load(path))
        return net
    net = fold(Net())
    held = {entry.name: onnx.numpy_helper.to_array(entry).copy() for entry in onnx.load(path).graph.initializer}
    net.load_state_dict({name: torch.from_numpy(held["net." + name]) for name in net.state_dict()})
    return net.requires_grad_()


def export(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported(fold(net)).eval(),
            torch.zeros(1, 3, HEIGHT, WIDTH),
            path,
            opset_version=17,
            dynamo=False,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        )
    model = onnx.load(path)
    # The exporter loses sight of these through the concatenations.
    shape = model.graph.output[0].type.tensor_type.shape.dim
    shape[1].dim_value, shape[2].dim_value = 4 + len(CLASSES), CELLS
    onnx.helper.set_model_props(
        model,
        {
            "description": "Detector of eight drawn shapes",
            "license": "MPL-2.0",
            "version": VERSION,
            "task": "detect",
            "stride": str(max(STRIDES)),
            "imgsz": str([HEIGHT, WIDTH]),
            "names": str(dict(enumerate(CLASSES))),
        },
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


def work(rank, options):
    """One of the processes that share a batch; the first of them keeps the mean and writes it."""
    workers = options.workers
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=options.meeting, rank=rank, world_size=workers)
    images, targets = cache.build(options.cache, options.scenes, WIDTH, HEIGHT, workers)
    net = load(options.start) if options.start else Net()
    net = net.to(memory_format=torch.channels_last).train()
    mean = copy.deepcopy(net)
    weights = list(net.parameters())
    decayed, plain = [p for p in weights if p.dim() > 1], [p for p in weights if p.dim() <= 1]
    adam = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0}])
    repeated = cache.of_kind("clutter", options.scenes) * (options.clutter - 1)
    repeated += cache.of_kind("freehand", options.scenes) * (options.freehand - 1)
    size, seed = options.batch // workers, (options.seed, rank)
    batches = iter(Batches(images, targets, repeated, size, options.steps, seed))
    began, shown = time.monotonic(), 0.0
    for step in range(options.steps):
        warm = min(1, (step + 1) / 300)
        rate = options.rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * step / options.steps)) / 2)
        for group in adam.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            value = loss(net, *next(batches))
        adam.zero_grad(set_to_none=True)
        value.backward()
        slopes = torch.cat([p.grad.flatten() for p in weights])
        distributed.all_reduce(slopes)
        slopes *= min(1 / workers, 10 / (slopes.norm().item() + 1e-6))
        for p, slope in zip(weights, slopes.split([p.numel() for p in weights])):
            p.grad.copy_(slope.view_as(p))
        adam.step()
        if rank:
            continue
        # The mean follows closely at first, else it would drag the first weights along.
        keep = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for old, new in zip(mean.state_dict().values(), net.state_dict().values()):
                if old.is_floating_point():
                    old.lerp_(new, 1 - keep)
        shown += value.item()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1} loss {shown / 200:.3f} {time.monotonic() - began:.0f} s", flush=True)
            shown = 0.0
        if (step + 1) % 1000 == 0:
            export(mean, options.output)
            figure = mean_ap(Detector(options.output), held_out("plain", 60))[0]
            print(f"step {step + 1} mAP@0.5 on 60 held-out scenes: {figure:.4f}", flush=True)
            if options.keep:
                torch.save(mean.state_dict(), options.keep)
    if rank == 0:
        export(mean, options.output)
        figure = mean_ap(Detector(options.output), held_out("plain", 400))[0]
        print(f"mAP@0.5 on 400 held-out scenes: {figure:.4f}")
    distributed.destroy_process_group()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--output", default="shapes.onnx")
    options.add_argument("--cache", default="/tmp/shapecache", help="folder for drawn scenes, 0.33 MB each")
    options.add_argument("--scenes", type=int, default=18000)
    options.add_argument("--steps", type=int, default=8000)
    options.add_argument("--batch", type=int, default=16, help="scenes in a step, over all workers")
    options.add_argument("--rate", type=float, default=2e-3)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    options.add_argument("--clutter", type=int, default=1, help="times an epoch shows each cluttered scene")
    options.add_argument("--freehand", type=int, default=1, help="times an epoch shows each pen drawing")
    options.add_argument("--bfloat16", action="store_true", help="quicker where the CPU multiplies these itself, many times slower elsewhere")
    options.add_argument("--start", help="checkpoint or exported file to go on from")
    options.add_argument("--keep", help="checkpoint to write")
    options = options.parse_args()
    cache.build(options.cache, options.scenes, WIDTH, HEIGHT, options.workers)
    with tempfile.TemporaryDirectory() as folder:
        options.meeting = f"file://{folder}/meeting"
        torch.multiprocessing.spawn(work, (options,), options.workers)


if __name__ == "__main__":
    main()
