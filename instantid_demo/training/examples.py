"""From photographs to what a training step takes: faces found once and kept, then crops, maps and embeddings."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instantid_demo.faces import keypoints as keypoint_maps
from instantid_demo.faces.analysis import FaceAnalyser
from instantid_demo.faces.face import Face
from instantid_demo.faces.identity import Identity
from instantid_demo.request import RequestError
from instantid_demo.training.shards import Photograph

log = logging.getLogger(__name__)

_MARGIN = 0.6
"""Room around the keypoints, in their height, that a crop keeps where the photo has it."""


@dataclass(frozen=True)
class KnownFaces:
    """The usable photographs, rows matching.

    Attributes:
        rows: `(m,)` indices of the photographs that show a face.
        keypoints: `(m, 5, 2)` float32 pixels of the photograph.
        embeddings: `(m, d)` float32; photos of one person share the average of theirs.
    """

    rows: np.ndarray
    keypoints: np.ndarray
    embeddings: np.ndarray


def find_faces(photos: Sequence[Photograph], analyser: FaceAnalyser, cache: Path) -> KnownFaces:
    """Finds the largest face of every photograph, or reads what an earlier call kept in `cache` (`.npz`).

    Raises:
        RequestError: no photograph shows a face.
    """
    keys = np.array([photo.key for photo in photos])
    if cache.exists():
        with np.load(cache, allow_pickle=False) as kept:
            if str(kept["recogniser"]) == analyser.name and np.array_equal(kept["keys"], keys):
                return _averaged(photos, kept["rows"], kept["keypoints"], kept["embeddings"], analyser.name)
    rows, keypoints, embeddings = [], [], []
    for row, photo in enumerate(photos):
        found = analyser.detect(photo.picture(), limit=1)
        if found:
            rows.append(row)
            keypoints.append(found[0].keypoints)
            embeddings.append(found[0].embedding)
        if (row + 1) % 500 == 0:
            log.info("looked at %d of %d photographs, %d with a face", row + 1, len(photos), len(rows))
    if not rows:
        raise RequestError("None of the photographs shows a face: choose others.")
    log.info("%d of %d photographs show a face", len(rows), len(photos))
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_name(f"{cache.stem}.partial.npz")
    arrays = np.array(rows), np.stack(keypoints).astype(np.float32), np.stack(embeddings).astype(np.float32)
    np.savez(unfinished, keys=keys, recogniser=analyser.name, rows=arrays[0], keypoints=arrays[1], embeddings=arrays[2])
    os.replace(unfinished, cache)
    return _averaged(photos, *arrays, analyser.name)


def _averaged(
    photos: Sequence[Photograph], rows: np.ndarray, keypoints: np.ndarray, embeddings: np.ndarray, recogniser: str
) -> KnownFaces:
    """Several photos of a person become one embedding, just as the product makes it of several uploads."""
    together: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        together[photos[row].identity].append(index)
    shared = embeddings.copy()
    blank = Image.new("RGB", (1, 1))
    for indices in together.values():
        if len(indices) > 1:
            faces = [Face(np.zeros(4), 1.0, keypoints[index], embeddings[index], blank) for index in indices]
            shared[indices] = Identity.from_faces(faces, model=recogniser).embedding
    return KnownFaces(rows, keypoints, shared)


@dataclass
class Examples:
    """A batch of `n` examples.

    Attributes:
        pixels: `(n, 3, r, r)` in -1..1.
        maps: `(n, 3, r, r)` in 0..1, keypoint maps as the product draws them.
        embeddings: `(n, d)`.
        captions: `n` strings.
        sizes: `(n, 6)` height and width of the photo, top and left of the crop, height and width of the crop.
    """

    pixels: Tensor
    maps: Tensor
    embeddings: Tensor
    captions: list[str]
    sizes: Tensor


def batch(
    photos: Sequence[Photograph],
    faces: KnownFaces,
    indices: Sequence[int],
    resolution: int,
    caption: str,
    draw: np.random.Generator,
) -> Examples:
    """The examples of rows `indices` of `faces`; `caption` stands in where a photograph has none."""
    pixels, maps, sizes, captions = [], [], [], []
    for index in indices:
        photo = photos[faces.rows[index]]
        picture, points, size = cut(photo.picture(), faces.keypoints[index], resolution, draw)
        pixels.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1)
        drawn = np.array(keypoint_maps.draw(resolution, resolution, points))
        maps.append(torch.from_numpy(drawn).permute(2, 0, 1).float() / 255)
        sizes.append(size)
        captions.append(photo.caption or caption)
    return Examples(
        torch.stack(pixels),
        torch.stack(maps),
        torch.from_numpy(faces.embeddings[list(indices)]),
        captions,
        torch.tensor(sizes, dtype=torch.float32),
    )


def cut(
    picture: Image.Image, keypoints: np.ndarray, resolution: int, draw: np.random.Generator
) -> tuple[Image.Image, np.ndarray, tuple[int, ...]]:
    """A square crop of a photo at a random place that keeps the face, its keypoints, and SDXL's six size numbers."""
    scale = resolution / min(picture.size)
    scaled = picture.resize(
        tuple(max(resolution, round(side * scale)) for side in picture.size),  # type: ignore[arg-type]
        Image.Resampling.LANCZOS,
    )
    ratio = np.array(scaled.size) / np.array(picture.size)
    points = (np.asarray(keypoints, np.float64) + 0.5) * ratio - 0.5
    margin = _MARGIN * (points[:, 1].max() - points[:, 1].min())
    corner = []
    for axis in (0, 1):
        room = scaled.size[axis] - resolution
        low = min(max(0.0, points[:, axis].max() + margin - resolution), room)
        high = max(min(float(room), points[:, axis].min() - margin), 0.0)
        corner.append(round(draw.uniform(low, high) if low < high else min(max((low + high) / 2, 0), room)))
    left, top = corner
    crop = scaled.crop((left, top, left + resolution, top + resolution))
    sizes = (picture.height, picture.width, top, left, resolution, resolution)
    return crop, (points - (left, top)).astype(np.float32), sizes
