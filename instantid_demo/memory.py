"""Memory that nobody uses goes back, and lacking it is told from other errors."""

import ctypes
import gc
import sys
from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")


def free_memory() -> None:
    """Returns unused memory to the device, and to the system what the C library keeps for itself (on Linux)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the machine has too little memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in words for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def available_memory() -> int:
    """Bytes of main memory that this process can still get, within the limit of its container where it has one."""
    memory = psutil.virtual_memory()
    if sys.platform == "darwin":
        return memory.total - memory.wired  # what other programs hold is compressed as soon as it is needed
    return min([memory.available, *_container_limits()])


def _container_limits() -> list[int]:
    """What is left in each of the process's control groups (Linux, version 2) that has a limit."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
    except OSError:
        return []
    left = []
    for group in (CGROUPS / own, *(CGROUPS / own).parents):
        try:
            most, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
            # Pages of files that nobody reads give way.
            cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        except (OSError, ValueError, KeyError):
            continue
        if most.isdigit():
            left.append(int(most) - used + int(cached))
    return left
