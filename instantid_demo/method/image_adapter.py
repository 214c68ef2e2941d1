"""The image adapter: Resampler and decoupled cross-attention, loaded by diffusers' own IP-Adapter code."""

from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from torch import Tensor
from torch.nn import Module

from instantid_demo.method import checkpoints
from instantid_demo.method.conditioning import Conditioning


class TokenProjection(MultiIPAdapterImageProjection):
    """Hands tokens through: they are made once per request, where diffusers projects embeddings in every step."""

    def forward(self, image_embeds: list[Tensor]) -> list[Tensor]:
        return image_embeds


class DecoupledAttention(IPAdapterAttnProcessor2_0):
    """`attention(q, text) + sum over people of strength * mask * attention(q, tokens)`.

    diffusers' own processor cannot: other masks than bicubic ones, and keys kept over the steps. The request
    arrives as `ip_adapter_masks`, the one keyword that self-attention ignores silently; any other object there
    means what it means in diffusers.
    """

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
        request = ip_adapter_masks
        if not isinstance(request, Conditioning):
            return super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb, scale, ip_adapter_masks
            )
        text, (tokens,) = encoder_hidden_states
        batch, queries, _ = hidden_states.shape
        query = heads(attn.to_q(hidden_states), attn)
        keys, values = request.keys_values(self, "text", text, partial(project, attn, attn.to_k, attn.to_v))
        out = merge(F.scaled_dot_product_attention(query, keys, values))

        if any(request.adapter_scales):
            masks = request.regions.attention(queries, out)
            of_tokens = partial(project, attn, self.to_k_ip[0], self.to_v_ip[0])
            kept = request.keys_values(self, "identity", tokens, of_tokens)
            for index, strength in enumerate(request.adapter_scales):
                # The last rows: guidance that ended early leaves the no-face rows out.
                keys, values = (part[-batch:, index] for part in kept)
                of_person = merge(F.scaled_dot_product_attention(query, keys, values))
                if masks is not None:
                    of_person = of_person * masks[min(index, len(masks) - 1)]
                out = out + strength * self.scale[0] * of_person
        return attn.to_out[1](attn.to_out[0](out))


def project(attn: Attention, to_k: Module, to_v: Module, states: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of `states` (…, tokens, D), each (…, heads, tokens, channels of a head)."""
    return heads(to_k(states), attn), heads(to_v(states), attn)


def heads(states: Tensor, attn: Attention) -> Tensor:
    """(…, tokens, channels) to (…, heads, tokens, channels of a head)."""
    return states.unflatten(-1, (attn.heads, -1)).transpose(-3, -2)


def merge(states: Tensor) -> Tensor:
    """(B, heads, tokens, channels of a head) to (B, tokens, channels)."""
    return states.transpose(1, 2).flatten(2)


def load_image_adapter(unet: UNet2DConditionModel, source: Path | dict[str, dict[str, Tensor]]) -> None:
    """Puts an InstantID adapter (`.bin`, `.safetensors` or its two state dicts) into `unet`.

    Afterwards the UNet takes identity tokens as `image_embeds` (a list of one (B, k, T, D)), not embeddings.

    Raises:
        RequestError: the file is not an adapter in InstantID's layout, or not for this UNet.
    """
    state = source if isinstance(source, dict) else checkpoints.read_image_adapter(source)
    checkpoints.require_adapter_fits(state, unet)
    # diffusers' loader, at the UNet: a pipeline's load_ip_adapter would add a CLIP extractor that faces never need.
    unet._load_ip_adapter_weights([state])
    unet.encoder_hid_proj = TokenProjection(unet.encoder_hid_proj.image_projection_layers)
    unet.set_attn_processor({name: _decoupled(old) for name, old in unet.attn_processors.items()})


def _decoupled(processor: Any) -> Any:
    """Our processor with the weights of diffusers' one; other processors as they are."""
    if isinstance(processor, IPAdapterAttnProcessor2_0):
        processor.__class__ = DecoupledAttention
    return processor
