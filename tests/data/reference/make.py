"""Makes the models that tests/interop/test_reference.py compares with Python's ONNX Runtime:
`pip install onnx==1.23.2 && python make.py`.

Untrained and tiny, with the names, layouts and kinds of numbers that exporters give: a convolution looks at cells of 8×8
pixels, and where a cell's box is, how large it is and what it is follows from the colours in it. The weights come from a
seed, and are smooth, as trained ones are: a picture that is off by a rounding gives the same scores, one of the wrong
colours or a quarter of a pixel aside does not.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
CELL = 8
CLASSES = 5
FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
NAMES = str({number: f"class {number}" for number in range(CLASSES)})
IMAGENET_STD = (0.229, 0.224, 0.225)


class Graph:
    """A model while it is built: nodes that name their results themselves."""

    def __init__(self, name, element=FLOAT):
        self.name, self.element = name, element
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(sum(name.encode()))

    def constant(self, value, dtype=None):
        dtype = dtype or (np.float16 if self.element == HALF else np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind, *inputs, out=None, **attributes):
        out = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def cells(self, image, channels, std=(1, 1, 1), gain=1.4, middle=0.5):
        """What there is in each cell, as [batch, channels, cells]: how much of each colour, or how it changes across.

        A picture of `middle` alone gives about nothing.
        """
        turns = np.arange(CELL) / (CELL - 1) * np.pi
        weights = np.zeros((channels, 3, CELL, CELL))
        for channel in range(channels):
            for colour in range(3):
                down, across = self.random.choice([0, 0, 0, 1], 2)
                pattern = np.cos(turns * down)[:, None] * np.cos(turns * across)[None]
                strength = gain * self.random.uniform(-1, 1) * std[colour]
                weights[channel, colour] = strength * pattern / CELL**2
        bias = self.random.uniform(-0.3, 0.3, channels) - middle * weights.sum((1, 2, 3))
        convolved = self.add(
            "Conv", image, self.constant(weights), self.constant(bias), kernel_shape=[CELL] * 2, strides=[CELL] * 2
        )
        return self.add("Reshape", convolved, self.constant([0, channels, -1], np.int64))

    def part(self, value, start, end, axis=1):
        numbers = ([start], [end], [axis])
        return self.add("Slice", value, *(self.constant(number, np.int64) for number in numbers))

    def boxes(self, cells, width, height):
        """Centre and size in pixels, as [batch, 4, cells], of the first four channels."""
        y, x = np.mgrid[0:height:CELL, 0:width:CELL].reshape(2, -1)
        start = np.stack([x, y, 0 * x + 7, 0 * x + 7])[None]
        reach = np.array([CELL, CELL, 12, 12])[None, :, None]
        moved = self.add("Mul", self.add("Sigmoid", self.part(cells, 0, 4)), self.constant(reach))
        return self.add("Add", moved, self.constant(start))

    def corners(self, boxes, order=(0, 1, 2, 3)):
        """Left, top, right, bottom of centre and size, or in another order, as [batch, 4, cells]."""
        to = np.array([[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]])[list(order)]
        return self.add("MatMul", self.constant(to[None]), boxes)

    def turned(self, value, out=None):
        return self.add("Transpose", value, perm=[0, 2, 1], out=out)

    def scaled(self, value, by, out=None):
        return self.add("Mul", value, self.constant(by), out=out)

    def save(self, shape, outputs, metadata=None, name="images"):
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(name, self.element, shape)],
            [helper.make_tensor_value_info(key, kind, None) for key, kind in outputs.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, metadata or {})
        (HERE / f"{self.name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def ultralytics(width, height):
    return {"names": NAMES, "imgsz": f"[{height}, {width}]", "stride": str(CELL), "task": "detect"}


def yolov8():
    graph, (width, height) = Graph("yolov8"), (96, 64)
    cells = graph.cells("images", 4 + CLASSES)
    scores = graph.add("Sigmoid", graph.part(cells, 4, 4 + CLASSES))
    graph.add("Concat", graph.boxes(cells, width, height), scores, out="output0", axis=1)
    graph.save(["batch", 3, height, width], {"output0": FLOAT}, ultralytics(width, height))


def yolov5():
    graph, (width, height) = Graph("yolov5", HALF), (64, 64)
    cells = graph.cells("images", 5 + CLASSES)
    scores = graph.add("Sigmoid", graph.part(cells, 4, 5 + CLASSES))
    graph.turned(graph.add("Concat", graph.boxes(cells, width, height), scores, axis=1), out="output0")
    graph.save([1, 3, height, width], {"output0": HALF}, {"names": NAMES, "stride": str(CELL)})


def end2end():
    """Takes two frames at once, neither more nor less."""
    graph, (width, height) = Graph("end2end"), (96, 96)
    cells = graph.cells("images", 4 + CLASSES)
    scores = graph.add("Sigmoid", graph.part(cells, 4, 4 + CLASSES))
    score = graph.add("ReduceMax", scores, axes=[1], keepdims=1)
    best = graph.add("Cast", graph.add("ArgMax", scores, axis=1, keepdims=1), to=FLOAT)
    corners = graph.corners(graph.boxes(cells, width, height))
    graph.turned(graph.add("Concat", corners, score, best, axis=1), out="output0")
    graph.save([2, 3, height, width], {"output0": FLOAT}, ultralytics(width, height))


def ssd():
    """Bytes, channels last, any size: as TensorFlow's object detection is converted. The last ten boxes are not meant."""
    graph, (width, height) = Graph("ssd", BYTE), (96, 64)
    graph.element = FLOAT
    image = graph.add("Transpose", graph.add("Cast", "image_tensor:0", to=FLOAT), perm=[0, 3, 1, 2])
    cells = graph.cells(graph.scaled(image, 1 / 255), 4 + CLASSES)
    corners = graph.corners(graph.boxes(cells, width, height), order=(1, 0, 3, 2))
    size = np.array([height, width, height, width])[None, :, None]
    graph.turned(graph.scaled(corners, 1 / size), out="detection_boxes:0")
    scores = graph.add("Sigmoid", graph.part(cells, 4, 4 + CLASSES))
    graph.add("ReduceMax", scores, axes=[1], keepdims=0, out="detection_scores:0")
    best = graph.add("Cast", graph.add("ArgMax", scores, axis=1, keepdims=0), to=FLOAT)
    graph.add("Add", best, graph.constant(1), out="detection_classes:0")
    nothing = graph.scaled(graph.add("ReduceMax", "detection_scores:0", axes=[1], keepdims=0), 0)
    graph.add("Add", nothing, graph.constant(width * height // CELL**2 - 10), out="num_detections:0")
    names = ["num_detections:0", "detection_boxes:0", "detection_scores:0", "detection_classes:0"]
    graph.element = BYTE
    graph.save(["batch", "height", "width", 3], {name: FLOAT for name in names}, name="image_tensor:0")


def torchvision():
    graph, (width, height) = Graph("torchvision"), (96, 64)
    cells = graph.cells("images", 4 + CLASSES, IMAGENET_STD, middle=0)
    axis = graph.constant([0], np.int64)
    corners = graph.turned(graph.corners(graph.boxes(cells, width, height)))
    graph.add("Squeeze", corners, axis, out="boxes")
    scores = graph.add("Squeeze", graph.add("Sigmoid", graph.part(cells, 4, 4 + CLASSES)), axis)
    graph.add("ArgMax", scores, axis=0, keepdims=0, out="labels")
    graph.add("ReduceMax", scores, axes=[0], keepdims=0, out="scores")
    outputs = {"boxes": FLOAT, "labels": TensorProto.INT64, "scores": FLOAT}
    graph.save([1, 3, height, width], outputs)


def transformer(name, classes, width, height):
    graph = Graph(name)
    normalised = dict(std=IMAGENET_STD, middle=0) if name == "detr" else {}
    cells = graph.cells("pixel_values", 4 + classes, **normalised)
    boxes = graph.boxes(cells, width, height)
    graph.turned(graph.part(cells, 4, 4 + classes), out="logits")
    size = np.array([width, height, width, height])[None, :, None]
    graph.turned(graph.scaled(boxes, 1 / size), out="pred_boxes")
    shape = ["batch", 3, height, width]
    graph.save(shape, {"logits": FLOAT, "pred_boxes": FLOAT}, {"names": NAMES}, name="pixel_values")


def rtdetr_ultralytics():
    graph, (width, height) = Graph("rtdetr_ultralytics"), (96, 96)
    cells = graph.cells("images", 4 + CLASSES)
    boxes = graph.scaled(graph.boxes(cells, width, height), 1 / width)
    scores = graph.add("Sigmoid", graph.part(cells, 4, 4 + CLASSES))
    graph.turned(graph.add("Concat", boxes, scores, axis=1), out="output0")
    graph.save([1, 3, height, width], {"output0": FLOAT}, ultralytics(width, height))


def classification():
    """Blue first, from -1 to 1: the .modelinfo beside it says the latter."""
    graph, (width, height) = Graph("classification"), (64, 64)
    cells = graph.cells("data", 7, (0.5, 0.5, 0.5), gain=12, middle=0)
    graph.add("ReduceMean", cells, axes=[2], keepdims=0, out="logits")
    graph.save(["batch", 3, "height", "width"], {"logits": FLOAT}, name="data")
    (HERE / "classification.onnx.modelinfo").write_text(
        "[modelinfo]\nversion=1.0\ngroup-id=classification-generic-out\n\n"
        f"[data]\nid=data\ntype=float32\ndims=-1,3,{height},{width}\ndir=input\nranges=-1.0,1.0;-1.0,1.0;-1.0,1.0\n\n"
        "[logits]\nid=classification-generic-out\ntype=float32\ndims=-1,7\ndir=output\n"
    )


if __name__ == "__main__":
    yolov8()
    yolov5()
    end2end()
    ssd()
    torchvision()
    transformer("detr", CLASSES + 1, 96, 64)
    transformer("rtdetr", CLASSES, 160, 128)
    rtdetr_ultralytics()
    classification()
