"""Memory that nobody uses goes back, and lacking it is told from other errors."""

import ctypes
import gc

import torch


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
