"""Pocket's training pictures: every photograph several times, moved, mirrored and rendered in styles.

Drawing and encoding them once and reading them from disk afterwards leaves the processor to the networks.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.lib.format import open_memmap

from instantid_demo.training.faces import Faces
from instantid_demo.training.labelling.labels import Labels
from instantid_demo.training.pictures import RESOLUTION, draw_picture
from instantid_demo.training.precision import autocast

log = logging.getLogger(__name__)

PHOTO_VARIANTS = 3
STYLED_VARIANTS = 2
VARIANTS = PHOTO_VARIANTS + STYLED_VARIANTS


@dataclass(frozen=True)
class Pool:
    """`m` training pictures.

    Attributes:
        pictures: `(m, 128, 128, 3)` uint8 RGB.
        latents: `(m, c, 16, 16)` float16.
        keypoints: `(m, 5, 2)` float32 pixels of the 128 picture.
        face: `(m,)` row in `Faces`.
        mirror: `(m,)` bool, the picture is a mirror image.
        judged: `(m,)` bool, a recogniser may judge likeness here.
        captions: `m` strings.
    """

    pictures: np.ndarray
    latents: np.ndarray
    keypoints: np.ndarray
    face: np.ndarray
    mirror: np.ndarray
    judged: np.ndarray
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def draw_pictures(faces: Faces, labels: Labels, out: Path, seed: int = 0) -> None:
    """Writes `pictures.npy`, `keypoints.npy` and `words.json` to `out`, unless they are there."""
    if (out / "words.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    draw = np.random.default_rng(seed)
    count = len(faces) * VARIANTS
    pictures = open_memmap(out / "pictures.npy", "w+", np.uint8, (count, RESOLUTION, RESOLUTION, 3))
    keypoints = np.zeros((count, 5, 2), np.float32)
    words: dict[str, list] = {"captions": [], "mirror": [], "judged": []}
    for face in range(len(faces)):
        for variant in range(VARIANTS):
            at = face * VARIANTS + variant
            drawn = draw_picture(faces, labels, face, variant >= PHOTO_VARIANTS, variant > 0, draw)
            words["captions"].append(drawn.caption)
            words["mirror"].append(drawn.mirror)
            words["judged"].append(drawn.judged)
            pictures[at], keypoints[at] = drawn.picture, drawn.keypoints
        if face % 2000 == 0:
            log.info("drew the pictures of %d of %d photos", face, len(faces))
    pictures.flush()
    np.save(out / "keypoints.npy", keypoints)
    (out / "words.json").write_text(json.dumps(words))


@torch.no_grad()
def encode_pictures(out: Path, vae: AutoencoderTiny, batch: int = 64) -> None:
    """Writes `latents.npy` beside the pictures, unless it is there for this very autoencoder."""
    mark = out / "latents.json"
    fingerprint = float(sum(p.double().abs().sum() for p in vae.parameters()))
    if mark.exists() and json.loads(mark.read_text()) == fingerprint:
        return
    pictures = np.load(out / "pictures.npy", mmap_mode="r")
    shape = (len(pictures), vae.config.latent_channels, RESOLUTION // 8, RESOLUTION // 8)
    latents = open_memmap(out / "latents.npy", "w+", np.float16, shape)
    encoder = vae.encoder.to(memory_format=torch.channels_last)
    for start in range(0, len(pictures), batch):
        pixels = torch.from_numpy(pictures[start : start + batch]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with autocast():
            latents[start : start + batch] = encoder(pixels).float().numpy()
        if start % (batch * 100) == 0:
            log.info("encoded %d of %d pictures", start, len(pictures))
    latents.flush()
    mark.write_text(json.dumps(fingerprint))


def load(out: Path) -> Pool:
    """The pool that `draw_pictures` and `encode_pictures` wrote to `out`."""
    words = json.loads((out / "words.json").read_text())
    count = len(words["captions"])
    return Pool(
        np.load(out / "pictures.npy", mmap_mode="r"),
        np.load(out / "latents.npy", mmap_mode="r"),
        np.load(out / "keypoints.npy"),
        np.arange(count) // VARIANTS,
        np.array(words["mirror"]),
        np.array(words["judged"]),
        words["captions"],
    )
