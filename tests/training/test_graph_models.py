"""The reader of TensorFlow.js models: padding, kernels and fused operations against sums written out by hand."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from instantid_demo.training.labelling.graph_models import GraphModel


def attribute(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def convolution(name: str, op: str, inputs: list[str], stride: int, padding: str, fused: tuple[str, ...] = ()) -> dict:
    return {
        "name": name,
        "op": op,
        "input": inputs,
        "attr": {
            "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
            "dilations": {"list": {"i": ["1", "1", "1", "1"]}},
            "padding": {"s": attribute(padding)},
            "fused_ops": {"list": {"s": [attribute(after) for after in fused]}},
        },
    }


def pool(name: str, op: str, above: str, size: int, stride: int, padding: str) -> dict:
    made = convolution(name, op, [above], stride, padding)
    return {**made, "attr": {**made["attr"], "ksize": {"list": {"i": ["1", str(size), str(size), "1"]}}}}


def write(folder: Path, nodes: list[dict], weights: dict[str, np.ndarray], stored: str = "float32") -> GraphModel:
    """A model file as the TensorFlow.js converter writes it; `stored`: the precision of the weights in the file."""
    described, content = [], b""
    for name, values in weights.items():
        entry: dict = {"name": name, "shape": list(values.shape), "dtype": str(values.dtype)}
        kept = values
        if stored != "float32" and values.dtype == np.float32:
            entry["quantization"] = {"dtype": stored, "original_dtype": "float32"}
            kept = values.astype(stored)
        described.append(entry)
        content += kept.tobytes()
    constants = [{"name": name, "op": "Const"} for name in weights]
    topology = {"node": [{"name": "x", "op": "Placeholder", "attr": {}}, *constants, *nodes]}
    (folder / "model.bin").write_bytes(content)
    manifest = [{"paths": ["model.bin"], "weights": described}]
    (folder / "model.json").write_text(json.dumps({"modelTopology": topology, "weightsManifest": manifest}))
    return GraphModel(folder / "model.json")


def by_hand(x: np.ndarray, kernel: np.ndarray, stride: int, same: bool, depthwise: bool = False) -> np.ndarray:
    """TensorFlow's convolution of one picture `(h, w, c)`, sum by sum."""
    size = kernel.shape[0]
    if same:
        total = max((-(-x.shape[0] // stride) - 1) * stride + size - x.shape[0], 0)
        x = np.pad(x, ((total // 2, total - total // 2), (total // 2, total - total // 2), (0, 0)))
    count = (x.shape[0] - size) // stride + 1
    out = np.zeros((count, count, kernel.shape[2] if depthwise else kernel.shape[3]))
    for row in range(count):
        for column in range(count):
            seen = x[row * stride : row * stride + size, column * stride : column * stride + size]
            if depthwise:
                out[row, column] = (seen * kernel[..., 0]).sum((0, 1))
            else:
                out[row, column] = np.einsum("ijc,ijco->o", seen, kernel)
    return out


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("side", "stride", "size"), [(7, 1, 3), (8, 2, 3), (7, 2, 3), (6, 2, 5), (6, 1, 1)])
def test_convolutions_pad_as_tensorflow_does(tmp_path, side, stride, size, padding):
    draw = np.random.default_rng(side + size)
    x = draw.normal(size=(1, side, side, 3)).astype(np.float32)
    kernel = draw.normal(size=(size, size, 3, 4)).astype(np.float32)
    each = draw.normal(size=(size, size, 3, 1)).astype(np.float32)
    nodes = [
        convolution("full", "Conv2D", ["x", "kernel"], stride, padding),
        convolution("each", "DepthwiseConv2dNative", ["x", "depth"], stride, padding),
    ]
    model = write(tmp_path, nodes, {"kernel": kernel, "depth": each})
    full, depth = model.run(x, ["full", "each"])
    np.testing.assert_allclose(full[0], by_hand(x[0], kernel, stride, padding == "SAME"), atol=1e-4)
    np.testing.assert_allclose(depth[0], by_hand(x[0], each, stride, padding == "SAME", depthwise=True), atol=1e-4)


def test_what_is_fused_follows_in_order_and_half_precision_is_read(tmp_path):
    draw = np.random.default_rng(1)
    x = draw.normal(size=(2, 4, 4, 3)).astype(np.float32)
    kernel = draw.normal(size=(1, 1, 3, 2)).astype(np.float16).astype(np.float32)
    bias, slope = np.array((0.5, -1), np.float32), np.array((0.25, 0.125), np.float32)
    node = convolution("y", "_FusedConv2D", ["x", "kernel", "bias", "slope"], 1, "SAME", ("BiasAdd", "Prelu"))
    model = write(tmp_path, [node], {"kernel": kernel, "bias": bias, "slope": slope}, "float16")
    expected = x @ kernel[0, 0] + bias
    expected = np.where(expected >= 0, expected, expected * slope)
    np.testing.assert_allclose(model.run(x, ["y"])[0], expected, atol=1e-5)


def test_pools_means_and_softmax(tmp_path):
    x = np.arange(50, dtype=np.float32).reshape(1, 5, 5, 2) / 50
    nodes = [
        pool("most", "MaxPool", "x", 3, 2, "SAME"),
        {"name": "mean", "op": "Mean", "input": ["x", "axes"], "attr": {"keep_dims": {"b": False}}},
        {"name": "share", "op": "Softmax", "input": ["mean:0"], "attr": {}},
    ]
    model = write(tmp_path, nodes, {"axes": np.array((1, 2), np.int32)})
    most, mean, share = model.run(x, ["most", "mean", "share"])
    assert most.shape == (1, 3, 3, 2)
    assert most[0, 0, 0].tolist() == x[0, 1, 1].tolist()  # the padding never wins
    np.testing.assert_allclose(mean[0], x[0].mean((0, 1)), rtol=1e-5)
    assert share.sum() == pytest.approx(1)
    assert share[0, 1] > share[0, 0]


def test_operations_that_are_not_known_are_named(tmp_path):
    with pytest.raises(NotImplementedError, match="LSTM"):
        write(tmp_path, [{"name": "y", "op": "LSTM", "input": ["x"]}], {})
