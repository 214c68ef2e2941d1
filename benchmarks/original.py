"""The work that the original does, on the product's networks: the yardstick of every ratio.

IdentityNet runs in every step for both halves even at strength 0; keys and values are projected anew in every step;
an attention map that nobody reads is computed; weights lie in PyTorch's usual layout.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from torch import Tensor

from instantid_demo.method.identity_net import IdentityNet, Residuals
from instantid_demo.method.image_adapter import DecoupledAttention, heads, merge, project


class OriginalNet(IdentityNet):
    """diffusers' own ControlNet with the identity tokens in place of the text, whatever its strength."""

    def forward(self, sample: Tensor, timestep, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any) -> Residuals:
        assert self.conditioning is not None
        assert self.conditioning.rows is not None
        tokens = self.conditioning.rows.flatten(1, 2)[-len(sample) :]
        return ControlNetModel.forward(self, sample, timestep, tokens, *args, **kwargs)


class OriginalAttention(IPAdapterAttnProcessor2_0):
    """Decoupled attention that remembers nothing and computes the unused map."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        scale: float = 1.0,
        ip_adapter_masks: Any = None,
    ) -> Tensor:
        text, (tokens,) = encoder_hidden_states
        query = heads(attn.to_q(hidden_states), attn)
        out = merge(F.scaled_dot_product_attention(query, *project(attn, attn.to_k, attn.to_v, text)))
        of_tokens = partial(project, attn, self.to_k_ip[0], self.to_v_ip[0])
        keys, values = of_tokens(tokens.flatten(1, 2))
        of_person = merge(F.scaled_dot_product_attention(query, keys, values))
        self.unused = query @ keys.transpose(-2, -1).softmax(dim=-1)
        out = out + ip_adapter_masks.adapter_scales[0] * of_person
        return attn.to_out[1](attn.to_out[0](out))


@contextmanager
def original(pipe: Any) -> Iterator[None]:
    """Makes `pipe` work as the original does; the product's way afterwards."""
    net = pipe.controlnets[0]
    processors = [p for p in pipe.unet.attn_processors.values() if isinstance(p, DecoupledAttention)]
    for module in (pipe.unet, net):
        module.to(memory_format=torch.contiguous_format)
    net.__class__ = OriginalNet
    for processor in processors:
        processor.__class__ = OriginalAttention
    try:
        yield
    finally:
        net.__class__ = IdentityNet
        for processor in processors:
            processor.__class__ = DecoupledAttention
            processor.__dict__.pop("unused", None)
