"""LoRAs through the engine: few-step ones bring their settings, prompts name them, and nothing of them stays."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from instantid_demo import presets, schedulers
from instantid_demo.engine import Engine
from instantid_demo.flags import validated
from instantid_demo.models import addons
from instantid_demo.request import GenerationRequest, RequestError, Result
from instantid_demo.settings import Settings
from tests.engine.test_sdxl import PHOTO, POCKET
from tests.engine.test_sdxl import settings as settings


def written(file: Path, seed: int, metadata: dict[str, str] | None = None) -> Path:
    """A LoRA that fits the small networks."""
    state, draw = {}, torch.Generator().manual_seed(seed)
    for name, weight in load_file(next((POCKET / "unet").glob("*.safetensors"))).items():
        if name.endswith(("attn1.to_q.weight", "attn1.to_v.weight")):
            stem = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            state[f"{stem}.lora_down.weight"] = torch.randn(4, weight.shape[1], generator=draw) / 10
            state[f"{stem}.lora_up.weight"] = torch.randn(weight.shape[0], 4, generator=draw) / 10
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file, metadata)
    if file.parent.name != addons.LORAS:
        (file.parent / ".complete").touch()
    return file


@pytest.fixture
def engine(settings: Settings) -> Engine:
    for seed, name in enumerate(
        (
            "hyper/Hyper-SDXL-8steps-lora.safetensors",
            "lightning/sdxl_lightning_4step_lora.safetensors",
            "lcm/pytorch_lora_weights.safetensors",
            "loras/dmd2_sdxl_4step_lora_fp16.safetensors",
            "loras/ink.safetensors",
        )
    ):
        written(settings.models / name, seed)
    written(settings.models / "loras" / "renamed.safetensors", 9, {"ss_output_name": "sdxl_lightning_2step"})
    return Engine(settings)


def drawn(engine: Engine, **fields: Any) -> Result:
    given = {"model": "sdxl", "face": [str(PHOTO)], "seed": 1, "width": 128, "height": 128} | fields
    return engine.generate(validated(given))


def loras(*names: str, weight: float = 1.0) -> list[dict[str, Any]]:
    return [{"source": name, "weight": weight} for name in names]


@pytest.mark.parametrize(
    ("source", "steps", "guidance", "scheduler"),
    [
        ("hyper", 8, 1.0, "ddim"),
        ("ByteDance/Hyper-SD", 8, 1.0, "ddim"),
        ("lcm", 4, 1.0, "lcm"),
        ("lightning", 4, 1.0, "euler"),
        ("dmd2_sdxl_4step_lora_fp16", 4, 1.0, "lcm"),
        ("renamed", 2, 1.0, "euler"),
    ],
)
def test_a_few_step_lora_brings_its_own_settings(
    engine: Engine, source: str, steps: int, guidance: float, scheduler: str
) -> None:
    result = drawn(engine, lora=loras(source))
    assert (result.request.steps, result.request.guidance, result.request.scheduler) == (steps, guidance, scheduler)
    assert any(f"{steps} steps" in note and scheduler in note for note in result.notes)


def test_what_the_user_set_stays(engine: Engine) -> None:
    asked = {"steps": 2, "guidance": 2.0, "scheduler": "unipc"}
    result = drawn(engine, lora=loras("hyper"), **asked)
    assert {name: getattr(result.request, name) for name in asked} == asked
    style = drawn(engine, lora=loras("ink"), steps=2)
    assert (style.request.guidance, style.request.scheduler) == (5.0, "euler")
    assert not any("few steps" in note for note in style.notes)
    off = drawn(engine, lora=loras("hyper", weight=0.0), steps=2)
    assert off.request.guidance == 5.0


def test_the_presets_own_gives_way(engine: Engine) -> None:
    alone = drawn(engine, lora=loras("hyper"), steps=2)
    fast = drawn(engine, lora=loras("hyper"), steps=2, quality="fast")
    assert fast.pictures[0].tobytes() == alone.pictures[0].tobytes()
    assert any("takes the place" in note for note in fast.notes)
    usual = drawn(engine, quality="fast")
    assert (usual.request.steps, usual.request.scheduler) == (4, "euler")
    assert usual.pictures[0].tobytes() != fast.pictures[0].tobytes()
    with_style = drawn(engine, quality="fast", lora=loras("ink"))
    assert with_style.request.steps == 4
    assert with_style.pictures[0].tobytes() != usual.pictures[0].tobytes()


def test_two_few_step_loras_are_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"Hyper-SDXL.*pytorch_lora_weights.*keep one"):
        drawn(engine, lora=loras("hyper", "lcm"))


def test_a_tag_in_the_prompt_does_what_the_field_does(engine: Engine) -> None:
    plain = drawn(engine, prompt="red hat", steps=2)
    field = drawn(engine, prompt="red hat", steps=2, lora=loras("ink", weight=0.6))
    tag = drawn(engine, prompt="red hat <lora:ink:0.6>", steps=2)
    assert tag.pictures[0].tobytes() == field.pictures[0].tobytes() != plain.pictures[0].tobytes()
    assert tag.request.prompt == "red hat"
    assert tag.request.public()["lora"] == [{"source": "ink", "weight": 0.6}]
    unknown = drawn(engine, prompt="red hat <lora:other:0.6>", steps=2)
    assert unknown.pictures[0].tobytes() == plain.pictures[0].tobytes()
    assert any("other" in note for note in unknown.notes)


def test_strangers_in_a_file_are_named_and_embeddings_and_clip_skip_act(engine: Engine) -> None:
    folder = engine.settings.models
    ink = load_file(folder / "loras" / "ink.safetensors")
    save_file(ink | {"lora_unet_of_another.alpha": torch.tensor(1.0)}, folder / "loras" / "more.safetensors")
    pictures = {}
    for name, fields in {
        "plain": {},
        "again": {},
        "more": {"lora": loras("more")},
        "ink": {"lora": loras("ink")},
        "skipped": {"clip_skip": 3},
        "usual": {"clip_skip": 2},
        "missing": {"negative_prompt": "easynegative"},
    }.items():
        result = drawn(engine, prompt="red hat", steps=1, **fields)
        pictures[name] = result.pictures[0].tobytes()
        assert any("lora_unet_of_another" in note for note in result.notes) == (name == "more")
        assert any("easynegative" in note for note in result.notes) == (name == "missing")
    assert pictures["more"] == pictures["ink"] != pictures["plain"]
    assert pictures["plain"] == pictures["again"] == pictures["usual"] == pictures["missing"]
    assert pictures["skipped"] != pictures["plain"]
    assert drawn(engine, clip_skip=3, steps=1).request.public()["clip_skip"] == 3


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [
        ("hyper", "hyper", 8),
        ("Hyper-SDXL-8steps-lora", "hyper", 8),
        ("Hyper-SDXL-1step-lora", "hyper", 1),
        ("Hyper-SDXL-12steps-CFG-lora", "hyper", 12),
        ("Hyper-SD15-4steps-lora", "hyper", 4),
        ("lightning", "lightning", 4),
        ("sdxl_lightning_4step_lora", "lightning", 4),
        ("sdxl_lightning_8step_lora", "lightning", 8),
        ("SDXL-Lightning", "lightning", 4),
        ("lcm", "lcm", 4),
        ("lcm-lora-sdxl", "lcm", 4),
        ("LCM_LoRA_Weights_SDXL", "lcm", 4),
        ("dmd2_sdxl_4step_lora_fp16", "dmd", 4),
        ("sd_xl_turbo_lora_v1", "turbo", 4),
        ("TCD-SDXL-LoRA", "tcd", 4),
    ],
)
def test_few_step_names(name: str, kind: str, steps: int) -> None:
    recipe = presets.few_step(name)
    assert recipe is not None
    assert recipe.steps == steps
    if kind == "hyper" and "CFG" in name:
        assert recipe.guidance == 5.0
    elif steps > 1:
        assert (recipe.scheduler, recipe.guidance) == (presets.FEW_STEP[kind].scheduler, 1.0)


@pytest.mark.parametrize(
    "name",
    ["", "ink", "lightning_bolts_style", "hyper realistic portrait", "HyperDetail v2", "porsche turbo", "alchemy",
     "dance steps", "summer lightning", "too hyper", "calcmap", "admdx", "stcd", "Lightning McQueen"],
)  # fmt: skip
def test_names_of_styles_are_none(name: str) -> None:
    assert presets.few_step(name) is None


def test_few_step_timesteps_are_those_of_the_distillation() -> None:
    config = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    ).config
    for kind, expected in {
        "lightning": [999, 749, 499, 249],
        "dmd": [999, 749, 499, 249],
        "hyper": [999, 874, 749, 624, 499, 374, 249, 124],
    }.items():
        recipe = presets.FEW_STEP[kind]
        scheduler = schedulers.build(recipe.scheduler, config, **recipe.options)
        scheduler.set_timesteps(recipe.steps)
        assert scheduler.timesteps.int().tolist() == expected, kind
    assert GenerationRequest().clip_skip is None
