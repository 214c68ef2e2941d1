"""A cheap look at a picture that is not finished."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

SIDE = 256
"""Shortest side of a preview in pixels, at least."""


class Previewer:
    """Latents to a small picture.

    A tiny autoencoder decodes them; for any other VAE each latent channel counts as one colour: the VAE is asked
    once which colour a flat field of that channel has, and colours are added up.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._colours: Tensor | None = None

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Image.Image:
        """Preview of `latents (c, h, w)`, an estimate of the clean ones where possible."""
        rgb = self._decode(latents[None])[0] if self._tiny else self._flat(latents)
        values = ((rgb.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        picture = Image.fromarray(values)
        factor = max(1, -(-SIDE // min(picture.size)))
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)

    @property
    def _tiny(self) -> bool:
        return type(self._vae).__name__ == "AutoencoderTiny"

    def _decode(self, latents: Tensor) -> Tensor:
        scaled = latents / self._vae.config.scaling_factor
        return self._vae.decode(scaled.to(self._vae.device, self._vae.dtype), return_dict=False)[0]

    def _flat(self, latents: Tensor) -> Tensor:
        if self._colours is None:
            self._colours = self._measure(latents)
        base, slopes = self._colours[0], self._colours[1:]
        return base[:, None, None] + torch.einsum("chw,cr->rhw", latents.float().cpu(), slopes)

    def _measure(self, like: Tensor) -> Tensor:
        """`(1 + c, 3)`: the colour of zero latents, then what one unit of each channel adds."""
        channels = like.shape[0]
        fields = torch.cat([torch.zeros(1, channels), torch.eye(channels)])[:, :, None, None].expand(-1, -1, 8, 8)
        colours = self._decode(fields.to(like.device)).float().cpu()[:, :, 16:-16, 16:-16].mean((2, 3))
        return torch.cat([colours[:1], colours[1:] - colours[:1]])
