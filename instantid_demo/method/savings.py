"""Exact savings: the same picture for less work. Each can be switched off, to see what it is worth.

    with pipe.conditioned([...]), savings.applied(pipe):
        pipe(...)

`INSTANTID_WITHOUT=keys,kernels` (names of `Savings`' fields) switches some of them off for a process.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instantid_demo.backends.compiled import uncompiled
from instantid_demo.memory import free_memory

REMEMBERED = 4
"""Answers that a remembered module keeps: one per person of a request."""
REMEMBERED_FACES = 16
"""Faces whose tokens are kept from one request to the next."""


@dataclass(frozen=True)
class Savings:
    """Which savings are on."""

    keys: bool = True
    """Keys and values of text and identity tokens, in UNet and IdentityNet, are projected once per request."""
    keypoint_map: bool = True
    """The ControlNets encode their maps once per request, and once for both halves of guidance."""
    kernels: bool = True
    """float32 on a CPU: oneDNN multiplies the matrices, twice as fast as MKL on AMD's processors."""
    tokens: bool = True
    """A face's identity tokens are kept for the next requests."""
    layout: bool = True
    """CPU: convolutions with channels last; stays so after the request, it does not change what they compute."""

    @classmethod
    def from_environment(cls) -> "Savings":
        """All savings but those named in INSTANTID_WITHOUT; unknown names are ignored."""
        without = {name.strip() for name in os.environ.get("INSTANTID_WITHOUT", "").split(",")}
        return cls(**{field.name: field.name not in without for field in fields(cls)})


@contextmanager
def applied(pipe: Any, savings: Savings | None = None) -> Iterator[None]:
    """The savings for one request, to be entered inside `pipe.conditioned`; afterwards the networks are as before.

    Args:
        pipe: an `InstantID` pipeline.
        savings: None: `Savings.from_environment()`.
    """
    chosen = Savings.from_environment() if savings is None else savings
    nets = [pipe.unet, *pipe.controlnets]
    on_cpu = all(net.device.type == "cpu" for net in nets)
    with ExitStack() as stack:
        if pipe.conditioning is not None:
            pipe.conditioning.reuse_keys = chosen.keys
        if chosen.layout and on_cpu:
            for net in nets:
                channels_last(net)
        if chosen.kernels and on_cpu and pipe.unet.dtype == torch.float32 and has_onednn():
            for net in nets:
                for module in uncompiled(net):
                    if type(module) is nn.Linear:
                        stack.enter_context(replaced(module, _onednn(module)))
        for net in pipe.controlnets:
            if chosen.keypoint_map:
                encoder = net.controlnet_cond_embedding
                stack.enter_context(replaced(encoder, Remembered(for_both_halves(encoder.forward))))
            if chosen.keys:
                for name, module in net.named_modules():
                    if name.endswith(("attn2.to_k", "attn2.to_v")):
                        stack.enter_context(replaced(module, Remembered(module.forward)))
        yield


@contextmanager
def remembered_tokens(pipe: Any, savings: Savings | None = None) -> Iterator[None]:
    """Answers for faces that the Resampler has seen before; to be entered before `pipe.conditioned`."""
    chosen = Savings.from_environment() if savings is None else savings
    module = pipe.resampler
    # Offloading replaces `forward` to bring the weights: it must have its way.
    if not chosen.tokens or "forward" in module.__dict__:
        yield
        return
    if not hasattr(module, "remembered"):
        module.remembered = Remembered(lambda given: type(module).forward(module, given), REMEMBERED_FACES)
    with replaced(module, module.remembered):
        yield


class Remembered:
    """A function of one tensor that keeps its last answers, by the tensor's content."""

    def __init__(self, function: Callable[[Tensor], Tensor], most: int = REMEMBERED) -> None:
        self._function, self._most = function, most
        self._kept: list[tuple[Tensor, int, Tensor]] = []

    def __call__(self, given: Tensor) -> Tensor:
        for known, version, answer in self._kept:
            if _same(given, known, version):
                return answer
        answer = self._function(given)
        # `given` is kept as well: its memory cannot become another tensor's meanwhile.
        self._kept = [*self._kept[1 - self._most :], (given, given._version, answer)]
        return answer


def _same(given: Tensor, known: Tensor, version: int) -> bool:
    if given.shape != known.shape or given.dtype != known.dtype or given.device != known.device:
        return False
    if known._version != version:
        return False  # it was changed in place: its old content is gone
    return (given.data_ptr() == known.data_ptr() and given.stride() == known.stride()) or torch.equal(given, known)


def for_both_halves(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`function` of a batch, computed for one row where all rows are equal."""

    def once(batch: Tensor) -> Tensor:
        if len(batch) > 1 and all(torch.equal(batch[0], row) for row in batch[1:]):
            return function(batch[:1]).expand(len(batch), -1, -1, -1)
        return function(batch)

    return once


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module` with another `forward`, on this object alone."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def channels_last(net: nn.Module) -> None:
    """Lays the weights of `net`'s convolutions out with channels last, unless they are."""
    first = next((module.weight for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and not first.is_contiguous(memory_format=torch.channels_last):
        net.to(memory_format=torch.channels_last)
        # The old weights' places lie scattered and would stay with the process.
        free_memory()


def has_onednn() -> bool:
    """Whether this build of PyTorch has oneDNN's matrix product as an operation of its own."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    product = torch.ops.mkldnn._linear_pointwise

    def forward(given: Tensor) -> Tensor:
        if given.dtype != torch.float32 or torch.is_grad_enabled():
            return F.linear(given, module.weight, module.bias)
        return product(given, module.weight, module.bias, "none", [], "")

    return forward
