"""Pocket's last stage: a LoRA with which the UNet draws in one step what it draws in four without.

The idea of LCM-LoRA (arXiv 2311.05556): the networks stay as they are, and what few steps need is a small file that
a preset names. Where the whole path has four steps no consistency along the way is needed: from the same noise the
student's only step is drawn towards the picture at the path's end.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from instantid_demo.training.denoising import sample
from instantid_demo.training.drawing import Batch
from instantid_demo.training.hybrid import HybridRecipe, HybridTrainer
from instantid_demo.training.precision import autocast

FILE = "few-step.safetensors"
ADAPTER = "few_step"
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "net.0.proj", "net.2", "conv1", "conv2"]


@dataclass(frozen=True)
class FewStepRecipe(HybridRecipe):
    """Numbers of this stage; the losses are distances to the teacher's picture, and what the recognisers say."""

    rank: int = 16
    teacher_steps: int = 4
    decoder_every: int = 0
    variety_weight: float = 0.0


class FewStepTrainer(HybridTrainer):
    """Trains a LoRA on the UNet's layers; the networks without it are the teacher."""

    recipe: FewStepRecipe

    def learners(self) -> dict[str, nn.Module]:
        """The LoRA alone, new on the UNet."""
        recipe, unet = self.recipe, self.networks.unet
        torch.manual_seed(recipe.seed)
        config = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=LAYERS, init_lora_weights="gaussian")
        unet.add_adapter(config, adapter_name=ADAPTER)
        ends = f"lora_A.{ADAPTER}", f"lora_B.{ADAPTER}"
        return {"lora": nn.ModuleList([part for name, part in unet.named_modules() if name.endswith(ends)])}

    def losses(self, batch: Batch, lot: np.random.Generator, critic: bool) -> dict[str, Tensor]:
        """All weighted losses of one batch: what the only step draws, against the end of the teacher's path."""
        recipe, unet = self.recipe, self.networks.unet
        noise = torch.randn(len(batch.ids), unet.config.in_channels, 16, 16)
        with autocast():
            told = self.conditions(batch)
            with torch.no_grad():
                unet.disable_adapters()
                wanted = sample(self.predict, told, recipe.teacher_steps, noise, self.alpha, self.sigma)
                target = self.decoder(wanted.contiguous(memory_format=torch.channels_last)).float()
                unet.enable_adapters()
            # At pure noise the estimate of the clean latents is the negative prediction.
            estimate = -self.predict(noise, torch.full((len(noise),), 999), told)
            made = self.decoder(estimate.contiguous(memory_format=torch.channels_last)).float()
        taught = replace(batch, pictures=target, known=torch.ones_like(batch.known))
        return self.losses_of(taught, wanted, estimate, made, critic)


def save(unet: UNet2DConditionModel, out: Path) -> None:
    """Writes the LoRA in fp16 to `out`, in the layout of public LoRAs, and takes it off the UNet."""
    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    weights = {name: value.half().contiguous() for name, value in state.items()}
    StableDiffusionXLPipeline.save_lora_weights(out, unet_lora_layers=weights, weight_name=FILE)
    unet.unload_lora()
