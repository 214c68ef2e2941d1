"""InstantID on diffusers' stock ControlNet pipelines: text, image and inpaint, SDXL and SD1.5, as one mixin."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import diffusers
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl_img2img import retrieve_latents
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from instantid_demo.method.conditioning import Conditioning, IdentityCondition, Regions, resample
from instantid_demo.method.identity_net import IdentityNet


class InstantID(diffusers.DiffusionPipeline):
    """What all six pipelines share. The stock `__call__` runs inside `with pipe.conditioned([...]):`."""

    _family: tuple[str, str, str]
    """Class names in this module: text-to-image, image-to-image, inpaint."""

    @property
    def controlnets(self) -> list[Any]:
        """IdentityNet first, then the extra ControlNets."""
        nets = self.controlnet
        return list(nets.nets) if isinstance(nets, diffusers.MultiControlNetModel) else [nets]

    @property
    def resampler(self) -> torch.nn.Module:
        """Face embedding (B, k, d) to identity tokens (B, T, D)."""
        return self.unet.encoder_hid_proj.image_projection_layers[0]

    @property
    def conditioning(self) -> Conditioning | None:
        """The request that runs now; siblings made by `image_to_image` and `inpaint` share it."""
        return self.controlnets[0].conditioning

    @contextmanager
    def conditioned(
        self,
        identities: Sequence[IdentityCondition],
        *,
        identity_scale: float = 0.8,
        window: tuple[float, float] = (0.0, 1.0),
        every: int = 1,
        control_mask: Tensor | None = None,
        uncond_noise: float = 0.0,
        reuse_keys: bool = True,
    ) -> Iterator[Conditioning]:
        """The request's people; computes their tokens once and leaves no trace afterwards, also after an error.

        Args:
            identities: one per person; several people need a mask each.
            identity_scale: strength of IdentityNet (0: it does not run).
            window: share of the steps, from and until, in which IdentityNet runs.
            every: it runs in every k-th of these steps, its residuals serve in between.
            control_mask: (H, W) in 0..1 at the picture's size, confines IdentityNet's residuals and the adapter
                (FORMAT.md quirk 9: nearest pixel on attention, bilinear on residuals).
            uncond_noise: 0..1, a random face in the no-face tokens, against burnt pictures.
            reuse_keys: keys and values of text and tokens once per request, not per step; exact.
        """
        if self.conditioning is not None:
            raise RuntimeError("a request is running on these networks")
        device = self._execution_device
        with torch.no_grad():
            conditioning = Conditioning(
                tokens=resample(self.resampler, identities, uncond_noise, device),
                adapter_scales=[identity.adapter_scale for identity in identities],
                regions=_regions(identities, control_mask),
                identity_scale=identity_scale,
                window=window,
                every=every,
                reuse_keys=reuse_keys,
            )
        nets = [net for net in self.controlnets if isinstance(net, IdentityNet)]
        try:
            for net in nets:
                net.condition(conditioning)
            yield conditioning
        finally:
            for net in nets:
                net.condition(None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The stock call. IdentityNet's strength and window come from `conditioned` unless given for all nets;
        lists as long as the extra ControlNets get IdentityNet's value in front."""
        request = self.conditioning
        if request is None:
            raise RuntimeError("run the pipeline inside `with pipe.conditioned([...])`")
        start, end = request.window
        for name, own, usual in (
            ("controlnet_conditioning_scale", float(request.identity_scale), 1.0),
            ("control_guidance_start", start, 0.0),
            ("control_guidance_end", end, 1.0),
        ):
            kwargs[name] = self._per_net(kwargs.get(name), own, usual)
        # Stock code asks for embeddings here and hands them to prepare_ip_adapter_image_embeds below.
        kwargs["ip_adapter_image_embeds"] = [request.tokens]
        kwargs["cross_attention_kwargs"] = {**(kwargs.get("cross_attention_kwargs") or {}), "ip_adapter_masks": request}
        try:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._cross_attention_kwargs = None

    def _per_net(self, given: Any, own: float, usual: float) -> Any:
        extras = len(self.controlnets) - 1
        if given is None:
            given = [usual] * extras
        if isinstance(given, list) and len(given) == extras:
            given = [own, *given]
        return given[0] if isinstance(given, list) and not extras else given

    def prepare_ip_adapter_image_embeds(
        self, ip_adapter_image, ip_adapter_image_embeds, device, num_images_per_prompt, do_classifier_free_guidance
    ) -> list[Tensor]:
        """Stock hook, once per call: tokens in the rows of the batch (no-face rows first) for UNet and IdentityNet."""
        request = self.conditioning
        assert request is not None
        return [request.expand(num_images_per_prompt, do_classifier_free_guidance)]

    def text_to_image(self) -> Self:
        """The text-to-image sibling; it shares every component."""
        return self._sibling(self._family[0])

    def image_to_image(self) -> Self:
        """The image-to-image sibling; it shares every component."""
        return self._sibling(self._family[1])

    def inpaint(self) -> Self:
        """The inpaint sibling; it shares every component. Takes `image`, `mask_image`, `control_image`, `strength`."""
        stock = self.unet.config.in_channels in (4, 9)
        return self._sibling(self._family[2] if stock else self._family[1].replace("ImageToImage", "Blended"))

    def _sibling(self, name: str) -> Any:
        return self if type(self).__name__ == name else globals()[name].of(self)

    @classmethod
    def of(cls, pipe: Any, **components: Any) -> Self:
        """A pipeline of this class with the components of `pipe` (a stock one will do) and these on top."""
        wanted, optional = cls._get_signature_keys(cls)
        parts = {name: part for name, part in {**pipe.components, **components}.items() if name in {*wanted, *optional}}
        options = {name: pipe.config[name] for name in ("force_zeros_for_empty_prompt",) if name in pipe.config}
        if "requires_safety_checker" in optional:
            options["requires_safety_checker"] = False
        if "add_watermarker" in optional:
            options["add_watermarker"] = False
        return cls(**parts, **options)


class _SDXL(InstantID):
    _family = ("SDXLTextToImage", "SDXLImageToImage", "SDXLInpaint")


class _SD15(InstantID):
    _family = ("SD15TextToImage", "SD15ImageToImage", "SD15Inpaint")


class _Blend(InstantID):
    """Inpainting for UNets of any number of channels: image-to-image that keeps what the mask does not cover.

    The stock inpaint pipelines refuse all but 4 and 9 channels; after each step this does what they do.
    """

    _mask: Any = None
    _clean: Any = None
    _noise: Any = None

    def __call__(self, *args: Any, mask_image: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        """As image-to-image; `mask_image` (PIL) is white where the picture may change."""
        processor = VaeImageProcessor(self.vae_scale_factor, do_normalize=False, do_convert_grayscale=True)
        self._mask = processor.preprocess(mask_image, kwargs.get("height"), kwargs.get("width"))

        def blend(pipe: Any, step: int, timestep: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
            left = self.num_timesteps - step - 1
            kept = self._clean
            if left:
                kept = self.scheduler.add_noise(kept, self._noise, self.scheduler.timesteps[-left][None])
            mask = F.interpolate(self._mask, kept.shape[-2:]).to(kept)
            values["latents"] = torch.lerp(kept, values["latents"], mask)
            return callback_on_step_end(pipe, step, timestep, values) if callback_on_step_end else values

        try:
            return super().__call__(*args, callback_on_step_end=blend, **kwargs)
        finally:
            self._mask = self._clean = self._noise = None

    def prepare_latents(self, image, timestep, batch_size, num_images_per_prompt, dtype, device, generator=None, *_):
        count = batch_size * num_images_per_prompt
        latents = self.vae.encode(image.to(device, self.vae.dtype))
        clean = retrieve_latents(latents, generator=generator if not isinstance(generator, list) else generator[0])
        self._clean = (clean * self.vae.config.scaling_factor).to(dtype).expand(count, -1, -1, -1)
        self._noise = randn_tensor(self._clean.shape, generator=generator, device=device, dtype=dtype)
        return self.scheduler.add_noise(self._clean, self._noise, timestep)


class SDXLTextToImage(_SDXL, diffusers.StableDiffusionXLControlNetPipeline):
    """A person from keypoints and words."""


class SDXLImageToImage(_SDXL, diffusers.StableDiffusionXLControlNetImg2ImgPipeline):
    """A person put into a picture."""


class SDXLInpaint(_SDXL, diffusers.StableDiffusionXLControlNetInpaintPipeline):
    """A person put into the masked part of a picture."""


class SDXLBlended(_Blend, SDXLImageToImage):
    """Inpainting for other UNets than those with 4 or 9 channels."""


class SD15TextToImage(_SD15, diffusers.StableDiffusionControlNetPipeline):
    """A person from keypoints and words."""


class SD15ImageToImage(_SD15, diffusers.StableDiffusionControlNetImg2ImgPipeline):
    """A person put into a picture."""


class SD15Inpaint(_SD15, diffusers.StableDiffusionControlNetInpaintPipeline):
    """A person put into the masked part of a picture."""


class SD15Blended(_Blend, SD15ImageToImage):
    """Inpainting for other UNets than those with 4 or 9 channels."""


def _regions(identities: Sequence[IdentityCondition], control_mask: Tensor | None) -> Regions:
    """The masks of a request; where people overlap their masks are divided by their sum."""

    def stack(masks: list[Tensor | None]) -> Tensor | None:
        if all(mask is None for mask in masks):
            return None
        if any(mask is None for mask in masks):
            raise ValueError("either every person has a mask or none")
        stacked = torch.stack([torch.as_tensor(mask, dtype=torch.float32) for mask in masks])
        return stacked / stacked.sum(0, keepdim=True).clamp(min=1)

    return Regions(
        people=stack([identity.mask for identity in identities]),
        residuals=stack([i.mask if i.residual_mask is None else i.residual_mask for i in identities]),
        control=None if control_mask is None else torch.as_tensor(control_mask, dtype=torch.float32)[None],
    )
