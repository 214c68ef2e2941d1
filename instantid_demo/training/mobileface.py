"""A second teacher of another family than the recogniser that conditions Pocket: MobileFace, never shipped.

It is read from an ONNX file (`onnx2torch` makes a differentiable module of it) and used in training alone.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 112
KEYPOINTS = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace's alignment puts the five keypoints in its 112 pixels."""

_TAPS = ("n66_add", "n110_add", "n154_add", "n198_add")
"""The ends of the stages, (28, 28, 32) to (4, 4, 128)."""


class MobileFace(nn.Module):
    """Activations and embedding of a face; frozen, gradients flow to the picture."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        from onnx2torch import convert

        graph: Any = convert(str(file)).eval()
        for node in list(graph.graph.nodes):
            if node.op == "output":
                taps = [found for found in graph.graph.nodes if found.name in _TAPS]
                node.args = ((*taps, node.args[0]),)
        graph.recompile()
        self.graph = graph.requires_grad_(False)

    def forward(self, chips: Tensor) -> tuple[list[Tensor], Tensor]:
        """Activations of four depths and unit embeddings `(n, 256)` of chips `(n, 3, 112, 112)` in -1..1."""
        # In float32: the graph's many transpositions make bfloat16 no faster.
        with torch.autocast("cpu", enabled=False):
            *taps, embedding = self.graph(chips.float())
        return taps, F.normalize(embedding.flatten(1), dim=-1)


def distance(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean L1 distance of activations, each depth in units of its own size, `(n,)`."""
    total = found[0].new_zeros(len(found[0]))
    for mine, other in zip(found, wanted, strict=True):
        total = total + (mine - other).abs().mean((1, 2, 3)) / (other.abs().mean() + 1e-6)
    return total / len(found)
