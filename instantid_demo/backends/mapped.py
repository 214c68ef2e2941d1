"""Weights on the disk, mapped into memory: read when something computes with them, given up when memory is short."""

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

_ALIGNED = 64
"""Elements to whose multiple a weight's place in the file is rounded up: kernels like aligned rows."""
_SPARE = 2**30
"""Bytes of the disk that stay free."""


def mapped(network: nn.Module, file: Path, dtype: torch.dtype | None = None, *, channels_last: bool = True) -> None:
    """Lets a network's weights lie in `file`, which is written first if it is not there; LoRAs stay in memory.

    The name of the file must tell networks apart: it holds nothing but numbers.

    Args:
        network: its weights may lie in another file already.
        file: appears when it is complete.
        dtype: of the weights from now on; None: as they are.
        channels_last: how convolutions lie in the file.

    Raises:
        OSError: the disk is full.
    """
    weights = _weights(network)
    dtype = dtype or weights[0].dtype
    places = [0]
    for weight in weights:
        places.append(places[-1] + -(-weight.numel() // _ALIGNED) * _ALIGNED)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        _reserve(part, places[-1] * dtype.itemsize)
        numbers = torch.from_file(str(part), shared=True, size=places[-1], dtype=dtype)
        for weight, place in zip(weights, places, strict=False):
            _shaped(numbers, place, weight, channels_last).copy_(weight.detach())
        del numbers
        part.replace(file)
    numbers = torch.from_file(str(file), shared=False, size=places[-1], dtype=dtype)
    for weight, place in zip(weights, places, strict=False):
        weight.data = _shaped(numbers, place, weight, channels_last)


@contextmanager
def in_float32(network: nn.Module, file: Path) -> Iterator[None]:
    """The network in float32, its numbers in `file` meanwhile, so that they need no memory; removed afterwards.

    Raises:
        OSError: the disk is full.
    """
    weights = _weights(network)
    if weights[0].dtype == torch.float32:
        yield
        return
    before = [weight.data for weight in weights]
    try:
        mapped(network, file, torch.float32, channels_last=False)
        yield
    finally:
        for weight, data in zip(weights, before, strict=True):
            weight.data = data
        gc.collect()  # a file that is still mapped cannot be removed everywhere
        file.unlink(missing_ok=True)


def _weights(network: nn.Module) -> list[nn.Parameter]:
    return [weight for name, weight in network.named_parameters() if ".lora_" not in name]


def _shaped(numbers: Tensor, place: int, like: Tensor, channels_last: bool) -> Tensor:
    """The weight of the shape of `like` that begins at `place`."""
    flat = numbers[place : place + like.numel()]
    if like.dim() != 4 or not channels_last:
        return flat.view(like.shape)
    out, inside, height, width = like.shape
    return flat.view(out, height, width, inside).permute(0, 3, 1, 2)


def _reserve(file: Path, size: int) -> None:
    """An empty file of `size` bytes; a disk that fills up while a mapping is written would end the process."""
    if shutil.disk_usage(file.parent).free < size + _SPARE:
        raise OSError(f"the disk has too little room: {file.name} takes {size / 2**30:.1f} GB")
    with file.open("wb") as opened:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, size)
        else:
            opened.truncate(size)
