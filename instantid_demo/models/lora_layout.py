"""Which layers of a pipeline the keys of a LoRA file mean, in whatever layout its trainer wrote it.

Every key is accounted for: it belongs to a layer that is here, or it is a stranger that the user hears of.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

PARTS = ("unet", "text_encoder", "text_encoder_2")
_LAYERS = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)
_NOT_THE_BASE = re.compile(r"\.lora_|^encoder_hid_proj\.|\.processor\.")
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("lycoris_te1_", "text_encoder"),
    ("lycoris_te2_", "text_encoder_2"),
    ("lycoris_te_", "text_encoder"),
    ("lycoris_", "unet"),
    ("unet.", "unet"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("clip_l.transformer.", "text_encoder"),
    ("clip_g.transformer.", "text_encoder_2"),
    ("", "unet"),
    ("", "text_encoder"),
)
"""How layouts name the network, the more exact ones first."""
_ROLE = re.compile(
    r"(?P<layer>.+)\.(?:"
    r"lora[._](?P<factor>A|B|down|up|mid)(?:\.(?!weight$|bias$)\w+)?(?:\.(?P<kind>weight|bias))?"
    r"|(?P<magnitude>dora_scale|lora_magnitude_vector(?:\.\w+)*)"
    r"|(?P<other>alpha|diff|diff_b|w_norm|b_norm|(?:hada|lokr)_[wt]\d(?:_[ab])?)(?:\.(?!weight$)\w+)?(?:\.weight)?"
    r")"
)
_FACTORS = {"A": "down", "B": "up"}
_OTHERS = {"w_norm": "diff", "b_norm": "diff_b"}
_OLD_ATTENTION = re.compile(r"\.(to_[qkv]|to_out)_lora\.")
_CLIP = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "out_proj"}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_SINGLE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


@dataclass(frozen=True)
class Layer:
    """The keys of a file that are about one layer."""

    part: str
    """One of `PARTS`."""
    path: str
    """Of the module in that network."""
    keys: Mapping[str, str]
    """By role: `down`, `up`, `mid`, `alpha`, `magnitude`, `hada_w1_a`, `lokr_w2`, `diff` and so on."""


def assigned(keys: Iterable[str], pipe: Any) -> tuple[list[Layer], list[str]]:
    """The layers that the keys of a file mean, and the names of those that this pipeline does not have."""
    names = {part: _names(network) for part, network in networks(pipe).items()}
    found: dict[tuple[str, str], dict[str, str]] = {}
    strangers: dict[str, None] = {}
    for key in keys:
        stem, role = role_of(key)
        place = _place(stem, names) if role else None
        roles = None if place is None else found.setdefault(place, {})
        if roles is None or role in roles:
            strangers[stem] = None
        else:
            roles[role] = key
    return [Layer(part, path, roles) for (part, path), roles in found.items()], list(strangers)


def networks(pipe: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline that a LoRA may change, by name."""
    return {part: getattr(pipe, part) for part in PARTS if getattr(pipe, part, None) is not None}


def layers_of(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer that has a weight, by its path, whether or not peft has put one of its own around it.

    Those of the image adapter, which lie in the UNet as well, are not the base model's.
    """
    for name, module in network.named_modules():
        if isinstance(module, _LAYERS) and not _NOT_THE_BASE.search(name):
            yield name.removesuffix(".base_layer"), module


def role_of(key: str) -> tuple[str, str]:
    """What a key calls its layer, and the tensor's role there; an empty role where that is unknown."""
    plain = key.replace(".processor.", ".").replace(".lora_linear_layer.", ".lora.")
    plain = _OLD_ATTENTION.sub(lambda old: f".{old[1].replace('to_out', 'to_out.0')}.lora.", plain)
    match = _ROLE.fullmatch(plain)
    if match is None:
        return plain.removesuffix(".weight").removesuffix(".bias"), ""
    if match["magnitude"]:
        return match["layer"], "magnitude"
    if match["other"]:
        return match["layer"], _OTHERS.get(match["other"], match["other"])
    factor = _FACTORS.get(match["factor"], match["factor"])
    return match["layer"], f"{factor}_bias" if match["kind"] == "bias" else factor


def ldm_name(path: str, per_block: int, attends: bool) -> str | None:
    """What the original code (sgm, ldm) calls a layer of the UNet; None where it is called the same.

    Args:
        path: in diffusers' UNet.
        per_block: the UNet's `layers_per_block`.
        attends: whether the block in which the layer lies has attention.
    """
    if path in _SINGLE:
        return _SINGLE[path]
    match = re.fullmatch(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.+)", path)
    if match:
        where, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        number = block * (per_block + 1) + index
        inner = "0" if kind == "resnets" else "1"
        if kind == "resnets":
            rest = _inner(rest)
        if where == "up_blocks":
            if kind == "upsamplers":
                number, inner = number + per_block, "2" if attends else "1"
            return f"output_blocks.{number}.{inner}.{rest}"
        if kind == "downsamplers":
            return f"input_blocks.{number + per_block + 1}.0.{rest.replace('conv', 'op', 1)}"
        return f"input_blocks.{number + 1}.{inner}.{rest}"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", path)
    if match:
        number = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{number}.{_inner(match[3]) if match[1] == 'resnets' else match[3]}"
    return None


def _inner(rest: str) -> str:
    head, dot, tail = rest.partition(".")
    return _RESNET.get(head, head) + dot + tail


def _names(network: nn.Module) -> dict[str, str]:
    """Everything by which a file may call the layers of a network, and their paths in it."""
    paths = [path for path, _ in layers_of(network)]
    known: dict[str, str] = {}
    attending = {path.partition(".attentions.")[0] for path in paths if ".attentions." in path}
    for path in paths:
        called = {path}
        if hasattr(network, "config") and hasattr(network.config, "layers_per_block"):
            block = ".".join(path.split(".")[:2])
            ldm = ldm_name(path, network.config.layers_per_block, block in attending)
            called |= {ldm} if ldm else set()
        else:
            # transformers has flattened some of its text models; files keep to the older names.
            bare = path.removeprefix("text_model.")
            called |= {bare, f"text_model.{bare}"}
            for old, new in _CLIP.items():
                called |= {name.replace(f".{new}", f".{old}") for name in list(called) if name.endswith(new)}
        for name in called:
            known[name] = known[name.replace(".", "_")] = path
    return known


def _place(stem: str, names: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
    while stem.startswith("base_model.model."):
        stem = stem.removeprefix("base_model.model.")
    for prefix, part in _PREFIXES:
        if part in names and stem.startswith(prefix):
            path = names[part].get(stem.removeprefix(prefix))
            if path is not None:
                return part, path
    return None
