"""TensorFlow.js graph models (`model.json` and `.bin` files) run by PyTorch.

Only the operations that small face networks use are known.
Tensors keep TensorFlow's order `(n, h, w, c)` between operations; convolutions see them as a view in PyTorch's order.
"""

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

Attributes = dict[str, dict]
Operation = Callable[[list[torch.Tensor], Attributes], torch.Tensor]


class GraphModel:
    """A graph model of one input, ready to run on the processor."""

    def __init__(self, path: Path) -> None:
        """Reads a model.

        Args:
            path: The `.json` file; its weights lie beside it.

        Raises:
            FileNotFoundError: A file is missing.
            NotImplementedError: The graph holds an operation that is not known here.
        """
        description = json.loads(path.read_text())
        nodes = [node for node in description["modelTopology"]["node"] if node["op"] != "Const"]
        self._constants = _weights(description["weightsManifest"], path.parent)
        self._input = next(node["name"] for node in nodes if node["op"] == "Placeholder")
        self._nodes = {node["name"]: node for node in nodes if node["op"] != "Placeholder"}
        if unknown := {node["op"] for node in self._nodes.values()} - set(_OPERATIONS):
            raise NotImplementedError(f"{path.name} holds operations that are not known here: {sorted(unknown)}")

    @torch.inference_mode()
    def run(self, pictures: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        """The named nodes' values for `pictures` `(n, h, w, c)` float32, in the range that the network expects."""
        given = torch.from_numpy(np.ascontiguousarray(pictures, np.float32))
        return [value.numpy() for value in self.tensors(given, outputs)]

    def tensors(self, pictures: torch.Tensor, outputs: list[str]) -> list[torch.Tensor]:
        """The same as tensors, through which gradients flow back to the pictures."""
        values = self._constants | {self._input: pictures}
        for name in self._order(outputs):
            node = self._nodes[name]
            values[name] = _OPERATIONS[node["op"]]([values[_name(i)] for i in node["input"]], node.get("attr") or {})
        return [values[name] for name in outputs]

    def _order(self, outputs: list[str]) -> list[str]:
        order: list[str] = []
        open_nodes, seen = list(outputs), set()
        while open_nodes:
            name = open_nodes[-1]
            below = [i for i in map(_name, self._nodes[name]["input"]) if i in self._nodes and i not in seen]
            if below:
                open_nodes.extend(below)
                continue
            open_nodes.pop()
            if name not in seen:
                seen.add(name)
                order.append(name)
        return order


def _name(edge: str) -> str:
    return edge.split(":")[0]


def _weights(manifest: list[dict], folder: Path) -> dict[str, torch.Tensor]:
    weights = {}
    for group in manifest:
        content, at = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for weight in group["weights"]:
            stored = np.dtype(weight.get("quantization", weight)["dtype"]).newbyteorder("<")
            values = np.frombuffer(content, stored, int(np.prod(weight["shape"])), at)
            at += values.nbytes
            # Quantised weights are of half precision here: whole numbers would need their scale.
            assert "scale" not in weight.get("quantization", {}), weight["name"]
            weights[weight["name"]] = torch.from_numpy(values.astype(weight["dtype"]).reshape(weight["shape"]))
    return weights


def _sides(attributes: Attributes, name: str) -> tuple[int, int]:
    _, height, width, _ = (int(i) for i in attributes[name]["list"]["i"])
    return height, width


def _padded(
    x: torch.Tensor, kernel: tuple[int, int], stride: tuple[int, int], attributes: Attributes, value: float = 0
) -> torch.Tensor:
    """`x` in PyTorch's order, with TensorFlow's padding: "same" puts the odd pixel after the picture."""
    x = x.permute(0, 3, 1, 2)
    if base64.b64decode(attributes["padding"]["s"]) == b"VALID":
        return x
    total = [
        max((-(-length // step) - 1) * step + width - length, 0)
        for length, width, step in zip(x.shape[2:], kernel, stride, strict=True)
    ]
    (top, left) = (rest // 2 for rest in total)
    return functional.pad(x, (left, total[1] - left, top, total[0] - top), value=value)


def _convolution(inputs: list[torch.Tensor], attributes: Attributes, *, depthwise: bool = False) -> torch.Tensor:
    x, kernel = inputs[:2]
    stride, size = _sides(attributes, "strides"), (kernel.shape[0], kernel.shape[1])
    assert _sides(attributes, "dilations") == (1, 1)
    if size == stride == (1, 1) and not depthwise:
        return _fused(x @ kernel[0, 0], inputs[2:], attributes)
    # (h, w, in, out) -> (out, in, h, w); depthwise (h, w, in, each) -> (in * each, 1, h, w)
    weight = kernel.permute(2, 3, 0, 1).reshape(-1, 1, *size) if depthwise else kernel.permute(3, 2, 0, 1)
    weight = weight.contiguous()  # another order in memory makes PyTorch take its slow path
    y = functional.conv2d(
        _padded(x, size, stride, attributes), weight, stride=stride, groups=x.shape[-1] if depthwise else 1
    )
    return _fused(y.permute(0, 2, 3, 1), inputs[2:], attributes)


def _transposed_convolution(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    _, kernel, x = inputs
    stride = _sides(attributes, "strides")
    assert stride == tuple(kernel.shape[:2]), "overlapping transposed convolutions are not known here"
    return functional.conv_transpose2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), stride=stride).permute(
        0, 2, 3, 1
    )


def _pool(inputs: list[torch.Tensor], attributes: Attributes, *, largest: bool) -> torch.Tensor:
    size, stride = _sides(attributes, "ksize"), _sides(attributes, "strides")
    if largest:
        x = _padded(inputs[0], size, stride, attributes, float("-inf"))
        return functional.max_pool2d(x, size, stride).permute(0, 2, 3, 1)
    x = _padded(inputs[0], size, stride, attributes)
    assert x.shape[2] == inputs[0].shape[1], "averages over a padded border are not known here"
    return functional.avg_pool2d(x, size, stride).permute(0, 2, 3, 1)


def _fused(y: torch.Tensor, rest: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    for after in attributes.get("fused_ops", {"list": {}})["list"].get("s", []):
        match base64.b64decode(after):
            case b"BiasAdd":
                y = y + rest.pop(0)
            case b"Relu":
                y = y.relu()
            case b"Relu6":
                y = y.clamp(0, 6)
            case b"Elu":
                y = functional.elu(y)
            case b"Prelu":
                y = _prelu([y, rest.pop(0)], attributes)
            case other:
                raise NotImplementedError(f"A convolution is followed by {other!r}, which is not known here.")
    return y


def _matrix_product(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    return _fused(inputs[0] @ inputs[1], inputs[2:], attributes)


def _prelu(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    return torch.where(inputs[0] >= 0, inputs[0], inputs[0] * inputs[1])


def _resize(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    if attributes.get("half_pixel_centers", {}).get("b"):
        corners = False
    elif attributes.get("align_corners", {}).get("b"):
        corners = True
    else:
        raise NotImplementedError("Resizing by TensorFlow's first rule is not known here.")
    x, size = inputs[0].permute(0, 3, 1, 2), tuple(inputs[1].tolist())
    return functional.interpolate(x, size, mode="bilinear", align_corners=corners).permute(0, 2, 3, 1)


def _mean(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    return inputs[0].mean(tuple(inputs[1].reshape(-1).tolist()), keepdim=bool(attributes["keep_dims"]["b"]))


def _pad(inputs: list[torch.Tensor], attributes: Attributes) -> torch.Tensor:
    return functional.pad(inputs[0], inputs[1].flip(0).reshape(-1).tolist())


_OPERATIONS: dict[str, Operation] = {
    "Conv2D": _convolution,
    "_FusedConv2D": _convolution,
    "DepthwiseConv2dNative": partial(_convolution, depthwise=True),
    "FusedDepthwiseConv2dNative": partial(_convolution, depthwise=True),
    "Conv2DBackpropInput": _transposed_convolution,
    "MaxPool": partial(_pool, largest=True),
    "AvgPool": partial(_pool, largest=False),
    "_FusedMatMul": _matrix_product,
    "MatMul": _matrix_product,
    "ResizeBilinear": _resize,
    "Mean": _mean,
    "Sub": lambda inputs, attributes: inputs[0] - inputs[1],
    "Pad": _pad,
    "Prelu": _prelu,
    "Reshape": lambda inputs, attributes: inputs[0].reshape(tuple(inputs[1].tolist())),
    "Add": lambda inputs, attributes: inputs[0] + inputs[1],
    "AddV2": lambda inputs, attributes: inputs[0] + inputs[1],
    "AddN": lambda inputs, attributes: sum(inputs[1:], inputs[0]),
    "Mul": lambda inputs, attributes: inputs[0] * inputs[1],
    "Minimum": lambda inputs, attributes: torch.minimum(inputs[0], inputs[1]),
    "Maximum": lambda inputs, attributes: torch.maximum(inputs[0], inputs[1]),
    "Relu": lambda inputs, attributes: inputs[0].relu(),
    "Relu6": lambda inputs, attributes: inputs[0].clamp(0, 6),
    "Sigmoid": lambda inputs, attributes: inputs[0].sigmoid(),
    "Softmax": lambda inputs, attributes: inputs[0].softmax(-1),
    "Identity": lambda inputs, attributes: inputs[0],
}
