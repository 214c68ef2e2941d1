"""Which backend computes on a processor: OpenVINO where it is installed and pays, PyTorch otherwise."""

import shutil
from typing import Any

import psutil
import torch

from instantid_demo.backends import openvino
from instantid_demo.method.loading import ACTIVATIONS, computes_in_bfloat16
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings


def choose(settings: Settings, pipe: Any) -> openvino.OpenVino | None:
    """The backend of a freshly loaded pipeline; None: PyTorch alone.

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
    backend = openvino.OpenVino(settings.home / "openvino", precision(pipe.unet.dtype))
    return backend if settings.backend == "openvino" or _pays(pipe, backend) else None


def precision(dtype: torch.dtype) -> openvino.Precision:
    """What OpenVINO computes in for networks of this type: bfloat16 without instructions for it is slow."""
    if dtype != torch.bfloat16:
        return "f32"
    return "bf16" if computes_in_bfloat16() else "i8"


def _pays(pipe: Any, backend: openvino.OpenVino) -> bool:
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
    return shutil.disk_usage(folder).free > needed or backend.ready(pipe)
