"""SDXL and SD1.5 as published: configs and tokenizers for base models and ControlNets that come as one file.

They lie in `assets/architectures`, so that such a file loads without a network.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from instantid_demo.method.checkpoints import (
    ARCHITECTURES,
    Architecture,
    CheckpointInfo,
    NetworkConfig,
    Shapes,
    read_config,
)
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT

PUBLISHED = ROOT / "assets" / "architectures"
TOKENIZERS: Mapping[str, Mapping[str, str]] = {
    "sdxl": {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
    "sd15": {"tokenizer": "<|endoftext|>"},
}
"""By architecture: each tokenizer's token that fills a text up."""
TEXT_LENGTH = 77


def configs_for(info: CheckpointInfo, folders: Sequence[Path] = ()) -> Path:
    """The folder whose configs describe a base model file: the published one, else one of `folders`.

    Args:
        info: of the file.
        folders: complete base models that are here, for networks of other sizes than the published.

    Raises:
        RequestError: no network of these sizes is known.
    """
    architecture = info.architecture or "sdxl"
    for folder in (PUBLISHED / architecture, *folders):
        config = read_config(folder / "unet")
        if config is not None and _describes(config, info):
            return folder
    raise RequestError(
        f"{info.path.name!r} is a cut-down or enlarged {ARCHITECTURES[architecture]} (such as SSD-1B), for which "
        "InstantID was not made; choose a full one."
    )


def _describes(config: NetworkConfig, info: CheckpointInfo) -> bool:
    wide = config.block_out_channels or (0,)
    return (
        config.architecture == info.architecture
        and (config.width, config.depth) == (info.cross_attention_dim, info.depth)
        and (wide[0], wide[-1]) == info.ends
    )


def tokenizers_for(architecture: Architecture, configs: Path) -> dict[str, Any]:
    """The tokenizers of a pipeline by their names: those beside `configs`, else CLIP's own."""
    from transformers import AutoTokenizer

    return {
        name: AutoTokenizer.from_pretrained(configs / name, local_files_only=True)
        if (configs / name).is_dir()
        else clip_tokenizer(filler)
        for name, filler in TOKENIZERS[architecture].items()
    }


def clip_tokenizer(filler: str = "<|endoftext|>") -> Any:
    """CLIP's tokenizer of 49,408 tokens; `filler` is the token that fills a text up to 77."""
    from transformers import CLIPTokenizer

    merges = _merges()
    letters = list(_letters())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), pad_token=filler, model_max_length=TEXT_LENGTH)


@lru_cache(maxsize=1)
def _merges() -> tuple[tuple[str, str], ...]:
    text = (PUBLISHED / "clip" / "merges.txt").read_text(encoding="utf-8")
    return tuple((first, second) for first, second in (line.split() for line in text.splitlines()))


def _letters() -> list[str]:
    """The signs that stand for the 256 bytes, in the vocabulary's order: printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(others)]


def controlnet_config(shapes: Shapes, architecture: Architecture) -> dict[str, Any]:
    """The config of a ControlNet in one file, read off its shapes; in diffusers' layout or the original one.

    Args:
        shapes: of all tensors.
        architecture: for which it was made.
    """
    plain = {key.removeprefix("control_model."): shape for key, shape in shapes.items()}
    original = any(key.startswith("input_blocks.") for key in plain)
    wide, attention = _original_blocks(plain) if original else _blocks(plain)
    middle = "middle_block.1" if original else "mid_block.attentions.0"
    depth = _depth(plain, middle)
    layers = [*attention[:-1], depth or attention[-1]]
    entrance = plain["input_blocks.0.0.weight" if original else "conv_in.weight"]
    labels = plain.get("label_emb.0.0.weight" if original else "add_embedding.linear_1.weight")
    hint = "input_hint_block." if original else "controlnet_cond_embedding."
    keys = [key for key in plain if key.endswith("attn2.to_k.weight")]
    projection = next((len(shape) for key, shape in plain.items() if key.endswith("proj_in.weight")), 4)
    heads: Any = tuple(max(1, channels // 64) for channels in wide) if architecture == "sdxl" else 8
    return {
        "in_channels": entrance[1],
        "conditioning_channels": plain[f"{hint}0.weight" if original else f"{hint}conv_in.weight"][1],
        "block_out_channels": wide,
        "layers_per_block": 2,
        "down_block_types": tuple("CrossAttnDownBlock2D" if count else "DownBlock2D" for count in attention),
        "mid_block_type": "UNetMidBlock2DCrossAttn" if depth else "UNetMidBlock2D",
        "transformer_layers_per_block": tuple(max(1, count) for count in layers),
        "cross_attention_dim": plain[keys[0]][1] if keys else (2048 if architecture == "sdxl" else 768),
        "attention_head_dim": heads,
        "use_linear_projection": projection == 2,
        "conditioning_embedding_out_channels": _hint_channels(plain, hint, original),
    } | (
        {}
        if labels is None
        else {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": labels[1],
        }
    )


def controlnet_weights(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A ControlNet's tensors under diffusers' names; `config` is `controlnet_config`'s answer."""
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    plain = {key.removeprefix("control_model."): tensor for key, tensor in state.items()}
    # diffusers' own conversion knows SD1.5 alone: these are SDXL's size and crop conditions.
    sizes = {
        f"add_embedding.linear_{number}.{what}": plain[f"label_emb.0.{place}.{what}"]
        for number, place in ((1, 0), (2, 2))
        for what in ("weight", "bias")
        if f"label_emb.0.{place}.{what}" in plain
    }
    return {**convert_controlnet_checkpoint(plain, config), **sizes}


def _blocks(shapes: Shapes) -> tuple[tuple[int, ...], list[int]]:
    """Channels and transformer blocks of each block on the way down."""
    count = 1 + max(int(found[1]) for key in shapes if (found := re.match(r"down_blocks\.(\d+)\.", key)))
    wide = tuple(shapes[f"down_blocks.{block}.resnets.0.conv1.weight"][0] for block in range(count))
    return wide, [_depth(shapes, f"down_blocks.{block}.attentions.0") for block in range(count)]


def _original_blocks(shapes: Shapes) -> tuple[tuple[int, ...], list[int]]:
    """The same in the original layout: two layers and a step down to half the size in each block."""
    last = max(int(found[1]) for key in shapes if (found := re.match(r"input_blocks\.(\d+)\.", key)))
    firsts = range(1, last + 1, 3)
    wide = tuple(shapes[f"input_blocks.{number}.0.in_layers.2.weight"][0] for number in firsts)
    return wide, [_depth(shapes, f"input_blocks.{number}.1") for number in firsts]


def _depth(shapes: Shapes, place: str) -> int:
    inside = re.compile(re.escape(f"{place}.transformer_blocks.") + r"(\d+)\.")
    return len({found[1] for key in shapes if (found := inside.match(key))})


def _hint_channels(shapes: Shapes, hint: str, original: bool) -> tuple[int, ...]:
    """Channels of the map's encoder: every second of its convolutions widens."""
    if original:
        numbers = sorted(int(found[1]) for key in shapes if (found := re.fullmatch(hint + r"(\d+)\.weight", key)))
        wide = [shapes[f"{hint}{number}.weight"][0] for number in numbers]
        return tuple(wide[:-1:2])
    first = shapes[f"{hint}conv_in.weight"][0]
    blocks = 1 + max(int(found[1]) for key in shapes if (found := re.match(hint + r"blocks\.(\d+)\.", key)))
    return (first, *(shapes[f"{hint}blocks.{number}.weight"][0] for number in range(1, blocks, 2)))
