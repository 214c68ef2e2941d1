"""The paper's recipe for any base: Resampler, adapter and IdentityNet on a frozen SDXL or SD1.5.

Condition dropout is IP-Adapter's: now and then the words, the identity or both are left out, which gives guidance its
unconditional side. An identity that is left out is an embedding of zeros, as in the reference. All chance of a step
follows from the seed, the step's number and the process, so a run that was stopped goes on exactly as if it was not.
"""

import logging
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl_img2img import retrieve_latents
from torch import Tensor

from instantid_demo.faces.analysis import FaceAnalyser
from instantid_demo.request import RequestError
from instantid_demo.training import examples
from instantid_demo.training.adapter_model import AdapterModel, Format, describe
from instantid_demo.training.checkpointing import load_state, save_state
from instantid_demo.training.denoising import Conditions
from instantid_demo.training.examples import Examples, KnownFaces
from instantid_demo.training.optimizers import Average
from instantid_demo.training.shards import Photograph
from instantid_demo.training.sheets import save_grid
from instantid_demo.training.tracking import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdapterRecipe:
    """Numbers of a run; those of a recipe file's `[adapter]` table."""

    base: str
    """Folder, single file or hub id of the base model."""
    recogniser: Literal["antelopev2", "dlib"] = "antelopev2"
    resolution: int = 1024
    tokens: int = 16
    resampler_width: int = 1280

    steps: int = 100_000
    batch: int = 2
    """Examples per process and forward pass."""
    accumulation: int = 8
    """Forward passes per step."""
    learning_rate: float = 1e-4
    warmup: int = 500
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9999
    min_snr: float = 0.0
    """Gamma of min-SNR weighting (arXiv 2303.09556); 0: none, as in the paper."""
    drop_text: float = 0.05
    drop_identity: float = 0.05
    drop_both: float = 0.05
    caption: str = "a photo of a person"
    """For photographs without one."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "bf16"
    gradient_checkpointing: bool = True
    seed: int = 0

    save_every: int = 1000
    keep: int = 2
    """States kept; older ones are deleted."""
    sample_every: int = 2000
    samples: int = 4
    sample_steps: int = 25
    sample_guidance: float = 5.0
    export: Format = "bin"

    def __post_init__(self) -> None:
        if self.resampler_width % 64 or self.resolution % 8:
            raise RequestError("In the recipe resampler_width must be a multiple of 64 and resolution one of 8.")
        if self.drop_text + self.drop_identity + self.drop_both >= 1:
            raise RequestError("In the recipe the three drop shares must stay below 1 together.")


class AdapterTrainer:
    """Holds what a step needs; `run` trains to the recipe's last step."""

    def __init__(
        self,
        base: Any,
        model: AdapterModel,
        photos: list[Photograph],
        faces: KnownFaces,
        recipe: AdapterRecipe,
        out: Path,
        accelerator: Accelerator,
        analyser: FaceAnalyser | None = None,
    ) -> None:
        """Places everything on the accelerator's device.

        Args:
            base: The stock SDXL or SD1.5 pipeline; its UNet is in `model`.
            model: The networks.
            photos: The photographs.
            faces: What is known of them.
            recipe: The numbers.
            out: Folder for states, samples, figures and the export.
            accelerator: Of the `accelerate` library, with the recipe's accumulation and precision.
            analyser: Judges samples during training; None: pictures only.
        """
        self.base, self.photos, self.faces, self.recipe, self.out = base, photos, faces, recipe, out
        self.accelerator, self.analyser = accelerator, analyser
        self.device = accelerator.device
        out.mkdir(parents=True, exist_ok=True)
        frozen = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(recipe.mixed_precision, torch.float32)
        if self.device.type == "cpu":
            frozen = torch.float32  # its kernels do not mix types, as autocast has them on CUDA
        model.unet.to(dtype=frozen)
        for part in model.trained().values():
            part.float()
        if recipe.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
            model.identity_net.enable_gradient_checkpointing()
        # In training mode, or else diffusers ignores gradient checkpointing; neither network has dropout.
        model.train()
        # SDXL's own VAE overflows in half precision.
        base.vae.to(self.device, torch.float32).requires_grad_(False)
        for encoder in self._text_encoders():
            encoder.to(self.device, frozen).requires_grad_(False)
        learning = [p for part in model.trained().values() for p in part.parameters()]
        optimizer = torch.optim.AdamW(learning, recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.learning = learning
        self.inner = model.to(self.device)
        self.average = Average(model.trained(), recipe.ema)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.noising = DDPMScheduler.from_config(base.scheduler.config, clip_sample=False)
        self.parts: dict[str, Any] = {**model.trained(), "optimizer": self.optimizer, "average": self.average}
        if accelerator.scaler is not None:
            self.parts["scaler"] = accelerator.scaler
        self._order: tuple[int, np.ndarray] | None = None
        self.done = 0
        """Optimiser steps taken."""

    # -- the run --------------------------------------------------------------------------------------------------

    def run(self, max_steps: int | None = None) -> float:
        """Trains to the recipe's last step, or takes at most `max_steps` more; returns the last loss.

        States are written to `out/states`, averaged weights to `out/checkpoint`.
        """
        recipe = self.recipe
        last = recipe.steps if max_steps is None else min(recipe.steps, self.done + max_steps)
        tracker = Tracker(self.out) if self.accelerator.is_main_process else None
        log.info("%s", describe(self.inner))
        began, loss = time.monotonic(), math.nan
        with ThreadPoolExecutor(1) as ahead:
            upcoming = ahead.submit(self.examples, self.done * recipe.accumulation)
            while self.done < last:
                self._set_rate()
                total = 0.0
                for part in range(recipe.accumulation):
                    number = self.done * recipe.accumulation + part
                    batch = upcoming.result()
                    upcoming = ahead.submit(self.examples, number + 1)
                    with self.accelerator.accumulate(self.model):
                        one = self.loss(batch, number)
                        self.accelerator.backward(one)
                        if self.accelerator.sync_gradients:
                            self.accelerator.clip_grad_norm_(self.learning, recipe.clip)
                        self.optimizer.step()
                        self.optimizer.zero_grad()
                    total += one.item()
                self.average.update()
                self.done += 1
                loss = total / recipe.accumulation
                if tracker and (self.done % 20 == 0 or self.done == last):
                    seen = self.done * recipe.accumulation * recipe.batch * self.accelerator.num_processes
                    tracker.write(self.done, {"loss": loss, "examples": seen, "seconds": time.monotonic() - began})
                    log.info("step %d of %d, loss %.4f", self.done, recipe.steps, loss)
                if self.done % recipe.save_every == 0 or self.done == last:
                    self.save()
                if tracker and recipe.samples and (self.done % recipe.sample_every == 0 or self.done == last):
                    tracker.write(self.done, self.sample())
            upcoming.cancel()
        if tracker:
            tracker.close()
            self.export()
        self.accelerator.wait_for_everyone()
        return loss

    def loss(self, batch: Examples, number: int) -> Tensor:
        """The diffusion loss of forward pass `number`."""
        recipe, device = self.recipe, self.device
        chance = torch.Generator().manual_seed(_seed(recipe.seed, number, self.accelerator.process_index))
        with torch.no_grad():
            clean = self.encode(batch.pixels.to(device))
            noise = torch.randn(clean.shape, generator=chance).to(device)
            count = self.noising.config.num_train_timesteps
            timestep = torch.randint(0, count, (len(clean),), generator=chance).to(device)
            noisy = self.noising.add_noise(clean, noise, timestep)
            embedding, captions = drop(batch.embeddings, batch.captions, recipe, chance)
            told = self.conditions(captions, batch.maps, batch.sizes)
        kind = self.noising.config.prediction_type
        target = self.noising.get_velocity(clean, noise, timestep) if kind == "v_prediction" else noise
        with self.accelerator.autocast():
            predicted = self.model(noisy, timestep, embedding.to(device), told)
        losses = F.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 2, 3))
        return (losses * self._weight(timestep, kind)).mean()

    # -- what the networks are given --------------------------------------------------------------------------------

    def examples(self, number: int) -> Examples:
        """The examples of forward pass `number` in this process: every photograph once per epoch, in a new order."""
        recipe, rank = self.recipe, self.accelerator.process_index
        people, width = len(self.faces.rows), recipe.batch * self.accelerator.num_processes
        rows = []
        for position in range(number * width + rank * recipe.batch, number * width + (rank + 1) * recipe.batch):
            epoch, place = divmod(position, people)
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, np.random.default_rng([recipe.seed, epoch]).permutation(people)
            rows.append(int(self._order[1][place]))
        draw = np.random.default_rng([recipe.seed, number, rank])
        return examples.batch(self.photos, self.faces, rows, recipe.resolution, recipe.caption, draw)

    def conditions(self, captions: list[str], maps: Tensor, sizes: Tensor) -> Conditions:
        """Words, maps and sizes as the networks take them; the identity tokens come later."""
        encoded = self.base.encode_prompt(
            captions, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        text, pooled = encoded[0], encoded[2] if len(encoded) == 4 else None
        mapped = torch.ones(len(captions), 1, 1, 1, device=self.device)
        return Conditions(text, pooled, text, maps.to(self.device), mapped, sizes.to(self.device))

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of pictures `(n, 3, h, w)` in -1..1: the VAE's mean, so that no chance depends on the device."""
        vae = self.base.vae
        latents = retrieve_latents(vae.encode(pixels), sample_mode="argmax")
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is not None and std is not None:
            shape = (1, -1, 1, 1)
            latents = (latents - latents.new_tensor(mean).view(shape)) / latents.new_tensor(std).view(shape)
        return latents * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `(n, 3, h, w)` in -1..1."""
        vae = self.base.vae
        values = latents.float() / vae.config.scaling_factor
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is not None and std is not None:
            shape = (1, -1, 1, 1)
            values = values * values.new_tensor(std).view(shape) + values.new_tensor(mean).view(shape)
        return vae.decode(values).sample

    def _text_encoders(self) -> list[torch.nn.Module]:
        names = ("text_encoder", "text_encoder_2")
        return [part for name in names if (part := getattr(self.base, name, None)) is not None]

    def _set_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * min(1.0, (self.done + 1) / max(self.recipe.warmup, 1))

    def _weight(self, timestep: Tensor, kind: str) -> Tensor:
        """Min-SNR weights `(n,)`, or ones."""
        if not self.recipe.min_snr:
            return torch.ones(len(timestep), device=self.device)
        alphas = self.noising.alphas_cumprod.to(self.device)[timestep]
        snr = alphas / (1 - alphas)
        return snr.clamp(max=self.recipe.min_snr) / (snr + 1 if kind == "v_prediction" else snr).clamp(min=1e-8)

    # -- what comes out ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self) -> dict[str, float]:
        """Draws the first photographs' people with the averaged weights: a grid on disk, and how alike they are."""
        recipe = self.recipe
        rows = list(range(min(recipe.samples, len(self.faces.rows))))
        batch = examples.batch(
            self.photos, self.faces, rows, recipe.resolution, recipe.caption, np.random.default_rng(recipe.seed)
        )
        self.average.swap()
        made = self.draw(batch)
        self.average.swap()
        save_grid([batch.pixels, batch.maps * 2 - 1, made], self.out / f"samples-{self.done:07d}.png")
        if self.analyser is None:
            return {}
        cosines = []
        for picture, embedding in zip(made, batch.embeddings, strict=True):
            found = self.analyser.detect(_pil(picture), limit=1)
            if found:
                cosine = F.cosine_similarity(torch.from_numpy(found[0].embedding), embedding, dim=0)
                cosines.append(cosine.item())
        figures = {"face_found": len(cosines) / len(rows)}
        return figures | ({"likeness": sum(cosines) / len(cosines)} if cosines else {})

    @torch.no_grad()
    def draw(self, batch: Examples) -> Tensor:
        """Pictures `(n, 3, r, r)` in -1..1 of a batch's people, by DDIM with guidance."""
        recipe, count = self.recipe, len(batch.captions)
        scheduler = DDIMScheduler.from_config(self.base.scheduler.config, clip_sample=False)
        scheduler.set_timesteps(recipe.sample_steps)
        nobody = torch.zeros_like(batch.embeddings)
        embedding = torch.cat([nobody, batch.embeddings]).to(self.device)
        told = self.conditions([""] * count + batch.captions, batch.maps.repeat(2, 1, 1, 1), batch.sizes.repeat(2, 1))
        shape = self.encode(batch.pixels.to(self.device)).shape
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(recipe.seed)).to(self.device)
        latents = latents * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            doubled = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            with self.accelerator.autocast():
                predicted = self.inner(doubled, timestep.expand(2 * count).to(self.device), embedding, told).float()
            without, whole = predicted.chunk(2)
            guided = without + recipe.sample_guidance * (whole - without)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        return self.decode(latents).float().cpu().clamp(-1, 1)

    def export(self) -> Path:
        """Writes the averaged weights in the public layout to `out/checkpoint`."""
        self.average.swap()
        self.inner.export(self.out / "checkpoint", self.recipe.export)
        self.average.swap()
        return self.out / "checkpoint"

    # -- stopping and going on ----------------------------------------------------------------------------------------

    def save(self) -> None:
        """Writes the state of this step and deletes old ones; a kill at any moment leaves a readable state."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        folder = self.out / "states"
        folder.mkdir(exist_ok=True)
        save_state(folder / f"state-{self.done:08d}.pt", self.parts, 0.0, self.done)
        for old in sorted(folder.glob("state-*.pt"))[: -self.recipe.keep]:
            os.unlink(old)

    def resume(self, file: Path | None = None) -> int:
        """Goes on from a state: the given one, or the newest in `out/states`; returns its step, 0 where there is none.

        Raises:
            RequestError: the given file is not there, or of another model.
        """
        if file is None:
            file = max((self.out / "states").glob("state-*.pt"), default=None)
            if file is None:
                return 0
        if not file.is_file():
            raise RequestError(f"There is no training state {file}: look into {self.out / 'states'}.")
        try:
            _, self.done = load_state(file, self.parts)
        except (RuntimeError, KeyError, ValueError) as error:
            raise RequestError(f"The training state {file.name} was made with another base or recipe.") from error
        log.info("going on after step %d", self.done)
        return self.done


def drop(
    embeddings: Tensor, captions: list[str], recipe: AdapterRecipe, chance: torch.Generator
) -> tuple[Tensor, list[str]]:
    """Leaves out words, identity or both in the recipe's shares of the rows."""
    lot = torch.rand(len(captions), generator=chance)
    words = recipe.drop_text
    identity = words + recipe.drop_identity
    both = identity + recipe.drop_both
    without_words = (lot < words) | ((lot >= identity) & (lot < both))
    without_identity = (lot >= words) & (lot < both)
    kept = embeddings * ~without_identity[:, None]
    return kept, ["" if gone else text for gone, text in zip(without_words.tolist(), captions, strict=True)]


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _pil(picture: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(picture.add(1).mul(127.5).byte().permute(1, 2, 0).numpy())
