"""Networks of SDXL's shape with random weights, in any width: speed does not depend on what the weights say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from instantid_demo.method.identity_net import IdentityNet
from instantid_demo.method.image_adapter import load_image_adapter
from instantid_demo.method.pipelines import SDXLTextToImage
from instantid_demo.settings import ROOT
from instantid_demo.training.pocket import _joined, _public_name

CPU = torch.device("cpu")
FACE = 512
TOKENS = 16
SHARE_OF_NETS = 0.83
"""Of SDXL's weights are in UNet, IdentityNet and image adapter."""


@dataclass(frozen=True)
class Size:
    """How large the networks and the picture are."""

    name: str
    channels: tuple[int, int, int]
    head: int
    """Channels of an attention head."""
    texts: tuple[int, int]
    """Widths of the two text encoders."""
    layers: tuple[int, int]
    """Layers of the two text encoders."""
    vae: tuple[int, int, int, int]
    resampler: int
    side: int
    """Of the picture, pixels."""
    steps: int = 30
    depth: tuple[int, int, int] = (1, 2, 10)
    """Transformer layers of the blocks."""

    @property
    def cross(self) -> int:
        """Width of text and identity tokens."""
        return sum(self.texts)


SIZES = {
    # For tests of this code, not for figures.
    "smallest": Size("smallest", (32, 32, 64), 16, (64, 64), (1, 1), (16, 16, 16, 16), 64, 64, depth=(1, 1, 2)),
    # A tenth of SDXL's width; heads must divide it.
    "tiny": Size("tiny", (32, 64, 128), 16, (64, 128), (2, 3), (16, 32, 64, 64), 128, 256),
    "sdxl": Size("sdxl", (320, 640, 1280), 64, (768, 1280), (12, 32), (128, 256, 512, 512), 1280, 1024),
}


Part = Literal["text", "nets", "vae"]
PARTS: tuple[Part, ...] = ("text", "nets", "vae")


def build(
    size: Size, dtype: torch.dtype = torch.float32, parts: Sequence[Part] = PARTS, device: torch.device = CPU
) -> SDXLTextToImage:
    """The product's own text-to-image pipeline on random networks, the same weights at every call.

    Args:
        size: how large.
        dtype: of all weights.
        parts: what is there; the others are None, and the pipeline can only do what needs them not.
        device: where they are put once they are made.
    """
    tokenizer = _tokenizer()
    networks: dict[str, Any] = dict.fromkeys(("text_encoder", "text_encoder_2", "unet", "controlnet", "vae"))
    torch.set_default_dtype(dtype)
    try:
        for part in parts:
            torch.manual_seed(0)
            networks |= _MAKE[part](size)
        if "nets" in parts:
            load_image_adapter(networks["unet"], _adapter(networks["unet"], size))
    finally:
        torch.set_default_dtype(torch.float32)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    for network in networks.values():
        if network is not None:
            network.to(dtype).eval().requires_grad_(False)
    pipe = SDXLTextToImage(
        **networks, tokenizer=tokenizer, tokenizer_2=tokenizer, scheduler=scheduler, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def tiny_autoencoder(size: Size, dtype: torch.dtype, device: torch.device) -> AutoencoderTiny:
    """Of TAESDXL's shape, a quarter as wide where the networks are small."""
    width = 64 if size.name == "sdxl" else 16
    torch.manual_seed(0)
    vae = AutoencoderTiny(encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4)
    return vae.to(device, dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def weights_of(size: Size) -> int:
    """How many weights all networks of this size have, but for the image adapter's."""
    with torch.device("meta"):
        networks = [network for part in PARTS for network in _MAKE[part](size).values()]
    return sum(weight.numel() for network in networks for weight in network.parameters())


def _nets(size: Size) -> dict[str, torch.nn.Module]:
    unet = UNet2DConditionModel(
        sample_size=size.side // 8,
        block_out_channels=size.channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=size.depth,
        attention_head_dim=tuple(channels // size.head for channels in size.channels),
        cross_attention_dim=size.cross,
        use_linear_projection=True,
        norm_num_groups=min(32, size.channels[0] // 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=size.texts[1] + 6 * 256,
    )
    identity_net = IdentityNet.from_unet(unet)
    for zero in (identity_net.controlnet_mid_block, *identity_net.controlnet_down_blocks):
        torch.nn.init.normal_(zero.weight, std=0.02)  # zeros as in a fresh ControlNet would hide what it does
    return {"unet": unet, "controlnet": identity_net}


@cache
def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ROOT / "assets" / "pocket" / "tokenizer")


def _text(size: Size) -> dict[str, torch.nn.Module]:
    encoders, tokenizer = [], _tokenizer()
    for kind, width, layers, act in (
        (CLIPTextModel, size.texts[0], size.layers[0], "quick_gelu"),
        (CLIPTextModelWithProjection, size.texts[1], size.layers[1], "gelu"),
    ):
        config = CLIPTextConfig(
            vocab_size=49408 if size.name == "sdxl" else len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64 if width > 64 else 2,
            projection_dim=width,
            hidden_act=act,
            eos_token_id=tokenizer.eos_token_id,
        )
        encoders.append(kind(config))
    return {"text_encoder": encoders[0], "text_encoder_2": encoders[1]}


def _vae(size: Size) -> dict[str, torch.nn.Module]:
    vae = AutoencoderKL(
        block_out_channels=size.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=min(32, size.vae[0]),
        scaling_factor=0.13025,
        sample_size=size.side,
    )
    return {"vae": vae}


_MAKE: dict[Part, Callable[[Size], dict[str, torch.nn.Module]]] = {"text": _text, "nets": _nets, "vae": _vae}


def _adapter(unet: UNet2DConditionModel, size: Size) -> dict[str, dict[str, torch.Tensor]]:
    """A random image adapter in InstantID's layout."""
    resampler = IPAdapterPlusImageProjection(
        embed_dims=FACE,
        output_dims=size.cross,
        hidden_dims=size.resampler,
        depth=4,
        heads=size.resampler // 64,
        num_queries=TOKENS,
    )
    state = {_public_name(key): value for key, value in _joined(resampler.state_dict()).items()}
    layers = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            weight = unet.get_submodule(name.removesuffix(".processor")).to_k.weight
            for part in ("to_k_ip", "to_v_ip"):
                layers[f"{index}.{part}.weight"] = torch.randn_like(weight) * weight.std()
    return {"image_proj": state, "ip_adapter": layers}
