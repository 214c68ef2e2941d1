"""`train RECIPE --dry-run`: proves a recipe without its base, its data or its memory.

Full size: the networks are built on PyTorch's meta device, which knows shapes and no numbers; one forward and backward
pass there counts what a real one would keep. Small: networks of the same classes with random weights really train for
some steps on random pictures, stop, go on, export, and the export is read back.
"""

import io
import json
import logging
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from instantid_demo.training.adapter import AdapterRecipe, AdapterTrainer
from instantid_demo.training.adapter_model import AdapterModel
from instantid_demo.training.denoising import Conditions
from instantid_demo.training.examples import KnownFaces
from instantid_demo.training.pocket import train_tokenizer
from instantid_demo.training.shards import Photograph, photographs

log = logging.getLogger(__name__)
Architecture = Literal["sdxl", "sd15"]
GIGABYTE = 2**30

UNETS: dict[Architecture, dict[str, Any]] = {
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "sd15": {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768},
}
"""The published UNets."""
_POOLED = 1280
_EMBEDDINGS = {"antelopev2": 512, "dlib": 128}


@dataclass(frozen=True)
class Estimate:
    """What a full-size step needs, in bytes; parameters as counts."""

    frozen: int
    trained: int
    frozen_bytes: int
    trained_bytes: int
    """Weights, gradients, AdamW's two moments and the average, all in float32."""
    activations: int
    """Kept for the backward pass at the recipe's batch and precision; a block more while it is redone."""
    prediction: tuple[int, ...]

    def total(self) -> int:
        """Everything together, without text encoders, VAE and the allocator's waste."""
        return self.frozen_bytes + self.trained_bytes + self.activations

    def __str__(self) -> str:
        return (
            f"{self.frozen / 1e6:,.0f} M frozen and {self.trained / 1e6:,.0f} M trained parameters; per device "
            f"{self.frozen_bytes / GIGABYTE:.1f} GB frozen weights, {self.trained_bytes / GIGABYTE:.1f} GB trained "
            f"weights with gradients, AdamW and average, {self.activations / GIGABYTE:.1f} GB activations: "
            f"{self.total() / GIGABYTE:.1f} GB, and the VAE and text encoders beside it"
        )


def architecture_of(recipe: AdapterRecipe) -> Architecture:
    """SDXL unless the recipe's name of its base says SD1.5; used where the base itself is not here."""
    name = recipe.base.lower()
    return "sd15" if any(part in name for part in ("v1-5", "sd15", "sd-1", "1.5")) else "sdxl"


def estimate(architecture: Architecture, recipe: AdapterRecipe) -> tuple[Estimate, AdapterModel]:
    """Counts a full-size training step on the meta device; the model comes along for a look at its shapes."""
    half = recipe.mixed_precision != "no"
    kind = torch.bfloat16 if half else torch.float32
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**UNETS[architecture])
        model = AdapterModel.fresh(unet, _EMBEDDINGS[recipe.recogniser], recipe.tokens, recipe.resampler_width)
    if recipe.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
        model.identity_net.enable_gradient_checkpointing()
    model.to(kind).train()
    learning = [p for part in model.trained().values() for p in part.parameters()]
    frozen = sum(p.numel() for p in unet.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in learning)
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            held.append(tensor)
        return tensor

    held: list[Tensor] = []  # a freed storage's address would be counted for its successor
    count, side, width = recipe.batch, recipe.resolution // 8, unet.config.cross_attention_dim

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta", dtype=kind)

    told = Conditions(
        empty(count, 77, width),
        empty(count, _POOLED),
        empty(count, recipe.tokens, width),
        empty(count, 3, recipe.resolution, recipe.resolution),
        empty(count, 1, 1, 1),
        empty(count, 6),
    )
    embedding = empty(count, _EMBEDDINGS[recipe.recogniser])
    timestep = torch.zeros(count, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        predicted = model(empty(count, unet.config.in_channels, side, side), timestep, embedding, told)
    activations = sum(kept.values())
    held.clear()
    predicted.float().square().mean().backward()
    missing = [parameter for parameter in learning if parameter.grad is None]
    if missing:
        raise RuntimeError(f"{len(missing)} trained parameters got no gradient")
    found = Estimate(frozen, trained, frozen * (2 if half else 4), trained * 4 * 5, activations, tuple(predicted.shape))
    return found, model


@cache
def _tokenizer() -> CLIPTokenizer:
    """One for all tiny bases: learning it anew may number words of equal frequency in another order."""
    return train_tokenizer(["a photo of a person"], 600)


def tiny_base(architecture: Architecture, seed: int = 0) -> Any:
    """A stock pipeline of the architecture's own classes, with small networks of random weights."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    sdxl = architecture == "sdxl"
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 32,
        "bos_token_id": len(tokenizer) - 2,
        "eos_token_id": len(tokenizer) - 1,
        "pad_token_id": len(tokenizer) - 1,
    }
    small: dict[str, Any] = {"block_out_channels": (32, 64), "attention_head_dim": (2, 4), "norm_num_groups": 8}
    small |= {"sample_size": 8, "layers_per_block": 1, "cross_attention_dim": 64 if sdxl else 32}
    small |= {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    small |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    if sdxl:
        small |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True}
        small |= {"projection_class_embeddings_input_dim": 32 + 6 * 8}
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        layers_per_block=1,
    )
    parts: dict[str, Any] = {
        "vae": vae,
        "unet": diffusers.UNet2DConditionModel(**small),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**text)),
        "tokenizer": tokenizer,
        "scheduler": diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
        ),
    }
    if not sdxl:
        options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return diffusers.StableDiffusionPipeline(**parts, **options)
    second = CLIPTextModelWithProjection(CLIPTextConfig(**text))
    return diffusers.StableDiffusionXLPipeline(
        **parts, text_encoder_2=second, tokenizer_2=tokenizer, add_watermarker=False
    )


def random_people(folder: Path, count: int, dimension: int, seed: int = 0) -> tuple[list[Photograph], KnownFaces]:
    """Random pictures on disk, with keypoints and embeddings that no detector had to find."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        stream = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (80, 72, 3)).astype(np.uint8)).save(stream, "PNG")
        (folder / f"{number:03d}.png").write_bytes(stream.getvalue())
    keypoints = np.array([[26, 30], [46, 30], [36, 40], [28, 52], [44, 52]], np.float32)
    embeddings = draw.normal(size=(count, dimension)).astype(np.float32)
    faces = KnownFaces(np.arange(count), np.repeat(keypoints[None], count, 0), embeddings)
    return photographs(folder), faces


def tiny_trainer(architecture: Architecture, recipe: AdapterRecipe, out: Path, dimension: int = 16) -> AdapterTrainer:
    """A trainer of a tiny base on random people, on the CPU."""
    photos, faces = random_people(out / "pictures", 6, dimension)
    base = tiny_base(architecture)
    model = AdapterModel.fresh(base.unet, dimension, recipe.tokens, recipe.resampler_width)
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=recipe.accumulation, mixed_precision=recipe.mixed_precision
    )
    return AdapterTrainer(base, model, photos, faces, recipe, out, accelerator)


def small(recipe: AdapterRecipe, steps: int) -> AdapterRecipe:
    """The recipe with numbers for a tiny base."""
    return replace(
        recipe,
        resolution=64,
        tokens=4,
        resampler_width=64,
        steps=steps,
        batch=2,
        accumulation=2,
        mixed_precision="no",
        save_every=1,
        samples=2,
        sample_every=steps,
        sample_steps=2,
        warmup=1,
    )


def run(recipe: AdapterRecipe, steps: int) -> str:
    """Estimates the full size, really trains the small one for `steps` steps, and says so in plain lines."""
    architecture = architecture_of(recipe)
    found, _ = estimate(architecture, recipe)
    lines = [f"{architecture} at full size, batch {recipe.batch}, {recipe.resolution} pixels: {found}."]
    lines.append(f"Prediction {found.prediction}; every trained parameter gets a gradient.")
    with tempfile.TemporaryDirectory() as folder:
        trainer = tiny_trainer(architecture, small(recipe, steps), Path(folder))
        loss = trainer.run(max(1, steps - 1))
        if steps > 1:
            trainer = tiny_trainer(architecture, small(recipe, steps), Path(folder))
            trainer.resume()
            loss = trainer.run()
        read = AdapterModel.read(tiny_base(architecture).unet, Path(folder) / "checkpoint")
        size = sum(p.numel() for part in read.trained().values() for p in part.parameters())
        figures = json.dumps({"steps": trainer.done, "loss": round(loss, 4), "parameters": size})
        lines.append(f"A tiny {architecture} model really trained, stopped, went on, was exported and read: {figures}.")
    return "\n".join(lines)
