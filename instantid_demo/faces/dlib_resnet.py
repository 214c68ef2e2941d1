"""dlib's face recognition ResNet as a PyTorch module, so that training can send gradients through it.

Architecture: dlib `dnn_face_recognition_ex.cpp` (`anet_type`, 29 convolutions); weights: the CC0 file
`dlib_face_recognition_resnet_model_v1.dat` of the `face-recognition-models` package. Batch normalisation
is already folded into per-channel affine layers in that file.
"""

import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instantid_demo.faces.packaged import recognition_model_file

CHIP_SIZE = 150
"""Side of the square face chip in pixels."""
_RGB_MEAN = (122.782, 117.001, 104.298)
_LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""(channels, residual blocks, first block halves the size) from the input to the embedding."""


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        stride, padding = (2, 0) if halves else (1, 1)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        skip = F.avg_pool2d(x, 2, 2) if self.halves else x
        # dlib's add_prev pads the smaller operand with zeros, in channels and in space.
        height, width = max(y.shape[2], skip.shape[2]), max(y.shape[3], skip.shape[3])
        channels = max(y.shape[1], skip.shape[1])
        return F.relu(_grow(y, channels, height, width) + _grow(skip, channels, height, width))


def _grow(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    missing = (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1])
    return F.pad(x, missing) if any(missing) else x


class DlibResNet(nn.Module):
    """Face chip -> 128-d embedding, equal to `dlib.face_recognition_model_v1` and differentiable."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        blocks, channels = [], 32
        for width, count, halves in _LEVELS:
            for index in range(count):
                blocks.append(_Block(channels, width, halves and index == 0))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(_RGB_MEAN).view(1, 3, 1, 1), persistent=False)

    def features(self, chips: Tensor) -> list[Tensor]:
        """Activations after the stem and after each of the 14 residual blocks.

        Args:
            chips: `(n, 3, 150, 150)` RGB in 0..255.
        """
        x = F.max_pool2d(F.relu(self.stem((chips - self.mean) / 256)), 3, 2)
        activations = [x]
        for block in self.blocks:
            x = block(x)
            activations.append(x)
        return activations

    def forward(self, chips: Tensor) -> Tensor:
        """`(n, 3, 150, 150)` RGB in 0..255 -> `(n, 128)` embeddings, neither centred nor normalised."""
        return self.embed(self.features(chips)[-1])

    def embed(self, last: Tensor) -> Tensor:
        """Embedding from the last entry of `features`."""
        return self.fc(last.mean((2, 3)))

    @classmethod
    def pretrained(cls, file: Path | None = None) -> "DlibResNet":
        """The network with dlib's published weights, in evaluation mode and without gradients of its own.

        Raises:
            FileNotFoundError: the weight package is not installed.
            ValueError: the file is not dlib's recognition ResNet.
        """
        net = cls()
        tensors = _read_tensors((file or recognition_model_file()).read_bytes())
        convolutions = [net.stem] + [conv for block in net.blocks for conv in (block.conv1, block.conv2)]
        if len(tensors) != 2 * len(convolutions) + 1:
            raise ValueError(f"Expected dlib's recognition ResNet, found {len(tensors)} weight tensors.")
        for conv, filters, affine in zip(convolutions, tensors[0:-1:2], tensors[1:-1:2], strict=True):
            out, count = conv.weight.shape[0], conv.weight.numel()
            gain, shift = affine.view(2, out)
            weight, bias = filters[:count].view_as(conv.weight), filters[count:]
            conv.weight.data.copy_(weight * gain.view(-1, 1, 1, 1))
            conv.bias.data.copy_(bias * gain + shift)
        net.fc.weight.data.copy_(tensors[-1].view(256, 128).T)
        return net.eval().requires_grad_(False)


def _read_tensors(data: bytes) -> list[Tensor]:
    """Parameter tensors of the layers `con_`, `affine_` and `fc_` of a dlib network file, input first.

    dlib writes an integer as a control byte (low bits: byte count, top bit: sign) and its bytes, a string
    with its length before it, and a tensor as version 2, four dimensions and little-endian float32.
    """

    def integer(at: int) -> tuple[int, int]:
        size = data[at] & 0x0F
        value = int.from_bytes(data[at + 1 : at + 1 + size], "little")
        return (-value if data[at] & 0x80 else value), at + 1 + size

    def tensor(at: int) -> tuple[Tensor, int] | None:
        version, at = integer(at)
        if version != 2:
            return None
        count = 1
        for _ in range(4):
            dimension, at = integer(at)
            count *= dimension
        values = struct.unpack_from(f"<{count}f", data, at)
        return torch.tensor(values), at + 4 * count

    found: list[Tensor] = []
    at = 0
    while True:
        starts = [(position, name) for name in (b"con_", b"affine_", b"fc_") if (position := data.find(name, at)) >= 0]
        if not starts:
            return found
        start, name = min(starts)
        length = data[start - 1]
        body = start + length
        if name == b"fc_":  # its two sizes stand before the tensor
            body = integer(integer(body)[1])[1]
        read = tensor(body)
        if read is None or not read[0].numel():
            at = start + len(name)
            continue
        found.append(read[0])
        at = read[1]
