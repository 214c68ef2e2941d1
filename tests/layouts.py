"""Tiny stand-ins of every layout in which base models, control networks and InstantID are published."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from instantid_demo.method.architectures import clip_tokenizer
from instantid_demo.training.adapter_model import AdapterModel

State = dict[str, Tensor]
EMBEDDING = 128
"""Width of dlib's embeddings: these InstantIDs work with the face recogniser that is always here."""


def tiny_sdxl(seed: int = 0, **unet: Any) -> Any:
    """SDXL's own classes and blocks with few channels and random weights; two encoders of different widths."""
    torch.manual_seed(seed)
    text = {"vocab_size": 49408, "num_hidden_layers": 2, "num_attention_heads": 2, "bos_token_id": 0}
    text |= {"pad_token_id": 1, "eos_token_id": 2}
    first = CLIPTextConfig(**text, hidden_size=16, intermediate_size=32, projection_dim=16)
    second = CLIPTextConfig(**text, hidden_size=32, intermediate_size=64, projection_dim=32, hidden_act="gelu")
    shape: dict[str, Any] = {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (1, 1, 1),
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": 48,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 32 + 6 * 256,
        "sample_size": 128,
    }
    return diffusers.StableDiffusionXLPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            layers_per_block=2,
            scaling_factor=0.13025,
        ),
        unet=UNet2DConditionModel(**{**shape, **unet}),
        text_encoder=CLIPTextModel(first),
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer("!"),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )


def tiny_instantid(unet: UNet2DConditionModel, folder: Path, embedding: int = EMBEDDING) -> None:
    """IdentityNet and adapter for a UNet (which stays as it is), in the public layout, for embeddings of this width."""
    torch.manual_seed(7)
    twin = UNet2DConditionModel.from_config(unet.config)
    twin.load_state_dict(unet.state_dict())
    AdapterModel.fresh(twin, embedding, tokens=4, width=64).export(folder)


def tiny_control(unet: UNet2DConditionModel, seed: int = 1) -> ControlNetModel:
    """An ordinary ControlNet for a UNet whose output is not all zeros, as an untrained one's would be."""
    return _stirred(ControlNetModel.from_unet(unet), seed)


def tiny_union(unet: UNet2DConditionModel, seed: int = 2) -> ControlNetUnionModel:
    """A ControlNet-Union for a UNet."""
    shape = ControlNetModel.from_unet(unet).config
    given = {key: value for key, value in shape.items() if not key.startswith("_")}
    for name in ("global_pool_conditions", "addition_embed_type_num_heads", "mid_block_type"):
        given.pop(name, None)
    width = unet.config.block_out_channels[0]
    union = ControlNetUnionModel(
        **given, num_trans_channel=width, num_trans_head=2, num_proj_channel=width, num_control_type=6
    )
    return _stirred(union, seed)


def _stirred(net: Any, seed: int) -> Any:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=draw))
    return net.eval()


# -- the original layout, the one of single files ----------------------------------------------------------------


def one_file(pipe: Any) -> State:
    """SDXL as one file in the original layout: what diffusers reads back are the same weights."""
    text = {
        f"text_model.{key.removeprefix('text_model.')}": value for key, value in pipe.text_encoder.state_dict().items()
    }
    return {
        **{f"model.diffusion_model.{key}": value for key, value in original_unet(pipe.unet).items()},
        **{f"first_stage_model.{key}": value for key, value in original_vae(pipe.vae).items()},
        **{f"conditioner.embedders.0.transformer.{key}": value for key, value in text.items()},
        **{f"conditioner.embedders.1.model.{key}": value for key, value in open_clip(pipe.text_encoder_2).items()},
    }


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def original_unet(net: Any) -> State:
    """A UNet's or ControlNet's encoder and decoder under their original names."""
    blocks, layers = len(net.config.block_out_channels), net.config.layers_per_block
    names = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
    }
    state = net.state_dict()
    for block in range(blocks):
        for layer in range(layers):
            place = (layers + 1) * block + layer + 1
            names[f"down_blocks.{block}.resnets.{layer}."] = f"input_blocks.{place}.0."
            names[f"down_blocks.{block}.attentions.{layer}."] = f"input_blocks.{place}.1."
        names[f"down_blocks.{block}.downsamplers.0.conv."] = f"input_blocks.{(layers + 1) * (block + 1)}.0.op."
        hears = f"up_blocks.{block}.attentions.0.norm.weight" in state
        for layer in range(layers + 1):
            place = (layers + 1) * block + layer
            names[f"up_blocks.{block}.resnets.{layer}."] = f"output_blocks.{place}.0."
            names[f"up_blocks.{block}.attentions.{layer}."] = f"output_blocks.{place}.1."
        last = (layers + 1) * block + layers
        names[f"up_blocks.{block}.upsamplers.0."] = f"output_blocks.{last}.{2 if hears else 1}."
    resnets = {key: value for key, value in state.items() if ".resnets." in key}
    others = {key: value for key, value in state.items() if key not in resnets}
    return {**_renamed(resnets, names, _RESNET), **_renamed(others, names, {})}


def original_control(net: ControlNetModel) -> State:
    """A ControlNet under its original names."""
    hint = {"conv_in.": "input_hint_block.0.", "conv_out.": "input_hint_block.14."}
    hint |= {f"blocks.{number}.": f"input_hint_block.{2 * number + 2}." for number in range(6)}
    found: State = {}
    for key, value in net.state_dict().items():
        if key.startswith("controlnet_cond_embedding."):
            found |= _renamed({key.removeprefix("controlnet_cond_embedding."): value}, hint, {})
        elif key.startswith("controlnet_down_blocks."):
            _, number, what = key.split(".")
            found[f"zero_convs.{number}.0.{what}"] = value
        elif key.startswith("controlnet_mid_block."):
            found[key.replace("controlnet_mid_block.", "middle_block_out.0.")] = value
    return {
        f"control_model.{key}": value
        for key, value in {**original_unet(net), **found}.items()
        if "controlnet" not in key
    }


def original_vae(vae: Any) -> State:
    """An autoencoder under its original names; its attention is made of convolutions there."""
    names: dict[str, str] = {}
    for side, step, count in (("encoder", "down", 2), ("decoder", "up", 3)):
        names |= {
            f"{side}.conv_norm_out.": f"{side}.norm_out.",
            f"{side}.mid_block.attentions.0.": f"{side}.mid.attn_1.",
        }
        names |= {f"{side}.mid_block.resnets.{number}.": f"{side}.mid.block_{number + 1}." for number in (0, 1)}
        for block in range(4):
            theirs = block if side == "encoder" else 3 - block
            for layer in range(count):
                names[f"{side}.{step}_blocks.{block}.resnets.{layer}."] = f"{side}.{step}.{theirs}.block.{layer}."
            names[f"{side}.{step}_blocks.{block}.{step}samplers.0."] = f"{side}.{step}.{theirs}.{step}sample."
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    found = _renamed(vae.state_dict(), names, {"conv_shortcut": "nin_shortcut", **attention})
    return {
        key: value[..., None, None] if ".attn_1." in key and value.ndim == 2 else value for key, value in found.items()
    }


def open_clip(encoder: Any) -> State:
    """SDXL's second text encoder under OpenCLIP's names."""
    names = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding.": "token_embedding.",
        "text_model.final_layer_norm.": "ln_final.",
        "text_model.encoder.layers.": "transformer.resblocks.",
    }
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj"}
    inner |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    state = dict(encoder.state_dict())
    found: State = {"text_projection": state.pop("text_projection.weight").T.contiguous()}
    for key in [key for key in state if ".self_attn.q_proj." in key]:
        parts = [state.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        layer = key.split(".")[3]
        found[f"transformer.resblocks.{layer}.attn.in_proj_{key.rpartition('.')[2]}"] = torch.cat(parts)
    return {**found, **_renamed(state, names, inner)}


def _renamed(state: State, starts: dict[str, str], inner: dict[str, str]) -> State:
    found: State = {}
    for key, value in state.items():
        start = next((start for start in starts if key.startswith(start)), "")
        rest = key.removeprefix(start)
        for ours, theirs in inner.items():
            if rest.startswith(f"{ours}.") or f".{ours}." in rest:
                rest = rest.replace(ours, theirs)
                break
        found[starts.get(start, "") + rest] = value
    return found
