"""What Quality, Fast and Draft mean for each kind of model: steps, guidance, scheduler, few-step LoRA, size.

Pocket's own numbers stand in its folder (`pocket.json`), where the training that measured them writes them:

    {"size": 128, "identity_unit": 1.0, "adapter_unit": 1.0, "turns": {"yaw": 20, "pitch": 15, "roll": 20},
     "presets": {"quality": {"steps": 20, "guidance": 3.0, "scheduler": "euler"}, "fast": {…}, "draft": {…}}}

A preset may name a LoRA file of that folder (`"lora": "few-step.safetensors"`).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from instantid_demo.method.checkpoints import FewStep
from instantid_demo.request import FacePart, Quality, RequestError, Scheduler

Family = Literal["pocket", "sdxl", "sd15"]


@dataclass(frozen=True)
class Recipe:
    """How a quality preset samples."""

    steps: int
    guidance: float
    scheduler: Scheduler
    options: Mapping[str, Any] = field(default_factory=dict)
    """More settings of the scheduler."""
    lora: str | None = None
    """Few-step LoRA: a name in the catalogue of models, or a file of the model's folder."""


@dataclass(frozen=True)
class Defaults:
    """What a model does where the request leaves it open."""

    width: int
    height: int
    recipes: Mapping[Quality, Recipe]
    without_lora: Mapping[Quality, Recipe] = field(default_factory=dict)
    """What serves where the few-step LoRA is not downloaded."""
    identity_unit: float = 1.0
    """IdentityNet's strength in the network for a requested 1.0."""
    adapter_unit: float = 1.0
    """The adapter's strength in the network for a requested 1.0."""
    turns: Mapping[str, float] = field(default_factory=dict)
    """Degrees of yaw, pitch and roll up to which `evaluate --full` found heads good; empty: no limit known."""
    words: frozenset[str] = frozenset()
    """All words that the model learned (`words.json` of its folder); empty: any."""
    appearance: float | None = None
    """How much of the photo's thumbnail the model takes where the request leaves it open; None: it takes none."""
    frees: Mapping[FacePart, frozenset[str]] = field(default_factory=dict)
    """Parts of the face -> phrases that speak of them: there the words decide, not the thumbnail."""


# 896×1152 instead of 1024×1024: SDXL has learned stock photo agencies' watermarks at that size. Guidance 5 is the
# original's; above it InstantID burns. Few-step LoRAs were distilled with guidance, so they run without it.
_LIGHTNING = {"timestep_spacing": "trailing"}
SDXL = Defaults(
    896,
    1152,
    {
        "quality": Recipe(30, 5.0, "euler"),
        "fast": Recipe(4, 1.0, "euler", _LIGHTNING, lora="lightning"),
        "draft": Recipe(4, 1.0, "lcm", lora="lcm"),
    },
    {"fast": Recipe(15, 4.0, "dpmpp_2m_karras"), "draft": Recipe(8, 3.0, "dpmpp_2m_karras")},
)
SD15 = Defaults(
    512,
    640,
    {
        "quality": Recipe(30, 5.0, "euler"),
        "fast": Recipe(6, 1.0, "lcm", lora="lcm-sd15"),
        "draft": Recipe(4, 1.0, "lcm", lora="lcm-sd15"),
    },
    {"fast": Recipe(15, 4.0, "dpmpp_2m_karras"), "draft": Recipe(8, 3.0, "dpmpp_2m_karras")},
)
POCKET = Defaults(
    128,
    128,
    {
        "quality": Recipe(20, 3.0, "euler"),
        "fast": Recipe(10, 2.5, "euler"),
        "draft": Recipe(5, 2.0, "euler"),
    },
)


FEW_STEP: Mapping[str, Recipe] = {
    "lightning": Recipe(4, 1.0, "euler", _LIGHTNING),
    "turbo": Recipe(4, 1.0, "euler_ancestral", _LIGHTNING),
    "hyper": Recipe(8, 1.0, "ddim", _LIGHTNING),
    # 100 original steps: the four of DMD2 are then 999, 749, 499 and 249, as it learned them.
    "dmd": Recipe(4, 1.0, "lcm", {"original_inference_steps": 100}),
    "lcm": Recipe(4, 1.0, "lcm"),
    "tcd": Recipe(4, 1.0, "tcd"),
}
"""How the kinds of few-step distillation sample, as their makers advise, whether LoRA or merged into a base."""
_FEW_STEP_NAMES = {
    # Words of styles as well ("lightning bolt", "hyper realistic"): more than the word must be there.
    "lightning": r"(?<!.)lightning$|(sd)?xl[-_. ]*lightning|lightning.*\d+[-_. ]*steps?|\d+[-_. ]*steps?.*lightning",
    "turbo": r"(?<!.)turbo$|(sd)?xl[-_. ]*turbo|turbo.*\d+[-_. ]*steps?",
    "hyper": r"(?<!.)hyper$|hyper[-_. ]*sd|hyper.*\d+[-_. ]*steps?|\d+[-_. ]*steps?.*hyper",
    "dmd": r"dmd2?(?![a-z])",
    "lcm": r"lcm(?![a-z])",
    "tcd": r"tcd(?![a-z])",
}


def few_step(name: str) -> Recipe | None:
    """How a few-step LoRA of this name (of a file, without its ending) wants to be sampled; None: it is none.

    The number of steps is taken from the name where it stands there.
    """
    plain = name.strip().lower()
    kind = next(
        (kind for kind, pattern in _FEW_STEP_NAMES.items() if re.match(f"(?:.*[^a-z])?(?:{pattern})", plain)), ""
    )
    if not kind:
        return None
    recipe = FEW_STEP[kind]
    counted = re.search(r"(?<!\d)(\d{1,2})[-_. ]*steps?(?![a-z])", plain)
    if counted and 1 <= int(counted[1]) <= 32:
        recipe = replace(recipe, steps=int(counted[1]))
    if kind == "hyper" and "cfg" in plain:
        recipe = replace(recipe, guidance=5.0)  # its maker's range begins here, where InstantID does not burn yet
    if kind == "hyper" and recipe.steps == 1:
        recipe = replace(recipe, scheduler="tcd", options={})
    return recipe


@lru_cache(maxsize=8)
def pocket(folder: Path) -> Defaults:
    """The embedded model's defaults from its `pocket.json`; built-in ones where that file is missing.

    Raises:
        RequestError: the file is damaged.
    """
    file = folder / "pocket.json"
    if not file.is_file():
        return POCKET
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        size = int(entry.get("size", POCKET.width))
        recipes = {name: Recipe(**recipe) for name, recipe in entry.get("presets", {}).items()}
        return Defaults(
            size,
            size,
            {**POCKET.recipes, **recipes},
            {name: recipe for name, recipe in POCKET.recipes.items() if name in recipes and recipes[name].lora},
            identity_unit=float(entry.get("identity_unit", 1.0)),
            adapter_unit=float(entry.get("adapter_unit", 1.0)),
            turns={axis: float(entry["turns"][axis]) for axis in entry.get("turns", {})},
            words=_words(folder / "words.json"),
            appearance=None if entry.get("appearance") is None else float(entry["appearance"]),
            frees={part: frozenset(entry["frees"][part]) for part in entry.get("frees", {})},
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise RequestError(f"{file} is damaged: get the program again, or another model.") from error


def _words(file: Path) -> frozenset[str]:
    return frozenset(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else frozenset()


def of(family: Family, folder: Path | None = None) -> Defaults:
    """The defaults of a family; `folder` is where a Pocket-like model keeps its own."""
    if family == "pocket":
        return POCKET if folder is None else pocket(folder)
    return SDXL if family == "sdxl" else SD15


MERGED_STEPS: dict[Quality, int] = {"quality": 8, "fast": 6, "draft": 4}
"""Steps of bases that were merged with something of few steps."""


def merged(defaults: Defaults, few_step: FewStep | None) -> Defaults:
    """The defaults of a base that draws in a few steps by itself; None: unchanged."""
    if few_step is None:
        return defaults
    recipes = {quality: replace(FEW_STEP[few_step], steps=steps) for quality, steps in MERGED_STEPS.items()}
    return replace(defaults, recipes=recipes, without_lora={})
