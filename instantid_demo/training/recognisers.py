"""Two more networks that know faces, used in training alone: a second teacher, and a judge that no loss ever asks.

Both come from the npm package that also labels the photographs (`labelling.networks`) and are never shipped. MobileFace
(256 numbers) teaches beside the recogniser that conditions Pocket; the features of `faceres` judge.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from instantid_demo.training.labelling.graph_models import GraphModel

SIDE = 112
KEYPOINTS = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace's alignment puts the five keypoints in these 112 pixels."""

_MEAN_BGR = torch.tensor((103.939, 116.779, 123.68))
_STAGES = ["add_4", "add_8", "add_12", "add_16"]
"""The ends of MobileFace's stages, (28, 28, 32) to (4, 4, 128)."""


class MobileFace:
    """Activations and embedding of a face; gradients flow to the picture."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds the package's networks."""
        self._graph = GraphModel(folder / "mobileface.json")

    def __call__(self, chips: Tensor) -> tuple[list[Tensor], Tensor]:
        """Activations of four depths and unit embeddings `(n, 256)` of chips `(n, 3, 112, 112)` in -1..1."""
        # In float32: the graph's many transpositions make bfloat16 no faster.
        with torch.autocast("cpu", enabled=False):
            pixels = (chips.float() * 127.5 + 127.5).permute(0, 2, 3, 1)
            *stages, embedding = self._graph.tensors(pixels, [*_STAGES, "batchnorm0/add_1"])
        return stages, F.normalize(embedding.flatten(1), dim=-1)


class FaceFeatures:
    """The judge: what a network for ages and sexes sees in a face, about a mean over faces.

    100 portraits: mirrored, cosine .93 to themselves and .00 to others; reduced to 60 pixels .66.
    """

    def __init__(self, folder: Path, references: Tensor) -> None:
        """`folder` holds the package's networks; `references` `(m, 3, 112, 112)` are faces whose mean is taken off."""
        self._graph = GraphModel(folder / "faceres.json")
        self._mean = torch.zeros(())
        self._mean = self._features(references).mean(0)

    def __call__(self, chips: Tensor) -> Tensor:
        """Unit embeddings `(n, 1024)` of chips `(n, 3, 112, 112)` in -1..1."""
        return F.normalize(self._features(chips) - self._mean, dim=-1)

    @torch.no_grad()
    def _features(self, chips: Tensor) -> Tensor:
        pixels = F.interpolate((chips.float() + 1) * 127.5, (224, 224), mode="bilinear").flip(1).permute(0, 2, 3, 1)
        with torch.autocast("cpu", enabled=False):
            (features,) = self._graph.tensors(pixels - _MEAN_BGR, ["global_pooling/Mean"])
        return F.normalize(features.flatten(1), dim=-1)


def distance(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean L1 distance of activations, each depth in units of its own size, `(n,)`."""
    total = found[0].new_zeros(len(found[0]))
    for mine, other in zip(found, wanted, strict=True):
        total = total + (mine - other).abs().mean((1, 2, 3)) / (other.abs().mean() + 1e-6)
    return total / len(found)
