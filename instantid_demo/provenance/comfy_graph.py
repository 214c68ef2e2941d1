"""What a ComfyUI graph samples with: found by following the links back from its sampler."""

from collections.abc import Mapping
from typing import Any

_MOST_STEPS = 60
"""Links that are followed for one value."""
_WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "RescaleCFG": ("multiplier",),
}
"""Values of the nodes in the order in which a saved workflow lists them; "" has no meaning here."""
_FILES = {"ckpt_name": "model", "unet_name": "model", "lora_name": "LoRA", "control_net_name": "ControlNet"}
_SAMPLING = ("seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
_SOURCES = ("noise", "guider", "sampler", "sigmas")
"""Inputs of SamplerCustomAdvanced whose nodes hold what KSampler holds itself."""
_VALUES = ("value", "int", "float", "string", "text")
_JOINED = {("conditioning_to", "conditioning_from"): " BREAK ", ("string_a", "string_b"): " "}
_TEXTS = ("text", "text_g", "text_l", "prompt", "string", "value", "positive", "negative")

Node = Mapping[str, Any]
"""`class_type`, and `inputs`: values, or links as `[node, slot]`."""


def settings_of(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Prompts, seed, steps and so on of a graph in either of ComfyUI's two forms; {} where it has no sampler.

    A graph with several samplers gives the first one's: the later ones refine its picture.
    """
    nodes = _of_workflow(graph) if isinstance(graph.get("nodes"), list) else _of_prompt(graph)
    sampler = next((node for node in nodes.values() if "positive" in node["inputs"] and _samples(node)), None)
    if sampler is None:
        sampler = next((node for node in nodes.values() if {"guider", "sigmas"} <= node["inputs"].keys()), None)
    if sampler is None:
        return {}
    parts = [sampler, *(part for name in _SOURCES if (part := _linked(nodes, sampler["inputs"].get(name))))]
    found: dict[str, Any] = {}
    for name in _SAMPLING:
        for part in parts:
            value = _value(nodes, part["inputs"].get(name))
            if value is not None:
                found.setdefault(name, value)
    for side, names in (("positive", ("positive", "conditioning")), ("negative", ("negative",))):
        for start in (part["inputs"][name] for part in parts for name in names if name in part["inputs"]):
            if words := _words(nodes, start, side, set()):
                found.setdefault(side, words)
    for node in nodes.values():
        given, kind = node["inputs"], str(node["class_type"])
        if "Latent" in kind and {"width", "height"} <= given.keys():
            for name in ("width", "height"):
                found.setdefault(name, _value(nodes, given[name]))
        if kind == "RescaleCFG":
            found.setdefault("guidance_rescale", _value(nodes, given.get("multiplier")))
        for name, said in _FILES.items():
            if isinstance(given.get(name), str):
                found.setdefault(said, []).append(given[name])
    return {name: value for name, value in found.items() if value is not None}


def _samples(node: Node) -> bool:
    return "Sampler" in str(node["class_type"]) and {"steps", "seed", "noise_seed"} & node["inputs"].keys() != set()


def _of_prompt(graph: Mapping[str, Any]) -> dict[str, Node]:
    return {
        str(number): node
        for number, node in graph.items()
        if isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
    }


def _of_workflow(graph: Mapping[str, Any]) -> dict[str, Node]:
    links: dict[Any, list[Any]] = {}
    for link in graph["links"] if isinstance(graph.get("links"), list) else []:
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[0], int):
            links[link[0]] = [str(link[1]), link[2]]
    nodes: dict[str, Node] = {}
    for node in graph["nodes"]:
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            continue
        inputs: dict[str, Any] = {}
        widgets = node.get("widgets_values")
        values = widgets if isinstance(widgets, list) else []
        inputs |= {name: value for name, value in zip(_WIDGETS.get(node["type"], ()), values, strict=False) if name}
        for entry in node["inputs"] if isinstance(node.get("inputs"), list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("link"), int) and entry["link"] in links:
                inputs[str(entry.get("name"))] = links[entry["link"]]
        nodes[str(node.get("id"))] = {"class_type": node["type"], "inputs": inputs}
    return nodes


def _linked(nodes: Mapping[str, Node], value: Any) -> Node | None:
    return nodes.get(str(value[0])) if isinstance(value, list) and len(value) == 2 else None


def _value(nodes: Mapping[str, Node], value: Any) -> Any:
    """A number or text, perhaps out of a node that holds nothing else."""
    for _ in range(_MOST_STEPS):
        source = _linked(nodes, value)
        if source is None:
            return value if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
        given = source["inputs"]
        value = next((given[name] for name in (*_SAMPLING, *_VALUES) if name in given), None)
    return None


def _words(nodes: Mapping[str, Node], value: Any, side: str, seen: set[str]) -> str:
    """The text that a conditioning was made of; what was encoded apart is joined by `BREAK`."""
    if isinstance(value, str):
        return value.strip()
    source = _linked(nodes, value)
    if source is None or str(value[0]) in seen or len(seen) > _MOST_STEPS:
        return ""
    seen.add(str(value[0]))
    given = source["inputs"]
    for names, between in _JOINED.items():
        if set(names) <= given.keys():
            parts = (_words(nodes, given[name], side, seen) for name in names)
            return between.join(part for part in parts if part)
    # A node that passes both conditionings on has both names; one that makes text of text has others.
    starts = [given.get(side)] if {"positive", "negative"} & given.keys() else [given[n] for n in _TEXTS if n in given]
    starts += [part for name, part in given.items() if isinstance(part, list) and name not in ("positive", "negative")]
    return next((words for start in starts if (words := _words(nodes, start, side, seen))), "")
