"""Pocket's last stage: a LoRA with which the UNet draws in one step what it draws in four without.

The idea of LCM-LoRA (arXiv 2311.05556): the networks stay as they are, and what few steps need is a small file that
a preset names. Where the whole path has four steps no consistency along the way is needed: from the same noise the
student's only step is drawn towards the picture at the path's end.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from instantid_demo.training.joint import Batch, JointRecipe, Trainer, sample, texture
from instantid_demo.training.precision import autocast

FILE = "few-step.safetensors"
ADAPTER = "few_step"
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "net.0.proj", "net.2", "conv1", "conv2"]


@dataclass(frozen=True)
class FewStepRecipe(JointRecipe):
    """Numbers of this stage; all losses are distances to the teacher's picture, but for likeness and keypoints."""

    rank: int = 16
    teacher_steps: int = 4
    latent_weight: float = 1.0
    pixel_weight: float = 2.0


class FewStepTrainer(Trainer):
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

    def losses(self, batch: Batch, judge: bool) -> dict[str, Tensor]:
        """All weighted losses of one batch; `judge` is always on here."""
        recipe, unet = self.recipe, self.networks.unet
        noise = torch.randn_like(batch.latents)
        with autocast():
            told, whole = self.conditions(batch, drop=True)
            with torch.no_grad():
                unet.disable_adapters()
                wanted = sample(self.networks, told, recipe.teacher_steps, noise, self.alpha, self.sigma)
                target = self.decoder(wanted).float()
                unet.enable_adapters()
            # At pure noise the estimate of the clean latents is the negative prediction.
            estimate = -self.predict(noise, torch.full((len(noise),), 999), told)
            made = self.decoder(estimate.contiguous(memory_format=torch.channels_last)).float()
        losses = {
            "latents": recipe.latent_weight * F.mse_loss(estimate.float(), wanted),
            "pixels": recipe.pixel_weight * F.l1_loss(made, target),
            "tone": recipe.tone_weight * F.l1_loss(F.avg_pool2d(made, 8), F.avg_pool2d(target, 8)),
            "texture": recipe.texture_weight * F.l1_loss(texture(made), texture(target)),
        }
        chosen = torch.nonzero(whole)[: recipe.judged, 0]
        if len(chosen):
            losses |= self.judge(made[chosen], target[chosen], batch, chosen, torch.ones(len(chosen), 1, 1, 1))
        return losses


def save(unet: UNet2DConditionModel, out: Path) -> None:
    """Writes the LoRA in fp16 to `out`, in the layout of public LoRAs, and takes it off the UNet."""
    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    weights = {name: value.half().contiguous() for name, value in state.items()}
    StableDiffusionXLPipeline.save_lora_weights(out, unet_lora_layers=weights, weight_name=FILE)
    unet.unload_lora()
