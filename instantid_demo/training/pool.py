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

from instantid_demo.training.captions import caption
from instantid_demo.training.faces import SIZE, Faces, views
from instantid_demo.training.precision import autocast
from instantid_demo.training.rendered_styles import KEEPS_THE_FACE, RENDERERS, background

log = logging.getLogger(__name__)

RESOLUTION = 128
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


def draw_pictures(faces: Faces, out: Path, seed: int = 0) -> None:
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
    styles = list(RENDERERS)
    for face in range(len(faces)):
        for variant in range(VARIANTS):
            at = face * VARIANTS + variant
            mirror = bool(draw.random() < 0.5)
            photo, found = views(faces.pictures[face], faces.keypoints[face])[mirror]
            picture, points = place(photo, found, variant > 0, draw)
            ground = background(points, RESOLUTION)
            style = styles[int(draw.integers(len(styles)))] if variant >= PHOTO_VARIANTS else None
            words["captions"].append(caption(faces.sex[face], faces.age[face], style, picture, ground, draw))
            words["mirror"].append(mirror)
            words["judged"].append(style is None or style in KEEPS_THE_FACE)
            pictures[at] = picture if style is None else RENDERERS[style](picture, ground, draw)
            keypoints[at] = points
        if face % 2000 == 0:
            log.info("drew the pictures of %d of %d photos", face, len(faces))
    pictures.flush()
    np.save(out / "keypoints.npy", keypoints)
    (out / "words.json").write_text(json.dumps(words))


def place(
    picture: np.ndarray, keypoints: np.ndarray, move: bool, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A 128 picture of a 160 photo, the keypoints following.

    Rotated up to 20°, scaled and shifted where `move`; mostly zoomed in, because zooming out shows a mirrored border.
    """
    scale, angle, shift = RESOLUTION / SIZE, 0.0, np.zeros(2)
    if move:
        small = draw.random() < 0.2
        scale *= draw.uniform(0.65, 1.0) if small else draw.uniform(0.97, 1.15)
        angle = float(np.clip(draw.normal(0, 8), -20, 20))
        shift = draw.uniform(-1, 1, 2) * (14 if small else 5)
    turn = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), angle, scale)
    turn[:, 2] = turn[:, 2] + (RESOLUTION - SIZE) / 2 + shift
    moved = cv2.warpAffine(
        picture,
        turn,
        (RESOLUTION, RESOLUTION),
        flags=cv2.INTER_AREA,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return moved, (keypoints @ turn[:, :2].T + turn[:, 2]).astype(np.float32)


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
