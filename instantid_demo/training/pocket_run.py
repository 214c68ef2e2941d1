"""Pocket from nothing: photographs -> autoencoder -> pictures -> keypoint reader -> joint training -> checkpoint."""

import json
import logging
from pathlib import Path

import numpy as np
from diffusers import AutoencoderTiny

from instantid_demo.training import captions, judges, pocket, pool, vae
from instantid_demo.training import faces as photographs
from instantid_demo.training.joint import JointRecipe, Trainer

log = logging.getLogger(__name__)

STAGES = ("joint", "refine", "finish", "controls")


def run(recipe: dict, data: Path, out: Path, start: Path | None = None) -> None:
    """Runs every stage of a Pocket recipe; stages that are finished are not repeated.

    Args:
        recipe: The parsed recipe file.
        data: Folder of the photographs' shards and labels.
        out: Folder for everything that is made; the checkpoint lands in `out/checkpoint`.
        start: A checkpoint to train on instead of fresh networks.
    """
    people = photographs.prepare(data, out / "faces")
    autoencoder = _autoencoder(people.pictures, vae.VaeRecipe(**recipe["vae"]), out / "vae")
    pool.draw_pictures(people, out / "pool")
    pool.encode_pictures(out / "pool", autoencoder)
    pictures = pool.load(out / "pool")
    autoencoder = _finished(
        autoencoder, pictures, vae.VaeRecipe(**{**recipe["vae"], **recipe["decoder"]}), out / "decoder"
    )
    reader = judges.train_reader(pictures, out / "reader.pt", recipe["reader"]["minutes"])
    if start:
        networks, _, tokenizer = pocket.load(start)
    else:
        tokenizer = pocket.train_tokenizer(pictures.captions)
        networks = pocket.build(len(tokenizer))
    for stage in STAGES:
        if stage == "controls":
            networks.control_net = pocket.load_control_net(start) or pocket.build_control_net(networks.unet)
        folder = out / stage
        folder.mkdir(exist_ok=True)
        numbers = JointRecipe(**recipe[stage])
        trainer = Trainer(networks, autoencoder, tokenizer, people, pictures, reader, numbers, folder)
        trainer.run()
        trainer.average.swap()  # the next stage goes on with the average
    pocket.export(networks, autoencoder, tokenizer, people.centre, out / "checkpoint")
    (out / "checkpoint" / "words.json").write_text(json.dumps(captions.vocabulary(pictures.captions)) + "\n")
    log.info("checkpoint written to %s", out / "checkpoint")


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
