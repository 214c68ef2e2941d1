"""Pocket's stage for the extra ControlNet on edges, depth and pose: it alone learns, everything else is frozen."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from instantid_demo.training import control_maps
from instantid_demo.training.denoising import Conditions
from instantid_demo.training.drawing import Batch
from instantid_demo.training.hybrid import HybridTrainer


class ControlTrainer(HybridTrainer):
    """Trains `networks.control_net`, each picture with a map of a kind drawn by lot.

    Half of the pictures should come without a keypoint map (`Drops.map`): then it learns to place the head by itself.
    """

    def learners(self) -> dict[str, nn.Module]:
        """The extra ControlNet alone."""
        assert self.networks.control_net is not None
        return {"control_net": self.networks.control_net}

    def conditions(self, batch: Batch) -> Conditions:
        """With a control map beside the usual conditions."""
        return replace(super().conditions(batch), controls=self._maps(batch))

    def _maps(self, batch: Batch) -> Tensor:
        """Maps `(n, 3, 128, 128)` in 0..1."""
        pictures = ((batch.pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        drawn = [
            control_maps.any_kind(np.ascontiguousarray(picture), points, self.drawer.draw)
            for picture, points in zip(pictures, batch.keypoints.numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255
