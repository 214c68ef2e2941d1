"""Guidance's two halves one after the other: the same picture, with the memory of one half."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, cat

from instantid_demo.method.conditioning import Conditioning
from instantid_demo.method.savings import replaced

_SAME_IN_EVERY_STEP = ("encoder_hidden_states", "added_cond_kwargs")


@contextmanager
def one_half_at_a_time(pipe: Any) -> Iterator[None]:
    """UNet and ControlNets run twice per step, each time with half of the rows; afterwards they are as before.

    To be entered inside `pipe.conditioned`. Calls that guidance does not double stay whole. Not together with networks
    that repeat earlier answers (`every`, `deep_blocks_reused`): they know of one call per step.
    """
    with ExitStack() as stack:
        for net in (pipe.unet, *pipe.controlnets):
            stack.enter_context(replaced(net, _in_turn(net.forward, pipe.conditioning)))
        yield


def _in_turn(forward: Callable[..., Any], request: Conditioning) -> Callable[..., Any]:
    """`forward` of a network, computed for the no-face rows and then for the others."""
    kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def remembered(tensor: Tensor, half: int) -> Tensor:
        # The same object for the same tensor: keys and values are kept by the object.
        known = kept.get((id(tensor), half))
        if known is None:
            known = kept[id(tensor), half] = tensor, tensor.chunk(2)[half]
        return known[1]

    def both(*args: Any, **kwargs: Any) -> Any:
        rows, whole = request.rows, len(args[0] if args else kwargs["sample"])
        if rows is None or not request.guided or whole != len(rows):
            return forward(*args, **kwargs)
        answers = []
        for half in (0, 1):
            request.rows = remembered(rows, half)
            try:
                given = _halved(args, whole, half, _chunk)
                named = {
                    name: _halved(value, whole, half, remembered if name in _SAME_IN_EVERY_STEP else _chunk)
                    for name, value in kwargs.items()
                }
                answers.append(forward(*given, **named))
            finally:
                request.rows = rows
        return _joined(*answers)

    return both


def _chunk(tensor: Tensor, half: int) -> Tensor:
    return tensor.chunk(2)[half]


def _halved(value: Any, rows: int, half: int, cut: Callable[[Tensor, int], Tensor]) -> Any:
    """`value` with half 0 or 1 of every tensor in it that has `rows` rows."""
    if isinstance(value, Tensor):
        return cut(value, half) if value.ndim and len(value) == rows else value
    if isinstance(value, dict):
        return {key: _halved(entry, rows, half, cut) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_halved(entry, rows, half, cut) for entry in value)
    return value


def _joined(first: Any, second: Any) -> Any:
    """One answer of two, tensor by tensor."""
    if isinstance(first, Tensor):
        return cat([first, second])
    return type(first)(_joined(a, b) for a, b in zip(first, second, strict=True))
