"""What looks at decoded pictures during training and sends gradients back: the recogniser and a critic."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instantid_demo.faces.dlib_resnet import CHIP_SIZE, DlibResNet
from instantid_demo.faces.offline import CHIP_KEYPOINTS
from instantid_demo.training.precision import autocast
from instantid_demo.training.vae import PatchDiscriminator

_CHIP = torch.from_numpy(CHIP_KEYPOINTS * CHIP_SIZE)
_DEPTHS = (0, 3, 7, 10)
"""Activations compared for the look: from edges to parts of a face."""


@dataclass(frozen=True)
class Verdict:
    """Losses of a batch of decoded pictures, each `(n,)`.

    Attributes:
        likeness: 1 - cosine between the picture's embedding and its person's.
        confusion: Cross-entropy of finding the person among all training persons (temperature 0.1).
        look: Distance of the recogniser's activations to those of the real picture.
        cosine: The cosine itself, without gradient.
    """

    likeness: Tensor
    confusion: Tensor
    look: Tensor
    cosine: Tensor


class Recogniser(nn.Module):
    """dlib's network behind a differentiable alignment by the known keypoints."""

    def __init__(self, centre: np.ndarray, persons: np.ndarray) -> None:
        super().__init__()
        self.net = DlibResNet.pretrained().to(memory_format=torch.channels_last)
        self.register_buffer("centre", torch.from_numpy(centre))
        self.register_buffer("persons", torch.from_numpy(persons))

    def forward(self, made: Tensor, real: Tensor, keypoints: Tensor, person: Tensor) -> Verdict:
        """Judges pictures `(n, 3, h, w)` in -1..1 with keypoints `(n, 5, 2)` in pixels; `person` indexes `persons`."""
        chips = align_tensor(torch.cat([made, real]), keypoints.repeat(2, 1, 1))
        chips = ((chips + 1) * 127.5).to(memory_format=torch.channels_last)
        with torch.no_grad():
            targets = self.net.features(chips[len(made) :])
        found = self.net.features(chips[: len(made)])
        look = made.new_zeros(len(made))
        for depth in _DEPTHS:
            scale = targets[depth].float().abs().mean() + 1e-6
            look = look + (found[depth].float() - targets[depth].float()).abs().mean((1, 2, 3)) / scale
        embedding = F.normalize(self.net.embed(found[-1]).float() - self.centre, dim=-1)
        cosines = embedding @ self.persons.T
        cosine = cosines.gather(1, person[:, None])[:, 0]
        confusion = F.cross_entropy(cosines / 0.1, person, reduction="none")
        return Verdict(1 - cosine, confusion, look / len(_DEPTHS), cosine.detach())


def align_tensor(
    pictures: Tensor,
    keypoints: Tensor,
    target: Tensor = _CHIP,
    side: int = CHIP_SIZE,
) -> Tensor:
    """Face chips `(n, 3, side, side)` with the keypoints near `target` `(5, 2)`, differentiable in the picture.

    By default what `faces.offline.align` makes.
    """
    source_mean, target_mean = keypoints.mean(1, keepdim=True), target.mean(0)
    source, wanted = keypoints - source_mean, target - target_mean
    # Chip -> picture: p = A (c - target_mean) + source_mean with A = [[a, -b], [b, a]].
    norm = wanted.square().sum()
    a = (wanted * source).sum((1, 2)) / norm
    b = (wanted[:, 0] * source[..., 1] - wanted[:, 1] * source[..., 0]).sum(1) / norm
    matrix = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), -1).float()
    points = (grid - target_mean).view(1, -1, 2) @ matrix.transpose(1, 2) + source_mean
    size = torch.tensor([pictures.shape[3], pictures.shape[2]], dtype=torch.float32)
    normalised = (2 * points + 1) / size - 1
    grid = normalised.view(len(pictures), side, side, 2)
    return F.grid_sample(pictures.float(), grid, align_corners=False, padding_mode="border")


class Critic:
    """Tells made pictures from real ones by patches of two sizes (hinge loss), and learns as it goes."""

    def __init__(self, learning_rate: float = 3e-4) -> None:
        self.nets = nn.ModuleList([PatchDiscriminator(48), PatchDiscriminator(48)])
        self.nets.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.nets.parameters(), learning_rate, betas=(0.5, 0.99))

    def scores(self, pictures: Tensor) -> list[Tensor]:
        """Patch scores at full and at half size of pictures `(n, 3, h, w)` in -1..1."""
        pictures = pictures.to(memory_format=torch.channels_last)
        return [self.nets[0](pictures), self.nets[1](F.avg_pool2d(pictures, 2))]

    def judge(self, made: Tensor) -> Tensor:
        """The generator's loss: lower the more real the pictures look."""
        self.nets.requires_grad_(False)
        loss = -torch.stack([score.mean() for score in self.scores(made)]).mean()
        self.nets.requires_grad_(True)
        return loss

    def learn(self, real: Tensor, made: Tensor) -> float:
        """One step on a batch of real and made pictures; returns the hinge loss (2: no idea, 0: certain)."""
        with autocast():
            scores = self.scores(torch.cat([real, made]))
        count = len(real)
        losses = [F.relu(1 - s[:count].float()).mean() + F.relu(1 + s[count:].float()).mean() for s in scores]
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()
