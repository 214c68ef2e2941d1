"""Pocket from nothing: photographs -> autoencoder -> pictures -> keypoint reader -> joint training -> checkpoint."""

import json
import logging
from pathlib import Path

import numpy as np
from diffusers import AutoencoderTiny

from instantid_demo.request import RequestError
from instantid_demo.training import captions, few_step, judges, pocket, pool, vae
from instantid_demo.training import faces as photographs
from instantid_demo.training.few_step import FewStepRecipe, FewStepTrainer
from instantid_demo.training.joint import JointRecipe, Trainer
from instantid_demo.training.labelling import labels

log = logging.getLogger(__name__)

STAGES = ("joint", "refine", "finish", "controls", "few_step")


def run(recipe: dict, data: Path, out: Path, start: Path | None = None) -> None:
    """Runs every stage of a Pocket recipe; stages that are finished are not repeated.

    Args:
        recipe: The parsed recipe file; with `start` it may name some stages alone.
        data: Folder of the photographs' shards and labels.
        out: Folder for everything that is made; the checkpoint lands in `out/checkpoint`.
        start: A checkpoint to train on instead of fresh networks; its autoencoder stays.

    Raises:
        RequestError: the recipe leaves out what fresh networks need.
    """
    stages = [stage for stage in STAGES if stage in recipe]
    if start is None and not {"vae", "decoder", "joint"} <= recipe.keys():
        raise RequestError("This recipe trains a part alone: give --start, a checkpoint to train it for.")
    known = None if start is None else np.load(start / "face_centre.npy")
    people = photographs.prepare(data, out / "faces", known)
    if start is None:
        autoencoder = _autoencoder(people.pictures, vae.VaeRecipe(**recipe["vae"]), out / "vae")
    else:
        networks, autoencoder, tokenizer = pocket.load(start)
    pool.draw_pictures(people, labels.prepare(data, people.pictures, out / "labels"), out / "pool")
    pool.encode_pictures(out / "pool", autoencoder)
    pictures = pool.load(out / "pool")
    if start is None:
        decoder = vae.VaeRecipe(**{**recipe["vae"], **recipe["decoder"]})
        autoencoder = _finished(autoencoder, pictures, decoder, out / "decoder")
        tokenizer = pocket.train_tokenizer([*pictures.captions, " ".join(captions.planned_words())])
        networks = pocket.build(len(tokenizer))
    reader = judges.train_reader(pictures, out / "reader.pt", recipe["reader"]["minutes"])
    control_net = pocket.load_control_net(start)
    for stage in stages:
        if stage == "controls" and control_net is None:
            control_net = pocket.build_control_net(networks.unet)
        networks.control_net = control_net if stage == "controls" else None
        trainer_of, numbers_of = (FewStepTrainer, FewStepRecipe) if stage == "few_step" else (Trainer, JointRecipe)
        folder = out / stage
        folder.mkdir(exist_ok=True)
        numbers = numbers_of(**recipe[stage])
        trainer = trainer_of(networks, autoencoder, tokenizer, people, pictures, reader, numbers, folder)
        trainer.run()
        trainer.average.swap()  # the next stage goes on with the average
    checkpoint = out / "checkpoint"
    if "few_step" in stages:
        few_step.save(networks.unet, checkpoint)
    networks.control_net = control_net
    pocket.export(networks, autoencoder, tokenizer, people.centre, checkpoint)
    words = {*captions.vocabulary(pictures.captions), *pocket.words(start)}
    (checkpoint / "words.json").write_text(json.dumps(sorted(words)) + "\n")
    log.info("checkpoint written to %s", checkpoint)


def _finished(autoencoder: AutoencoderTiny, pictures: pool.Pool, recipe: vae.VaeRecipe, out: Path) -> AutoencoderTiny:
    if (out / "config.json").exists():
        return AutoencoderTiny.from_pretrained(out)
    return vae.finish_decoder(autoencoder, pictures, recipe, out)


def _autoencoder(pictures: np.ndarray, recipe: vae.VaeRecipe, out: Path) -> AutoencoderTiny:
    report = out / "report.json"
    if report.exists():
        log.info("autoencoder is there: %s", json.loads(report.read_text()))
        return AutoencoderTiny.from_pretrained(out)
    return vae.train(pictures, recipe, out)
