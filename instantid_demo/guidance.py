"""Guidance that rests outside a window of the steps, and that does not burn: what the stock pipelines lack.

Both act on the networks' inputs and outputs through hooks that are removed with the request, so that every
pipeline (text, image, inpaint; SDXL, SD1.5) has them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module


@contextmanager
def guided(
    unet: Module,
    controlnets: Sequence[Module],
    progress: Callable[[], float],
    *,
    scale: float,
    rescale: float = 0.0,
    window: tuple[float, float] = (0.0, 1.0),
) -> Iterator[None]:
    """Guidance of one run; afterwards the networks are as before.

    Outside the window only the conditional half of the batch is computed, by the ControlNets as well; its answer
    stands for both halves, so that the pipeline's formula returns it whatever the scale.

    Args:
        unet: the UNet of the pipeline.
        controlnets: IdentityNet and the others.
        progress: share of the steps that are done, 0 in the first.
        scale: guidance scale; at 1 and below there is no guidance and nothing to do.
        rescale: 0..1, how far the guided prediction is brought back to the conditional one's spread
            (arXiv 2305.08891, §3.4).
        window: shares of the steps, from and until, in which guidance acts.
    """
    if scale <= 1 or (rescale == 0 and window == (0.0, 1.0)):
        yield
        return

    def rests() -> bool:
        return not window[0] <= progress() < window[1]

    def halve(net: Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        sample = args[0] if args else kwargs["sample"]
        if not rests():
            return None
        return _conditional(args, len(sample)), _conditional(kwargs, len(sample))

    def answer(net: Module, args: tuple, kwargs: dict, output: Any) -> Any:
        prediction = output[0] if isinstance(output, tuple) else output.sample
        if rests():
            prediction = torch.cat([prediction, prediction])
        elif rescale:
            prediction = _rescaled(prediction, scale, rescale)
        return (prediction, *output[1:]) if isinstance(output, tuple) else type(output)(sample=prediction)

    hooks = [net.register_forward_pre_hook(halve, with_kwargs=True) for net in (unet, *controlnets)]
    hooks.append(unet.register_forward_hook(answer, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _conditional(value: Any, rows: int) -> Any:
    """`value` with the second half of every tensor in it that has `rows` rows."""
    if isinstance(value, Tensor):
        return value[rows // 2 :] if value.ndim and len(value) == rows else value
    if isinstance(value, dict):
        return {key: _conditional(entry, rows) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_conditional(entry, rows) for entry in value)
    return value


def _rescaled(prediction: Tensor, scale: float, rescale: float) -> Tensor:
    """Both halves times the factor that the guided prediction needs: guidance is linear, the factor passes through."""
    without, with_words = prediction.chunk(2)
    spread = (without + scale * (with_words - without)).float().flatten(1).std(1)
    wanted = with_words.float().flatten(1).std(1)
    factor = rescale * wanted / spread.clamp(min=1e-8) + (1 - rescale)
    return prediction * factor.repeat(2).to(prediction).view(-1, *[1] * (prediction.ndim - 1))
