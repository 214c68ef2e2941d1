"""Pocket from nothing: photographs -> labels -> autoencoder -> joint training -> extra ControlNet -> checkpoint."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderTiny
from transformers import CLIPTokenizer

from instantid_demo.request import FacePart, RequestError
from instantid_demo.training import captions, few_step, pocket, vae
from instantid_demo.training import faces as photographs
from instantid_demo.training.control_stage import ControlTrainer
from instantid_demo.training.drawing import Drawer, Drops
from instantid_demo.training.few_step import FewStepRecipe, FewStepTrainer
from instantid_demo.training.hybrid import HybridRecipe, HybridTrainer
from instantid_demo.training.labelling import labels, networks
from instantid_demo.training.pictures import RESOLUTION
from instantid_demo.training.recognisers import MobileFace

log = logging.getLogger(__name__)

STAGES: dict[str, tuple[type[HybridTrainer], type[HybridRecipe]]] = {
    "hybrid": (HybridTrainer, HybridRecipe),
    "controls": (ControlTrainer, HybridRecipe),
    "few_step": (FewStepTrainer, FewStepRecipe),
}
"""In the order in which they run."""
SETTINGS: dict[str, Any] = {
    "size": RESOLUTION,
    # A request's usual strengths, 0.8, are what the networks were trained at.
    "identity_unit": 1.25,
    "adapter_unit": 1.25,
    "appearance": 1.0,
    "presets": {
        name: {"steps": steps, "guidance": 1.0, "scheduler": "ddim"}
        for name, steps in (("quality", 4), ("fast", 2), ("draft", 1))
    },
}
"""`pocket.json` of a fresh checkpoint, until `evaluate` says better."""
PARTS_OF: dict[str, tuple[FacePart, ...]] = {
    **dict.fromkeys(("smile", "laugh", "sad", "serious", "lipstick", "moustache"), ("mouth",)),
    "beard": ("mouth", "skin"),
    "shaved": ("mouth", "skin"),
    **dict.fromkeys(("glasses", "sunglasses"), ("eyes",)),
    **dict.fromkeys(("bald", "blond", "brown", "grey", "dark", "hat", "scarf"), ("hair",)),
}
"""What a label's words speak of: there they decide at use, not the photo."""


def run(
    recipe: dict, data: Path, out: Path, start: Path | None = None, stop: Callable[[], bool] = lambda: False
) -> None:
    """Runs every stage of a Pocket recipe; stages that are finished are not repeated.

    Args:
        recipe: The parsed recipe file; with `start` it may name some stages alone.
        data: Folder of the photographs' shards and labels.
        out: Folder for everything that is made; the checkpoint lands in `out/checkpoint`.
        start: A checkpoint to train on instead of fresh networks; its autoencoder and tokenizer stay.
        stop: Asked at every step; once it says so the run ends, resumable, with a checkpoint of what there is.

    Raises:
        RequestError: the recipe leaves out what fresh networks need, or the helper networks cannot be fetched.
    """
    stages = [stage for stage in STAGES if stage in recipe]
    if start is None and not {"vae", "hybrid"} <= recipe.keys():
        raise RequestError("This recipe trains a part alone: give --start, a checkpoint to train it for.")
    known = None if start is None else np.load(start / "face_centre.npy")
    people = photographs.prepare(data, out / "faces", known)
    helpers = networks.fetch(out / "labels" / "networks")
    told = labels.prepare(data, people.pictures, out / "labels")
    if start is None:
        autoencoder = _autoencoder(people.pictures, vae.VaeRecipe(**recipe["vae"]), out / "vae", MobileFace(helpers))
        tokenizer = _tokenizer(out / "tokenizer")
        trained = pocket.build(len(tokenizer))
    else:
        trained, autoencoder, tokenizer = pocket.load(start)
    control_net = pocket.load_control_net(start)
    for stage in stages:
        if stage == "controls" and control_net is None:
            control_net = pocket.build_control_net(trained.unet)
        trained.control_net = control_net if stage == "controls" else None
        folder = out / stage
        folder.mkdir(exist_ok=True)
        trainer_of, recipe_of = STAGES[stage]
        numbers = dict(recipe[stage])
        drawer = Drawer(people, told, tokenizer, numbers.pop("styled", 0.25), Drops(**numbers.pop("drops", {})), 0)
        trainer_of(trained, autoencoder, drawer, helpers, recipe_of(**numbers), folder).run(stop)
        if stop():
            break
    checkpoint = out / "checkpoint"
    if "few_step" in stages:
        few_step.save(trained.unet, checkpoint)
    trained.control_net = control_net
    pocket.export(trained, autoencoder, tokenizer, people.centre, checkpoint)
    words = {*captions.planned_words(), *pocket.words(start)}
    (checkpoint / "words.json").write_text(json.dumps(sorted(words)) + "\n")
    settings = {**SETTINGS, **(json.loads((start / "pocket.json").read_text()) if start else {}), "frees": frees()}
    (checkpoint / "pocket.json").write_text(json.dumps(settings, indent=1) + "\n")
    log.info("checkpoint written to %s", checkpoint)


def frees() -> dict[FacePart, list[str]]:
    """Parts of the face -> phrases that speak of them, for `pocket.json`."""
    found: dict[FacePart, set[str]] = {}
    for label, parts in PARTS_OF.items():
        for part in parts:
            found.setdefault(part, set()).update(captions.phrases_of(label))
    found["ground"] = captions.phrases_of_places()
    return {part: sorted(phrases) for part, phrases in found.items()}


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Learned once: networks that were stopped half-way know its pieces by their numbers."""
    if not folder.exists():
        pocket.train_tokenizer(captions.planned_words()).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _autoencoder(pictures: np.ndarray, recipe: vae.VaeRecipe, out: Path, second: MobileFace) -> AutoencoderTiny:
    report = out / "report.json"
    if report.exists():
        known: dict[str, Any] = json.loads(report.read_text())
        log.info("autoencoder is there: %s", known)
        return AutoencoderTiny.from_pretrained(out)
    return vae.train(pictures, recipe, out, second=second)
