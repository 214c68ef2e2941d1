"""Settings that other programs leave in their pictures, as fields of a request.

AUTOMATIC1111 and its kin (Forge, SD.Next, Civitai), Fooocus, InvokeAI, ComfyUI, NovelAI and SwarmUI. What means
something only there, such as a sampler that is not here or the name of a file, is told apart and named.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from instantid_demo.names import public_name
from instantid_demo.provenance.comfy_graph import settings_of
from instantid_demo.request import MAX_SIDE, Scheduler

_PLAIN = ("parameters", "UserComment", "comment", "Comment", "ImageDescription", "XPComment")
"""Where tools put their text, the usual place first."""
_MOST_PAIRS = 400
_MOST_LINE = 2**16
_MOST_LINES = 400
_MOST_VALUE = 4096
_MOST_LEAVES = 8
_KEY = re.compile(r"\s*(\w[\w \-/+.()]{0,60}?)\s*:\s*")
_FIELDS = {
    **dict.fromkeys(("prompt", "positiveprompt", "positive"), "prompt"),
    **dict.fromkeys(("negativeprompt", "negative", "uc"), "negative_prompt"),
    **dict.fromkeys(("steps", "numinferencesteps"), "steps"),
    **dict.fromkeys(("cfgscale", "cfg", "guidancescale"), "guidance"),
    **dict.fromkeys(("seed", "noiseseed"), "seed"),
    **dict.fromkeys(("denoisingstrength", "strength", "denoise"), "strength"),
    **dict.fromkeys(("cfgrescale", "cfgrescalemultiplier", "guidancerescale"), "guidance_rescale"),
    "clipskip": "clip_skip",
    **dict.fromkeys(("width", "height"), ""),
}
"""Names that the tools have for our fields, without blanks and in lower case; sides are taken together."""
_SIZES = ("size", "resolution", "width", "height")
_SAMPLERS = ("sampler", "samplername", "scheduletype", "noiseschedule", "scheduler")
_SILENT = re.compile(
    r".*hash(es)?|.*version|.*(metadata|scheme|software|source|app|user|createdby|date|time|parser|rng|backend|pipeline"
    r"|operations|generationmode|request_?type|signed\w*|fullprompt|fullnegativeprompt|nsamples|type|aspectratio)"
)
"""Said by the tools, but nothing that a user would miss."""
_SCHEDULERS: dict[str, Scheduler] = {
    "eulera": "euler_ancestral",
    "eulerancestral": "euler_ancestral",
    "dpmpp2mk": "dpmpp_2m_karras",
    "uni_pc": "unipc",
    "unipcbh2": "unipc",
    **{name.replace("_", ""): name for name in get_args(Scheduler) if name != "auto"},
}
_USUAL = ("", "automatic", "normal", "simple", "uniform", "sgmuniform", "ddimuniform", "native", "default", "none")
"""Spacings of the steps that are how a sampler works here anyhow."""


@dataclass
class Found:
    """What another tool's text restores."""

    fields: dict[str, Any] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)
    """What has no meaning here, by the tool's own names."""


def read(texts: Mapping[str, str]) -> Found | None:
    """The settings in a picture's texts; None where no tool's are known.

    Args:
        texts: By the name of the PNG chunk or EXIF tag that they stood in.
    """
    plain = [texts[name] for name in _PLAIN if name in texts]
    for text in plain:
        if found := infotext(text):
            return found
    objects = {name: value for name, text in texts.items() if (value := _object(text))}
    if invoke := objects.get("invokeai_metadata") or objects.get("sd-metadata"):
        return _invokeai(invoke)
    for name in _PLAIN:
        value = objects.get(name, {})
        if not value:
            continue
        if "uc" in value or texts.get("Software", "").startswith("NovelAI") or _object(value.get("Comment")):
            return _novelai(_object(value.get("Comment")) or value, texts.get("Description", ""))
        if isinstance(inner := value.get("sui_image_params"), dict):
            return _taken(inner)
        if not _is_graph(value):
            return _taken({key.replace("_", " "): part for key, part in value.items()})
    # The form that ComfyUI ran is clearer than the one that it drew.
    for graph in sorted((value for value in objects.values() if _is_graph(value)), key=lambda graph: "nodes" in graph):
        if sampled := settings_of(graph):
            return _taken(sampled)
    return None


def infotext(text: str) -> Found | None:
    """AUTOMATIC1111's form: prompt, `Negative prompt: …`, and last a line of `Steps: …, Sampler: …, Seed: …`."""
    lines = [line.rstrip("\r") for line in text.strip().split("\n")]
    for number in range(len(lines) - 1, max(-1, len(lines) - 1 - _MOST_LINES), -1):
        if "steps: " not in lines[number].lower():
            continue
        values = dict(_pairs(lines[number]))
        names = {_plain(name) for name in values}
        if "steps" in names and len(names & {*_FIELDS, *_SIZES, *_SAMPLERS, "model", "modelhash", "version"}) >= 3:
            break
    else:
        return None
    above = lines[:number]
    starts = [index for index, line in enumerate(above) if line.startswith("Negative prompt:")]
    cut = starts[0] if starts else number
    words = {"prompt": "\n".join(above[:cut]).strip()}
    words["negative_prompt"] = "\n".join(above[cut:]).removeprefix("Negative prompt:").strip()
    found = _taken({name: value for name, value in values.items() if _plain(name) not in ("prompt", "negativeprompt")})
    found.fields = words | found.fields
    return found


def _pairs(line: str) -> Iterator[tuple[str, Any]]:
    """`key: value` pairs of a line, the first of each key; a value in quotes or brackets is one, commas included."""
    seen, at, line = set[str](), 0, line[:_MOST_LINE]
    decoder = json.JSONDecoder()
    for _ in range(_MOST_PAIRS):
        if at >= len(line):
            return
        match = _KEY.match(line, at)
        if match is None:
            comma = line.find(",", at)
            at = len(line) if comma < 0 else comma + 1
            continue
        key, at = match[1], match.end()
        value: Any = None
        if line[at : at + 1] in ('"', "[", "{"):
            try:
                value, at = decoder.raw_decode(line, at)
            except (ValueError, RecursionError):
                value = None
        if value is None:
            end = _end(line, at)
            value, at = line[at:end].strip(), end
        comma = line.find(",", at)
        at = len(line) if comma < 0 else comma + 1
        if key.lower() not in seen:
            seen.add(key.lower())
            yield key, value


def _end(line: str, at: int) -> int:
    """Where a value without quotes ends: at the first comma outside its brackets, or at the line's end."""
    deep, comma = 0, line.find(",", at)
    if comma < 0:
        return len(line)
    for place in range(at, min(len(line), at + _MOST_VALUE)):
        letter = line[place]
        if letter in "[{":
            deep += 1
        elif letter in "]}":
            deep -= 1
        elif letter == "," and deep <= 0:
            return place
    return len(line) if deep <= 0 and len(line) <= at + _MOST_VALUE else comma


def _taken(values: dict[str, Any]) -> Found:
    """Our fields of a tool's values by its own names, and the rest."""
    found = Found()
    known = {_plain(name): value for name, value in reversed(values.items())}
    # The strength of a picture that was enlarged belongs to the enlarging; all of it is no start picture's.
    no_strength = any(name.startswith("hires") for name in known) or known.get("denoise") in (1, "1", "1.0")
    for name, value in values.items():
        plain = _plain(name)
        ours = _FIELDS.get(plain, "")
        if ours and _simple(value) and not (ours == "strength" and no_strength):
            found.fields.setdefault(ours, value)
        elif (
            value not in (None, False, "", "None", [], {})
            and plain not in (*_SIZES, *_SAMPLERS, "denoise")
            and not _SILENT.fullmatch(plain)
        ):
            found.rest[name] = value
    _take_size(known, found)
    _take_sampler(known, found)
    return found


def _take_size(known: Mapping[str, Any], found: Found) -> None:
    numbers = [
        int(number)
        for name in _SIZES
        if name in known and _simple(known[name])
        for number in re.findall(r"\d{1,6}", str(known[name])[:40])[:2]
    ]
    if len(numbers) < 2:
        return
    width, height = numbers[:2]
    if 64 <= width <= MAX_SIDE and 64 <= height <= MAX_SIDE:
        found.fields |= {"width": width, "height": height}
    else:
        found.rest["Size"] = f"{width}x{height}"


def _take_sampler(known: Mapping[str, Any], found: Found) -> None:
    said = [known[name] for name in ("sampler", "samplername", "scheduler") if isinstance(known.get(name), str)]
    spacings = [
        known[name] for name in ("scheduletype", "noiseschedule", "scheduler") if isinstance(known.get(name), str)
    ]
    if not said:
        return
    sampler = said[0]
    spacing = _plain(spacings[0]) if spacings and spacings[0] is not sampler else ""
    name = _plain(sampler.lower().replace("++", "pp").removeprefix("k_").removeprefix("sample_").removesuffix("_gpu"))
    ours = _SCHEDULERS.get(name)
    # In AUTOMATIC1111 "Automatic" is what a sampler was made for, Karras' spacing with this one.
    if ours == "dpmpp_2m" and spacing in ("karras", "automatic"):
        ours, spacing = "dpmpp_2m_karras", ""
    if ours is None:
        found.rest["Sampler"] = sampler
    else:
        found.fields["scheduler"] = ours
    if spacing not in _USUAL and not (spacing == "karras" and ours == "dpmpp_2m_karras"):
        found.rest["Schedule type"] = spacings[0]


def _invokeai(values: dict[str, Any]) -> Found:
    if isinstance(image := values.get("image"), dict):  # before version 3
        values = image
        if isinstance(parts := values.get("prompt"), list):
            parts = ", ".join(str(part["prompt"]) for part in parts if isinstance(part, dict) and "prompt" in part)
            values = {**values, "prompt": parts}
        words = str(values.get("prompt", ""))
        negative = re.findall(r"\[([^\[\]]*)\]", words)
        values = {
            **values,
            "prompt": re.sub(r"\[[^\[\]]*\]", "", words).strip(),
            "negative_prompt": ", ".join(negative),
        }
    found = _taken(values)
    for name in ("prompt", "negative_prompt"):
        if isinstance(found.fields.get(name), str):
            found.fields[name] = _from_compel(found.fields[name])
    return found


def _from_compel(words: str) -> str:
    """InvokeAI's weights, `word++` and `(some words)1.2`, as AUTOMATIC1111 writes them."""
    words = re.sub(r"\(([^()]*)\)(\d+(?:\.\d+)?)", r"(\1:\2)", words)

    def weigh(match: re.Match[str]) -> str:
        factor = 1.1 ** match[2].count("+") * 0.9 ** match[2].count("-")
        return f"({match[1].strip('()')}:{factor:.3g})"

    words = re.sub(r"(\([^()]*\))(\++|-+)(?=[\s,.]|$)", weigh, words)
    return re.sub(r"(\w+)(\++)(?=[\s,.]|$)", weigh, words)


def _novelai(values: dict[str, Any], description: str) -> Found:
    values = {"prompt": description, **values}
    values["cfg scale"] = values.pop("scale", None)
    found = _taken({name: value for name, value in values.items() if name in _NOVELAI and value is not None})
    found.rest |= {name: values[name] for name in ("reference_image", "director_reference_images") if values.get(name)}
    for name in ("prompt", "negative_prompt"):
        if isinstance(found.fields.get(name), str):
            found.fields[name] = _from_novelai(found.fields[name])
    return found


_NOVELAI = frozenset(
    {
        "prompt",
        "uc",
        "steps",
        "cfg scale",
        "cfg_rescale",
        "seed",
        "width",
        "height",
        "sampler",
        "noise_schedule",
        "strength",
    }
)
"""Of some fifty values that NovelAI writes, most of them switches of its own."""


def _from_novelai(words: str) -> str:
    """NovelAI's weights, `{x}`, `[x]` and `1.2::x::`, as AUTOMATIC1111 writes them; its round brackets are plain."""
    words = words.replace("(", r"\(").replace(")", r"\)")
    words = re.sub(r"(\d+(?:\.\d+)?)::(.*?)::", r"(\2:\1)", words, flags=re.S)
    for opening, closing, weight in (("{", "}", "1.05"), ("[", "]", "0.952")):
        if words.count(opening) == words.count(closing):
            words = words.replace(opening, "(").replace(closing, f":{weight})")
    return words


def named(rest: Mapping[str, Any]) -> list[str]:
    """What has no meaning here, in words: a name with its value where that is short, nobody's path in it."""
    said = []
    for name, value in rest.items():
        words = " ".join([str(name), *(public_name(part.strip()) for part in _leaves(value))][:_MOST_LEAVES])
        words = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
        said.append(words if len(words) <= 60 else words[:59] + "…")
    return said


def _leaves(value: Any, deep: int = 3) -> Iterator[str]:
    """The texts and numbers in a value, but for checksums; of something that has a name and more, name and weight."""
    if isinstance(value, dict) and deep:
        for name in ("model", "name", "model_name", "modelName", "weight"):
            yield from _leaves(value.get(name), deep - 1)
    elif isinstance(value, list) and deep:
        for part in value[:_MOST_LEAVES]:
            yield from _leaves(part, deep - 1)
    elif _simple(value) and not re.fullmatch(r"(?=.*\d)(?=.*[a-f])[0-9a-f]{8,}", text := str(value)):
        yield text


def _plain(name: object) -> str:
    return re.sub(r"[\s_\-]+", "", str(name)[:80].lower())


def _simple(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _object(text: Any) -> dict[str, Any]:
    """A JSON object in a text, perhaps behind a word and a colon as some tools write it; {} where it is none."""
    if not isinstance(text, str):
        return {}
    start = text.find("{", 0, 40)
    if start < 0 or not re.fullmatch(r"\s*(\w+:\s*)?", text[:start]):
        return {}
    try:
        value = json.loads(text[start:])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_graph(value: Mapping[str, Any]) -> bool:
    """Whether it is ComfyUI's: an object of nodes, or a list of them under `nodes`."""
    if isinstance(value.get("nodes"), list):
        return True
    return any(isinstance(node, dict) and "class_type" in node for node in value.values())
