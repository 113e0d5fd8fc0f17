"""Makes the tiny models of the tests: `pip install onnx==1.23.2 && python make_onnx.py`.

No training and no randomness: `colours` finds cells of pure red, green or blue, so a test can say
which boxes must come out of a picture it draws.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
HEIGHT, WIDTH, CELL = 32, 64, 8
NAMES = "{0: 'red', 1: \"green light\", 2: 'blue'}"


def save(name, nodes, shape, out_shape, constants=None, metadata=None, dtype=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, out_shape)],
        [numpy_helper.from_array(value, key) for key, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.test", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, metadata or {})
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def cells():
    """Centre and size of each cell, as [1, 4, cells]."""
    y, x = np.mgrid[CELL / 2 : HEIGHT : CELL, CELL / 2 : WIDTH : CELL]
    size = np.full(x.size, CELL)
    return np.stack([x.ravel(), y.ravel(), size, size])[None].astype(np.float32)


def colours(name, metadata):
    """A colour's score in a cell is how much more of it there is than of the other two."""
    boxes = cells()
    mix = np.full((3, 3), -1, np.float32) + 2 * np.eye(3, dtype=np.float32)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Conv", ["pooled", "mix"], ["purity"], strides=[1, 1], pads=[0] * 4, dilations=[1, 1]),
        helper.make_node("Clip", ["purity", "zero", "one"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "flat"], ["scores"]),
        helper.make_node("ReduceMax", ["scores"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "boxes"], ["batched"]),
        helper.make_node("Concat", ["batched", "scores"], ["output0"], axis=1),
    ]
    constants = {
        "mix": mix[:, :, None, None],
        "zero": np.float32(0),
        "one": np.float32(1),
        "flat": np.array([0, 3, -1]),
        "boxes": boxes,
    }
    save(name, nodes, ["batch", 3, HEIGHT, WIDTH], ["batch", 7, boxes.shape[2]], constants, metadata)


def fixed(name, value, metadata=None):
    """An output that never changes, whatever the input."""
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], ["output0"]),
    ]
    value = np.asarray(value, np.float32)
    save(name, nodes, [1, 3, HEIGHT, WIDTH], value.shape, {"zero": np.float32(0), "value": value}, metadata)


def mean(name, shape, metadata=None, dtype=TensorProto.FLOAT):
    """Mean of each channel: a classifier of any input size."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["output0"], axes=[-2, -1], keepdims=0),
    ]
    save(name, nodes, shape, None, metadata=metadata, dtype=dtype)


if __name__ == "__main__":
    size = f"[{HEIGHT}, {WIDTH}]"
    colours("colours", {"names": NAMES, "imgsz": size, "stride": "8", "task": "detect"})
    colours("colours_unnamed", {})
    colours("colours_misnamed", {"names": "['red', 'green']"})
    colours("poses", {"names": "['red', 'green', 'blue']", "task": "pose"})
    fixed("end2end", [[[8, 4, 24, 20, 0.9, 1], [0, 0, 9, 9, 0.1, 0]] * 4], {"names": NAMES, "task": "detect"})
    fixed("ambiguous", np.zeros((1, 13, 21)), {"names": str(list("abcdefgh"))})
    mean("channels", ["batch", 3, "height", "width"], {"names": NAMES, "stride": "8", "task": "classify"})
    mean("rank3", [3, HEIGHT, WIDTH])
    mean("bytes", [1, 3, HEIGHT, WIDTH], dtype=TensorProto.UINT8)
    mean("batch4", [4, 3, HEIGHT, WIDTH])
    mystery = helper.make_node("Mystery", ["images"], ["output0"], domain="example.test", name="mystery_1")
    save("unsupported_op", [mystery], [1, 3, HEIGHT, WIDTH], None)
    whole = (HERE / "colours.onnx").read_bytes()
    (HERE / "truncated.onnx").write_bytes(whole[: len(whole) * 2 // 3])
    (HERE / "garbage.onnx").write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>\n" * 8)
