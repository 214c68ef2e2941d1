"""`torch.compile` for the parts that repeat: minutes once per shape of weights, then any prompt and any size.

Convolution blocks and feed-forward parts alone: there the compiler merges norms and activations into one pass over
memory. Attention stays as it is: it runs on kernels that the compiler would call as well, and on what
`method.savings` keeps per request.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

REPEATED = (ResnetBlock2D, FeedForward)
SHAPES = 64
"""Most kinds of weights that one part is compiled for: SDXL has a dozen, twice because guidance doubles the batch."""


def compile_repeated(net: nn.Module, backend: str = "inductor") -> None:
    """Compiles the repeated parts of a network when they run first; what cannot be compiled runs as before.

    Args:
        net: a UNet or ControlNet.
        backend: of `torch.compile`.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, SHAPES)
    config.suppress_errors = True
    for part in _repeated(net):
        # dynamic: another size of the picture is no reason to compile again.
        part.compile(backend=backend, dynamic=True)


def compiled_no_more(net: nn.Module) -> None:
    """Undoes `compile_repeated`."""
    for part in _repeated(net):
        part._compiled_call_impl = None


@contextmanager
def repeated_parts_compiled(nets: Iterable[nn.Module], backend: str = "inductor") -> Iterator[None]:
    """`compile_repeated` for a while; the compiler's work is kept for the next time."""
    known = list(nets)
    try:
        for net in known:
            compile_repeated(net, backend)
        yield
    finally:
        for net in known:
            compiled_no_more(net)


def uncompiled(net: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network that are neither compiled nor within something that is."""
    yield net
    for child in net.children():
        if child._compiled_call_impl is None:
            yield from uncompiled(child)


def _repeated(net: nn.Module) -> Iterator[Any]:
    return (part for part in net.modules() if isinstance(part, REPEATED))
