"""A prepared request through the networks: denoising step by step, then decoding."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from instantid_demo import schedulers
from instantid_demo.backends.openvino import OpenVino
from instantid_demo.guidance import guided
from instantid_demo.jobs import Job
from instantid_demo.loaded import Loaded
from instantid_demo.method import savings
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.halves import one_half_at_a_time
from instantid_demo.method.reuse import deep_blocks_reused
from instantid_demo.prepare import Prepared
from instantid_demo.request import Progress, RequestError

Emit = Callable[[Progress], None]
PREVIEW_PAUSE = 0.3
"""Seconds between two previews: more would slow the picture down for nobody's benefit."""


@dataclass
class Watch:
    """Follows one run: tells progress, shows previews, carries the owner's wish to stop to the pipeline."""

    job: Job
    emit: Emit
    previewer: Callable[[Tensor], Image.Image] | None
    total: int
    """Steps of all pictures; corrected when the first run has started."""
    done: int = 0
    step: int = 0
    """Steps done in this run of the pipeline."""
    steps: int = 1
    """Steps of this run of the pipeline."""
    estimate: Tensor | None = None
    """What the scheduler thinks the clean latents are, `(n, c, h, w)`."""
    _shown: float = field(default=0.0, repr=False)

    def share(self) -> float:
        """Share of this run's steps that are done."""
        return self.step / self.steps

    def on_step(self, pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """The stock pipelines' hook at the end of each step."""
        self.step, self.steps = step + 1, pipe.num_timesteps
        self.done += 1
        if self.job.cancelled:
            pipe._interrupt = True
            return values
        preview = None
        if self.previewer and time.monotonic() - self._shown > PREVIEW_PAUSE and self.step < self.steps:
            clean = values["latents"] if self.estimate is None else self.estimate
            preview = self.previewer(clean[0])
            self._shown = time.monotonic()
        total = max(self.total, self.done)
        self.emit(Progress(stage="denoising", done=self.done, total=total, preview=preview))
        return values


def render(loaded: Loaded, prepared: Prepared, job: Job, emit: Emit) -> list[Image.Image]:
    """All pictures of a request, RGB at the canvas' size, in the order of their seeds.

    What no mask covers is the start picture's own.

    Raises:
        Cancelled: the job was taken back.
        RequestError: the numbers overflowed, or nothing was drawn.
    """
    pipe = loaded.pipeline(prepared.task, prepared.control_nets, lambda said: _tell(emit, said))
    together = loaded.batch if prepared.task == "text" else 1
    groups = [prepared.seeds[start : start + together] for start in range(0, len(prepared.seeds), together)]
    steps = prepared.recipe.steps
    if prepared.task != "text":
        steps = int(schedule(steps, prepared.strength) * prepared.strength)
    watch = Watch(job, emit, loaded.previewer if job.previews else None, steps * len(groups))
    pictures: list[Image.Image] = []
    for seeds in groups:
        for latents in denoise(loaded, pipe, prepared, seeds, watch):
            job.check()
            emit(Progress(stage="decoding", done=len(pictures), total=len(prepared.seeds)))
            picture = decode(pipe, latents, loaded.backend, loaded.autoencoder(prepared.request))
            pictures.append(picture if prepared.kept is None else prepared.kept.around(picture))
    return pictures


def schedule(steps: int, strength: float) -> int:
    """Steps of the whole way from noise to picture, of which image-to-image runs the last `strength` share.

    As many as asked for; where the share would hold none, so many more that it holds one: the change stays as small
    as it was asked for.
    """
    while int(steps * strength) < 1:
        steps += 1
    return steps


def denoise(loaded: Loaded, pipe: Any, prepared: Prepared, seeds: Sequence[int], watch: Watch) -> Tensor:
    """Clean latents `(n, c, h, w)` of one picture per seed; afterwards the pipeline is as it was."""
    recipe, request = prepared.recipe, prepared.request
    units = loaded.defaults
    place = loaded.device
    watch.step, watch.steps, watch.estimate = 0, recipe.steps, None
    identities = [
        IdentityCondition(
            embedding=torch.as_tensor(person.embedding),
            mask=None if person.mask is None else torch.as_tensor(person.mask),
            adapter_scale=request.adapter_strength * units.adapter_unit,
        )
        for person in prepared.people
    ]
    arguments: dict[str, Any] = {
        **prepared.words.embeddings,
        "height": prepared.height,
        "width": prepared.width,
        "num_inference_steps": recipe.steps if prepared.task == "text" else schedule(recipe.steps, prepared.strength),
        "guidance_scale": recipe.guidance,
        "num_images_per_prompt": len(seeds),
        # On the CPU: the same seed gives the same noise on every device.
        "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        "output_type": "latent",
        "callback_on_step_end": watch.on_step,
    }
    maps = [prepared.keypoint_map, *(control.picture for control in prepared.controls)]
    control = maps if prepared.controls else maps[0]
    if prepared.controls:
        arguments |= {
            "controlnet_conditioning_scale": [entry.strength for entry in prepared.controls],
            "control_guidance_start": [entry.start for entry in prepared.controls],
            "control_guidance_end": [entry.end for entry in prepared.controls],
        }
    if prepared.task == "text":
        arguments["image"] = control
    else:
        arguments |= {"image": prepared.init, "control_image": control, "strength": prepared.strength}
    if prepared.task == "inpaint":
        arguments["mask_image"] = prepared.mask

    scheduler = schedulers.build(recipe.scheduler, loaded.scheduler_config, **recipe.options)
    guidance = guided(
        pipe.unet,
        pipe.controlnets,
        watch.share,
        scale=recipe.guidance,
        rescale=request.guidance_rescale,
        window=(request.guidance_start, request.guidance_end),
    )
    window = (request.identity_start, request.identity_end)
    rests = window[0] == window[1]  # diffusers refuses an empty window
    conditioned = pipe.conditioned(
        identities,
        identity_scale=0.0 if rests else request.identity_strength * units.identity_unit,
        window=(0.0, 1.0) if rests else window,
        every=request.identity_every,
        control_mask=None if prepared.control_mask is None else torch.as_tensor(prepared.control_mask).to(place),
        uncond_noise=request.identity_noise,
    )
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_sampling(pipe, scheduler, watch))
        stack.enter_context(savings.remembered_tokens(pipe))
        stack.enter_context(conditioned)
        stack.enter_context(guidance)
        stack.enter_context(savings.applied(pipe))
        stack.enter_context(deep_blocks_reused(pipe.unet, request.deep_every))
        if loaded.halves and loaded.backend is None and request.deep_every == request.identity_every == 1:
            stack.enter_context(one_half_at_a_time(pipe))
        if request.deep_every == 1:  # OpenVINO's networks are whole
            stack.enter_context(loaded.accelerated(pipe, lambda said: _tell(watch.emit, said)))
        latents = pipe(**arguments).images
    watch.job.check()
    if len(latents) < len(seeds):
        raise RequestError("No step was drawn: choose more steps, or let more of the start picture change.")
    if not torch.isfinite(latents).all():
        raise RequestError(
            "The numbers overflowed and the picture would be black: run with INSTANTID_DTYPE=bfloat16 or float32."
        )
    return latents


@torch.no_grad()
def decode(pipe: Any, latents: Tensor, backend: OpenVino | None = None, vae: Any = None) -> Image.Image:
    """Latents `(c, h, w)` to a picture.

    Args:
        pipe: the pipeline that made them.
        latents: clean and scaled, as the pipeline returns them.
        backend: decodes where it can; None: PyTorch does.
        vae: an autoencoder in place of the pipeline's own.

    Raises:
        BackendError: the backend failed.
    """
    vae = vae or pipe.vae
    config = vae.config
    # SDXL's own VAE overflows in float16 and says so in its config.
    upcast = vae.dtype == torch.float16 and config.get("force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    try:
        values = (latents[None] / config.scaling_factor).to(vae.dtype)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            shape = (1, -1, 1, 1)
            values = values * values.new_tensor(std).view(shape) + values.new_tensor(mean).view(shape)
        decoded = vae.decode(values, return_dict=False)[0] if backend is None else backend.decode(vae, values)
    finally:
        if upcast:
            vae.to(torch.float16)
    return pipe.image_processor.postprocess(decoded.float(), output_type="pil")[0]


@contextmanager
def _sampling(pipe: Any, scheduler: Any, watch: Watch) -> Iterator[None]:
    """Runs the pipeline with this scheduler, which also tells `watch` its estimate of the clean latents."""
    step = scheduler.step

    @functools.wraps(step)
    def told(*args: Any, **kwargs: Any) -> Any:
        kwargs["return_dict"] = True
        output = step(*args, **kwargs)
        estimate = getattr(output, "pred_original_sample", None)
        watch.estimate = getattr(output, "denoised", None) if estimate is None else estimate
        return (output.prev_sample,)

    scheduler.step = told
    previous, pipe.scheduler = pipe.scheduler, scheduler
    try:
        yield
    finally:
        pipe.scheduler = previous


def _tell(emit: Emit, said: str) -> None:
    emit(Progress(stage="loading", message=said))
