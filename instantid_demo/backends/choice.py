"""Which backend computes on a processor: OpenVINO where it is installed and pays, PyTorch otherwise."""

import shutil
from pathlib import Path
from typing import Any

import torch

from instantid_demo.backends import openvino
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

WORTHWHILE = 100_000_000
"""Weights below which PyTorch needs less time than OpenVINO needs to read its networks."""


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
    folder = settings.home / "openvino"
    if settings.backend == "auto" and not _pays(pipe, folder):
        return None
    return openvino.OpenVino(folder, "bf16" if pipe.unet.dtype == torch.bfloat16 else "f32")


def _pays(pipe: Any, folder: Path) -> bool:
    """Whether the networks are large enough to be worth it, and memory and disk can take them once more."""
    import psutil

    nets = (pipe.unet, *pipe.controlnets)
    sizes = [sum(weight.numel() for weight in net.parameters()) for net in nets]
    while not folder.exists():
        folder = folder.parent
    on_disk, in_memory = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    # On the disk lie all of them; while one is converted it is in memory in float32 once more.
    return sum(sizes) > WORTHWHILE and on_disk > 5 * sum(sizes) and in_memory > 5 * max(sizes)
