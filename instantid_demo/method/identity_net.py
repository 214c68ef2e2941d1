"""IdentityNet: a ControlNet on keypoints whose cross-attention hears the identity instead of the text."""

import copy
from typing import Any, Self

import torch
from diffusers import ControlNetModel, ControlNetUnionModel
from torch import Tensor

from instantid_demo.method.conditioning import Conditioning

Residuals = tuple[list[Tensor], Tensor]


class ControlNet(ControlNetModel):
    """A ControlNet that rests at scale 0, outside its window for example; diffusers runs it and multiplies by 0."""

    def forward(self, sample: Tensor, timestep, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any) -> Residuals:
        """Residuals of the down blocks and of the mid block, as tuple; arguments are those of `ControlNetModel`."""
        kwargs["return_dict"] = False
        if kwargs.get("conditioning_scale", 1.0) == 0:
            return nothing(self, sample)
        return super().forward(sample, timestep, encoder_hidden_states, *args, **kwargs)


class UnionNet(ControlNetUnionModel):
    """One network for many kinds of maps, called as a `ControlNetModel` for one of them."""

    mode = 0
    """Number of the kind of map."""

    def for_mode(self, mode: int) -> Self:
        """The same weights for another kind of map."""
        twin = copy.copy(self)
        # Weights and layers are shared; who hooks into one of the two means that one.
        twin.__dict__.update({name: copy.copy(value) for name, value in vars(self).items() if "_hooks" in name})
        twin.mode = mode
        return twin

    def forward(self, sample: Tensor, timestep, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any) -> Residuals:
        """As `ControlNet.forward`."""
        kwargs["return_dict"] = False
        if kwargs.get("conditioning_scale", 1.0) == 0:
            return nothing(self, sample)
        chosen = torch.zeros(len(sample), self.config.num_control_type, device=sample.device, dtype=sample.dtype)
        chosen[:, self.mode] = 1
        kwargs |= {
            "controlnet_cond": [kwargs["controlnet_cond"]],
            "control_type": chosen,
            "control_type_idx": [self.mode],
        }
        return super().forward(sample, timestep, encoder_hidden_states, *args, **kwargs)


def nothing(net: Any, sample: Tensor) -> Residuals:
    """The residuals of a ControlNet that rests."""
    empty = sample.new_zeros(len(sample), 1, 1, 1)
    # diffusers adds another ControlNet's middle into the first one's, in place: that must have its shape.
    halved = len(net.config.block_out_channels) - 1
    side = [-(-length // 2**halved) for length in sample.shape[-2:]]
    middle = sample.new_zeros(len(sample), net.config.block_out_channels[-1], *side)
    return [empty] * len(net.controlnet_down_blocks), middle


class IdentityNet(ControlNet):
    """Inside `InstantID.conditioned` text is replaced by identity tokens; outside it is a plain ControlNet."""

    conditioning: Conditioning | None = None
    _kept: tuple[tuple, Residuals] | None = None
    _count = 0

    def condition(self, conditioning: Conditioning | None) -> None:
        """Enters (or with None leaves) a request."""
        self.conditioning, self._kept, self._count = conditioning, None, 0

    def forward(self, sample: Tensor, timestep, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any) -> Residuals:
        """As `ControlNet.forward`; several people are separate runs, added up under their masks."""
        request, scale = self.conditioning, kwargs.get("conditioning_scale", 1.0)
        if request is None or request.rows is None or scale == 0:
            return super().forward(sample, timestep, encoder_hidden_states, *args, **kwargs)
        due, self._count = self._count % request.every == 0, self._count + 1
        if self._kept is not None and not due and self._kept[0] == (scale, sample.shape):
            return self._kept[1][0], self._kept[1][1].clone()

        # The last rows: guess mode and guidance that ended early leave the no-face rows out.
        rows = request.rows[-len(sample) :].to(sample)
        people = [rows.flatten(1, 2)] if request.regions.residuals is None else rows.unbind(1)
        total: Residuals | None = None
        for index, tokens in enumerate(people):
            down, mid = super().forward(sample, timestep, tokens, *args, **kwargs)
            masked = [self._confine(residual, index) for residual in (*down, mid)]
            if total is not None:
                masked = [a + b for a, b in zip((*total[0], total[1]), masked, strict=True)]
            total = masked[:-1], masked[-1]
        assert total is not None
        if request.every > 1:
            # A copy: diffusers adds another ControlNet's middle into what it is given.
            self._kept = (scale, sample.shape), (total[0], total[1].clone())
        return total

    def _confine(self, residual: Tensor, index: int) -> Tensor:
        """The residual where person `index` may act."""
        assert self.conditioning is not None
        mask = self.conditioning.regions.residual(tuple(residual.shape[-2:]), residual)
        return residual if mask is None else residual * mask[min(index, len(mask) - 1)]
