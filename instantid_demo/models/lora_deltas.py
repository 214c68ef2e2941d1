"""Changes that peft's LoRA layers do not make: DoRA, LoHa, LoKr and whole differences, as exact deltas of the weights.

With `W` a layer's weight, `s` the request's weight and `scale = alpha / rank`:

    LoRA   W + s · scale · up · down                       (also with a small kernel between them)
    LoHa   W + s · scale · (w1_a · w1_b) ∘ (w2_a · w2_b)   (arXiv 2108.06098)
    LoKr   W + s · scale · w1 ⊗ w2                         (arXiv 2309.14859)
    diff   W + s · diff
    DoRA   W + s · (m · V / ‖V‖ - W), V = W + the delta of any of the above at s = 1   (arXiv 2402.09353)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
"""A layer's tensors by role; see `lora_layout.Layer`."""
SMALLEST = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Change:
    """What is done to one layer."""

    module: nn.Module
    tensors: Tensors
    scale: float
    strength: float
    """The request's weight."""


class DeltaError(ValueError):
    """The tensors are not complete, or do not go together."""


def rank_of(tensors: Tensors) -> int | None:
    """The rank that an alpha is measured by; None where nothing is factored."""
    for role, side in (("down", 0), ("hada_w1_b", 0), ("lokr_w2_b", 0), ("lokr_w1_b", 0)):
        if role in tensors:
            return tensors[role].shape[side] if tensors[role].ndim else None
    return None


def delta(tensors: Tensors, shape: torch.Size, scale: float) -> Tensor | None:
    """What is added to a weight of this shape at a weight of 1, float32; None where only the bias is meant.

    Raises:
        DeltaError: the tensors do not make it.
    """
    given = {role: tensor.float() for role, tensor in tensors.items()}
    try:
        found = product(given)
        if found is None:
            return None
        return (found * scale).reshape(shape)
    except (RuntimeError, IndexError, KeyError) as error:
        raise DeltaError(str(error)) from error


def product(given: Tensors) -> Tensor | None:
    """The factors multiplied out, in whatever shape they give.

    Raises:
        RuntimeError, IndexError, KeyError: they do not go together.
    """
    if "diff" in given:
        return given["diff"]
    if "down" in given or "up" in given:
        if "mid" in given:
            return _tucker(given["mid"], given["up"].flatten(1).T, given["down"].flatten(1))
        return given["up"].flatten(1) @ given["down"].flatten(1)
    if "hada_w1_a" in given:
        return _hadamard(given, "1") * _hadamard(given, "2")
    if any(role.startswith("lokr") for role in given):
        left = given["lokr_w1"] if "lokr_w1" in given else given["lokr_w1_a"] @ given["lokr_w1_b"]
        if "lokr_w2" in given:
            right = given["lokr_w2"]
        elif "lokr_t2" in given:
            right = _tucker(given["lokr_t2"], given["lokr_w2_a"], given["lokr_w2_b"])
        else:
            right = given["lokr_w2_a"] @ given["lokr_w2_b"]
        return torch.kron(left.reshape(*left.shape, *[1] * (right.ndim - left.ndim)), right)
    if "diff_b" in given:
        return None
    raise KeyError("no factors")


def _hadamard(given: Tensors, number: str) -> Tensor:
    first, second = given[f"hada_w{number}_a"], given[f"hada_w{number}_b"]
    core = given.get(f"hada_t{number}")
    return first @ second if core is None else _tucker(core, first, second)


def _tucker(core: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`core` (r, s, h, w) between `first` (r, out) and `second` (s, in): (out, in, h, w)."""
    return torch.einsum("r s h w, r o, s i -> o i h w", core, first, second)


def changed(weight: Tensor, tensors: Tensors, scale: float, strength: float) -> Tensor:
    """The weight with a change at `strength`, float32.

    Raises:
        DeltaError: the tensors do not fit it.
    """
    before = weight.float()
    added = delta(tensors, weight.shape, scale)
    if added is None:
        return before
    if "magnitude" not in tensors:
        return before + strength * added
    return before + strength * (_decomposed(before + added, tensors["magnitude"].float()) - before)


def _decomposed(direction: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA's weight: per output, or per input where the magnitude says so by its shape."""
    per_input = magnitude.ndim >= 2 and magnitude.shape[0] == 1 and direction.shape[0] != 1
    per_input &= magnitude.numel() == direction.shape[1]
    if magnitude.numel() != direction.shape[1 if per_input else 0]:
        raise DeltaError("magnitude")
    axis = 1 if per_input else 0
    others = [other for other in range(direction.ndim) if other != axis]
    wide = [1] * direction.ndim
    wide[axis] = -1
    return direction * (
        magnitude.reshape(wide) / torch.linalg.vector_norm(direction, dim=others, keepdim=True).clamp(min=SMALLEST)
    )


def require_fits(module: nn.Module, tensors: Tensors) -> None:
    """Checks a change against its layer by shapes alone; `tensors` may be on the meta device.

    Raises:
        DeltaError: it does not fit.
    """
    weight = torch.empty(module.weight.shape, device="meta")  # type: ignore[union-attr, arg-type]
    known = {role: tensor for role, tensor in tensors.items() if role != "alpha"}
    if delta(known, weight.shape, 1.0) is not None:
        found = product(known)
        if found is None or found.shape[:1] != weight.shape[:1]:
            raise DeltaError("outputs")
    if "magnitude" in known:
        changed(weight, known, 1.0, 1.0)
    for role in ("diff_b", "up_bias"):
        if role in known and (getattr(module, "bias", None) is None or known[role].numel() != weight.shape[0]):
            raise DeltaError("bias")


@contextmanager
def added(
    changes: Sequence[Change], touching: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[None]:
    """Layers with these changes; afterwards their own tensors are back.

    A changed weight is a new tensor, so nothing is subtracted: the old one waits, in main memory where the layer is
    on another device. `touching`: around whatever changes weights, where they wait elsewhere between the steps.
    """
    kept: list[tuple[nn.Module, str, Tensor]] = []
    try:
        with touching():
            for change in changes:
                _put(change, kept)
        yield
    finally:
        with touching():
            for module, name, before in reversed(kept):
                parameter = getattr(module, name)
                parameter.data = before.to(parameter.device)


def _put(change: Change, kept: list[tuple[nn.Module, str, Tensor]]) -> None:
    def replace(name: str, value: Tensor) -> None:
        parameter = getattr(change.module, name)
        kept.append((change.module, name, parameter.data.cpu()))
        parameter.data = torch.empty_like(parameter.data).copy_(value)

    weight = change.module.weight
    assert isinstance(weight, Tensor)
    here = {role: tensor.to(weight.device) for role, tensor in change.tensors.items() if role != "alpha"}
    if set(here) - {"diff_b"}:
        replace("weight", changed(weight.data, here, change.scale, change.strength))
    for role, factor in (("diff_b", change.strength), ("up_bias", change.strength * change.scale)):
        if role in here:
            bias = change.module.bias
            assert isinstance(bias, Tensor)
            replace("bias", bias.data.float() + factor * here[role].float().reshape(bias.shape))
