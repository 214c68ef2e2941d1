"""The number format that training computes in."""

import torch

from instantid_demo.method.loading import computes_in_bfloat16


def autocast() -> torch.autocast:
    """bfloat16 where this processor has instructions for it; elsewhere float32, which is faster than imitating it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16())
