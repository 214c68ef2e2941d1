"""What a face embedding does not say: skin, hair, glasses, a smile, as a small picture beside the embedding.

The photo is aligned by the face's keypoints and reduced to 24 pixels a side (colour: 12). Its 4 x 4 patches become
rows of as many numbers as the embedding has, so that the Resampler takes both as one sequence and no class changes.
Parts can be left free, for words or chance to fill.
"""

from collections.abc import Iterable
from functools import cache
from typing import get_args

import cv2
import numpy as np

from instantid_demo.faces.geometry import KEYPOINTS, similarity
from instantid_demo.request import FacePart

SIDE = 24
"""Pixels a side of the thumbnail; half of it for colour."""
PATCHES = 4
"""Patches a side."""
ROWS = PATCHES * PATCHES
WIDTH = 128
"""Numbers a row: those of the embedding that stands beside it."""
COARSEST = 8
"""Pixels a side of the coarsest thumbnail."""
_PIXELS = SIDE // PATCHES
_SCALE = 0.3
"""Of the numbers, so that a row is about as long as a unit embedding."""
_FINE = 192
"""Side of the aligned picture before it is averaged down."""

PARTS: tuple[FacePart, ...] = get_args(FacePart)


def move_onto(keypoints: np.ndarray, side: float) -> np.ndarray:
    """The similarity `(2, 3)` that lays keypoints `(5, 2)` in pixels onto a thumbnail of `side` pixels."""
    return similarity(keypoints, KEYPOINTS.astype(np.float64) * side - 0.5)


def thumbnail(picture: np.ndarray, keypoints: np.ndarray, change: np.ndarray | None = None) -> np.ndarray:
    """The aligned thumbnail `(24, 24, 4)` float32: RGB in 0..1, and how much of each pixel lies inside the photo.

    Args:
        picture: `(h, w, 3)` uint8 RGB.
        keypoints: `(5, 2)` pixels of the face.
        change: `(2, 3)` applied after the alignment, in units of the thumbnail's side; training jitters with it.
    """
    side = min(_FINE, SIDE * max(1, round(_reach(picture, keypoints) / SIDE)))
    move = move_onto(keypoints, side)
    if change is not None:
        turn = change[:, :2]
        move = np.concatenate([turn @ move[:, :2], (turn @ move[:, 2] + change[:, 2] * side)[:, None]], 1)
    scale = float(np.hypot(*move[:, 0]))
    if scale < 0.5:  # sampling alone would skip pixels
        size = tuple(max(1, round(edge * scale)) for edge in picture.shape[1::-1])
        ratio = np.array(size) / picture.shape[1::-1]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        # Pixel centres: p' + 0.5 = (p + 0.5) * ratio.
        linear = move[:, :2] / ratio
        move = np.concatenate([linear, (move[:, 2] - linear @ (0.5 * ratio - 0.5))[:, None]], 1)
    shown = cv2.warpAffine(
        np.ascontiguousarray(picture), move, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpAffine(np.full(picture.shape[:2], 255, np.uint8), move, (side, side), flags=cv2.INTER_NEAREST)
    small = cv2.resize(np.dstack([shown, inside]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def grain(amount: float) -> int:
    """Pixels a side that a thumbnail says at `amount` in 0..1."""
    return round(COARSEST + amount * (SIDE - COARSEST))


def coarser(small: np.ndarray, grain: int) -> np.ndarray:
    """A thumbnail `(24, 24, c)` that says no more than one of `grain` pixels a side would."""
    if grain >= SIDE:
        return small
    coarse = cv2.resize(small, (grain, grain), interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


@cache
def part_masks() -> dict[FacePart, np.ndarray]:
    """Where each part of a face lies in the thumbnail, `(24, 24)` in 0..1; they overlap a little."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return np.clip((1.15 - np.hypot((x - cx) / rx, (y - cy) / ry)) / 0.3, 0, 1)

    face, head = ellipse(0.51, 0.53, 0.33, 0.44), ellipse(0.51, 0.45, 0.52, 0.62)
    eyes = np.maximum(ellipse(0.33, 0.30, 0.17, 0.13), ellipse(0.69, 0.30, 0.17, 0.13))
    mouth = ellipse(0.51, 0.71, 0.25, 0.16)
    hair = np.clip(np.maximum(head - face, ellipse(0.51, 0.02, 0.45, 0.15)) * 1.2, 0, 1)
    masks = {
        "hair": np.where(y < 0.75, hair, hair * 0.5),
        "eyes": eyes,
        "mouth": mouth,
        "skin": np.clip(face - eyes - mouth, 0, 1),
        "ground": 1 - head,
    }
    return {name: masks[name].astype(np.float32) for name in PARTS}


def freed(small: np.ndarray, parts: Iterable[FacePart]) -> np.ndarray:
    """The thumbnail with these parts unknown: its last channel says how much of each pixel is known."""
    masks = part_masks()
    known = small[..., 3]
    for part in parts:
        known = known * (1 - masks[part])
    return np.dstack([small[..., :3], known]).astype(np.float32)


def rows(small: np.ndarray, grain: int = SIDE) -> np.ndarray:
    """The thumbnail as `(16, 128)` float32 rows for the Resampler.

    A row holds its patch's light (36 numbers), colour (2 x 9) and how much of it is known (36), where the patch lies
    (one of 16), and the grain in the last place. What is not known is zero.
    """
    known = np.clip(small[..., 3:], 0, 1)
    seen = coarser(small[..., :3] * known, grain) / np.maximum(coarser(known, grain).reshape(SIDE, SIDE, 1), 0.1)
    red, green, blue = np.moveaxis(seen * 2 - 1, -1, 0)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    certain = known[..., 0]
    colour = np.stack([red - light, blue - light]) * certain
    colour = colour.reshape(2, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4))
    half = _PIXELS // 2
    made = np.zeros((ROWS, WIDTH), np.float32)
    for row in range(ROWS):
        top, left = (row // PATCHES) * _PIXELS, (row % PATCHES) * _PIXELS
        here = slice(top, top + _PIXELS), slice(left, left + _PIXELS)
        coarse = slice(top // 2, top // 2 + half), slice(left // 2, left // 2 + half)
        numbers = ((light * certain)[here], 1.5 * colour[0][coarse], 1.5 * colour[1][coarse], certain[here])
        flat = np.concatenate([part.ravel() for part in numbers])
        made[row, : len(flat)] = _SCALE * flat
        if certain[here].max() > 0:
            made[row, len(flat) + row] = 1
            made[row, -1] = grain / SIDE
    return made


def _reach(picture: np.ndarray, keypoints: np.ndarray) -> float:
    """Side of the thumbnail's square in pixels of the photo."""
    return float(1 / max(np.hypot(*move_onto(keypoints, 1.0)[:, 0]), 1e-9))
