"""Which backend computes on a processor: OpenVINO where it is installed and pays, PyTorch otherwise."""

import shutil
from collections.abc import Callable
from typing import Any

import psutil
import torch

from instantid_demo.backends import converted, openvino
from instantid_demo.method.loading import ACTIVATIONS, computes_in_bfloat16
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings
from instantid_demo.sources import Source


def choose(
    settings: Settings, pipe: Any, source: Source | None = None, say: Callable[[str], None] = lambda said: None
) -> openvino.OpenVino | None:
    """The backend of a freshly loaded pipeline; None: PyTorch alone.

    Args:
        settings: what the host wants.
        pipe: the pipeline.
        source: what it was loaded from, which names the folders of its converted networks.
        say: hears why it is not what would be faster.

    Raises:
        RequestError: the host asks for OpenVINO where it cannot run.
    """
    device = pipe.unet.device.type
    if settings.backend == "openvino" and device != "cpu":
        raise RequestError("OpenVINO computes on the processor: set INSTANTID_DEVICE=cpu, or INSTANTID_BACKEND=auto.")
    if settings.backend == "openvino" and not openvino.available():
        raise RequestError("OpenVINO is not installed: run `pip install openvino`, or set INSTANTID_BACKEND=torch.")
    if settings.backend == "torch" or device != "cpu" or not openvino.available():
        return None
    converted.sweep(settings)
    here = converted.root(settings)
    cache, identity = converted.places(source, settings) if source else (here / "other", None)
    backend = openvino.OpenVino(
        cache,
        precision(pipe.unet.dtype),
        identity=identity,
        may_convert=lambda: settings.backend == "openvino" or not converted.declined(settings),
    )
    backend.adopt(here)
    return backend if settings.backend == "openvino" or _pays(pipe, backend, say) else None


def precision(dtype: torch.dtype) -> openvino.Precision:
    """What OpenVINO computes in for networks of this type: bfloat16 without instructions for it is slow."""
    if dtype != torch.bfloat16:
        return "f32"
    return "bf16" if computes_in_bfloat16() else "i8"


def _pays(pipe: Any, backend: openvino.OpenVino, say: Callable[[str], None]) -> bool:
    """Whether the networks are large enough to be worth it, and memory and disk have room for it."""
    sizes = [sum(weight.numel() for weight in net.parameters()) for net in (pipe.unet, *pipe.controlnets)]
    # OpenVINO's weights take the place of PyTorch's in memory: what lies between the layers comes on top.
    if sum(sizes) < openvino.LARGE or psutil.virtual_memory().available < ACTIVATIONS:
        return False
    folder = backend.cache
    while not folder.exists():
        folder = folder.parent
    # On the disk lie PyTorch's and OpenVINO's copies of all, and for a while one in float32.
    needed = 2 * pipe.unet.dtype.itemsize * sum(sizes) + 4 * max(sizes)
    needed -= round(1e9 * sum(converted.gigabytes(place) for place in {backend.cache, backend.identity}))
    if backend.ready(pipe):
        return True
    if not backend.may_convert():
        return False
    room = shutil.disk_usage(folder).free > needed
    if not room:
        say(f"OpenVINO would be faster, but needs {needed / 1e9:.0f} GB of disk: PyTorch computes.")
    return room
