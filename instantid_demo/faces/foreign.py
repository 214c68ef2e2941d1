"""Face embeddings that other programs saved, such as ComfyUI's nodes: read without running any code in them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from instantid_demo.request import RequestError

SUFFIXES = (".safetensors", ".npy", ".pt")
MOST_BYTES = 2**20
THUMBNAIL = "thumbnail"
"""What an identity card may hold beside its embedding."""


def is_identity(file: Any) -> bool:
    """Whether a file is an identity card or an embedding, by its name, and no photo."""
    return isinstance(file, (str, Path)) and Path(file).suffix.lower() in SUFFIXES


def vectors(file: Path) -> np.ndarray:
    """`(d,)` or `(k, d)` float32: the one tensor in a .npy, .safetensors or .pt file, as it stands there.

    Raises:
        RequestError: the file holds something else, or code.
    """
    name = file.name
    try:
        if file.stat().st_size > MOST_BYTES:
            raise _too_large(name)
        found = [np.asarray(value, np.float32).squeeze() for value in _tensors(file) if value.size]
    except RequestError:
        raise
    except Exception as error:  # each of these libraries has errors of its own for a foreign file
        raise RequestError(
            f"{name} is not an identity card and not a face embedding: give a card that was saved here, "
            "a .npy, .safetensors or .pt file with an embedding, or a photo."
        ) from error
    if len(found) != 1 or found[0].ndim not in (1, 2):
        raise RequestError(f"{name} is not a face embedding: it must hold one tensor, a row of numbers per photo.")
    if not np.isfinite(found[0]).all() or not np.linalg.norm(np.atleast_2d(found[0]), axis=1).all():
        raise RequestError(f"{name} is damaged: its numbers are no face embedding. Make it anew from a photo.")
    return found[0]


def _tensors(file: Path) -> list[np.ndarray]:
    if file.suffix.lower() == ".npy":
        return [_real(np.load(file, allow_pickle=False))]
    if file.suffix.lower() == ".safetensors":
        from safetensors.numpy import load_file

        return [_real(array) for name, array in load_file(file).items() if name != THUMBNAIL]
    import torch

    from instantid_demo.method.checkpoints import scan_pickle

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            if sum(part.file_size for part in parts.infolist()) > MOST_BYTES:
                raise _too_large(file.name)
    scan_pickle(file)
    read = torch.load(file, map_location="cpu", weights_only=True)
    tensors = list(read.values()) if isinstance(read, dict) else [read]
    # A few bytes can stand for a tensor as large as one likes, if all its rows are the same memory.
    if sum(tensor.numel() for tensor in tensors) > MOST_BYTES:
        raise _too_large(file.name)
    return [_real((tensor.float() if tensor.is_floating_point() else tensor).numpy()) for tensor in tensors]


def _real(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"an embedding is of real numbers, not of {array.dtype}")
    return array


def _too_large(name: str) -> RequestError:
    return RequestError(f"{name} is too large for an identity card or a face embedding.")
