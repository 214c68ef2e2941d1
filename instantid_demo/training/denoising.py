"""The networks of InstantID taken together, as training runs them: what they are told, one prediction, few steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import ControlNetModel, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor

from instantid_demo.training.pocket import SCHEDULER


@dataclass
class Conditions:
    """What the networks are told, ready for any number of denoising steps."""

    text: Tensor
    pooled: Tensor
    tokens: Tensor
    maps: Tensor
    mapped: Tensor
    time_ids: Tensor
    controls: Tensor | None = None
    """Maps `(n, 3, 128, 128)` in 0..1 for the extra ControlNet."""


def predict(
    unet: UNet2DConditionModel,
    identity_net: ControlNetModel,
    noisy: Tensor,
    timestep: Tensor,
    told: Conditions,
    control_net: ControlNetModel | None = None,
) -> Tensor:
    """The prediction `(n, c, h, w)` of UNet and IdentityNet together, and of an extra ControlNet if there is one."""
    added = {"text_embeds": told.pooled, "time_ids": told.time_ids}
    down, middle = identity_net(noisy, timestep, told.tokens, told.maps, added_cond_kwargs=added, return_dict=False)
    down, middle = [residual * told.mapped for residual in down], middle * told.mapped
    if control_net is not None and told.controls is not None:
        more, more_middle = control_net(
            noisy, timestep, told.text, told.controls, added_cond_kwargs=added, return_dict=False
        )
        down, middle = [a + b for a, b in zip(down, more, strict=True)], middle + more_middle
    return unet(
        noisy,
        timestep,
        (told.text, [told.tokens]),
        added_cond_kwargs=added,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]


def levels() -> tuple[Tensor, Tensor]:
    """Signal and noise share (alpha, sigma) of every timestep, each `(1000,)`."""
    alphas = EulerDiscreteScheduler(**SCHEDULER).alphas_cumprod.clone()
    alphas[-1] = 0.0  # the scheduler keeps a tiny rest there for its own sigmas
    return alphas.sqrt(), (1 - alphas).sqrt()


def sample(
    predict: Callable[[Tensor, Tensor, Conditions], Tensor],
    told: Conditions,
    steps: int,
    noise: Tensor,
    alpha: Tensor,
    sigma: Tensor,
) -> Tensor:
    """Deterministic sampling (DDIM) of `noise` over `steps` evenly trailing timesteps; latents `(n, c, 16, 16)`."""
    timesteps = torch.arange(1000, 0, -1000 / steps).round().long() - 1
    x = noise
    for index, timestep in enumerate(timesteps):
        predicted = predict(x, timestep.expand(len(x)), told)
        clean = alpha[timestep] * x - sigma[timestep] * predicted
        noise = sigma[timestep] * x + alpha[timestep] * predicted
        if index + 1 == steps:
            return clean
        x = alpha[timesteps[index + 1]] * clean + sigma[timesteps[index + 1]] * noise
    return x
