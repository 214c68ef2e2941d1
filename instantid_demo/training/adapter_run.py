"""One run of an adapter recipe: base, photographs, faces, training, export."""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from instantid_demo import sources
from instantid_demo.faces.analysis import FaceAnalyser
from instantid_demo.method import checkpoints, loading
from instantid_demo.models import catalogue
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings
from instantid_demo.training import examples, shards
from instantid_demo.training.adapter import AdapterRecipe, AdapterTrainer
from instantid_demo.training.adapter_model import AdapterModel

log = logging.getLogger(__name__)


def recipe_of(table: dict[str, Any], base: str | None = None) -> AdapterRecipe:
    """The recipe of a file's `[adapter]` table; `base` replaces the base named there.

    Raises:
        RequestError: a number has an unknown name, or the base is missing.
    """
    values = {**table, **({"base": base} if base else {})}
    unknown = set(values) - set(AdapterRecipe.__dataclass_fields__)
    if unknown:
        raise RequestError(f"The recipe's [adapter] has no {', '.join(sorted(unknown))}: see docs/training.md.")
    if "base" not in values:
        raise RequestError("The recipe names no base model: add base under [adapter], or give --base.")
    return AdapterRecipe(**values)


def run(
    recipe: AdapterRecipe,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    state: Path | None = None,
    max_steps: int | None = None,
) -> None:
    """Trains; `accelerate launch -m instantid_demo train …` does it on several devices.

    Args:
        recipe: The numbers.
        data: Folder of shards or photographs.
        out: Folder for everything that is made; the export lands in `out/checkpoint`.
        start: IdentityNet and adapter to train on, in the public layout; None: fresh ones.
        state: A training state to go on from; None: the newest in `out`.
        max_steps: Stop after so many steps, though the recipe goes on.
    """
    accelerator = Accelerator(
        gradient_accumulation_steps=recipe.accumulation,
        mixed_precision=recipe.mixed_precision,
        project_config=ProjectConfiguration(project_dir=str(out)),
    )
    analyser = find_analyser(recipe, Settings.from_flags([]))
    photos = shards.photographs(data)
    # One process looks at the photographs; the others read what it found.
    with accelerator.main_process_first():
        faces = examples.find_faces(photos, analyser, out / "faces.npz")
    base = load_base(recipe.base)
    if start:
        model = AdapterModel.read(base.unet, start)
    else:
        model = AdapterModel.fresh(base.unet, analyser.dimension, recipe.tokens, recipe.resampler_width)
    trainer = AdapterTrainer(base, model, photos, faces, recipe, out, accelerator, analyser)
    trainer.resume(state)
    trainer.run(max_steps)
    log.info("IdentityNet and adapter are in %s", out / "checkpoint")


def load_base(source: str) -> Any:
    """The stock SDXL or SD1.5 pipeline of a folder, a single file or a downloaded model, in float32.

    Raises:
        RequestError: it is not here or not such a model.
    """
    settings = Settings.from_flags([])
    path = catalogue.local(source, settings) or loading.locate(source, "base")
    info = checkpoints.require(path, kind=("base-folder", "base-file"))
    return loading.load_base(
        info,
        torch.float32,
        half_vae=catalogue.local("fp16-vae", settings),
        lenders=sources.lenders(settings),
    )


def find_analyser(recipe: AdapterRecipe, settings: Settings) -> FaceAnalyser:
    """The recipe's face recogniser.

    Raises:
        RequestError: its files are not here.
    """
    if recipe.recogniser == "dlib":
        from instantid_demo.faces.offline import OfflineAnalyser

        return OfflineAnalyser.of(settings.pocket / "face_centre.npy")
    from instantid_demo.faces.antelope import AntelopeAnalyser

    folder = catalogue.local("antelopev2", settings)
    if folder is None:
        raise RequestError(
            "The face recogniser antelopev2 is not here: run `python -m instantid_demo download antelopev2` first."
        )
    return AntelopeAnalyser(folder)
