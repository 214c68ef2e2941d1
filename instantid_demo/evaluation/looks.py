"""What an eye sees at once: the colour of the skin, how dark a face is, how sharp. Lab units; no networks."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from instantid_demo.faces.appearance import move_onto

SIDE = 96
"""Faces are compared at this size, aligned by their keypoints."""
_CHEEKS = ((0.28, 0.52), (0.74, 0.52))
"""Middle of either cheek, as fractions of the aligned face's side."""
_CHEEK = 0.06
TONES = {"dark": 50.0, "middle": 65.0, "light": 101.0}
"""Groups of skin by the light of the portrait's cheeks: below each bound."""


@dataclass(frozen=True)
class Look:
    """One made face beside the portrait's.

    Attributes:
        cheeks: Distance of the cheeks' mean colours (CIE76).
        darker: By how much the face is darker than the portrait's.
        gradients: Mean step of light between neighbouring pixels of the inner face; the portrait's is 1.
        tone: Group of the portrait's skin.
    """

    cheeks: float
    darker: float
    gradients: float
    tone: str


def compare(made: Image.Image, portrait: Image.Image, keypoints: np.ndarray) -> Look:
    """The look of a made picture beside the portrait in the same framing; `keypoints` `(5, 2)` pixels of both."""
    ours, theirs = aligned(made, keypoints), aligned(portrait, keypoints)
    skin = cheeks(theirs)
    inner = inner_face()
    return Look(
        float(np.linalg.norm(cheeks(ours) - skin)),
        float((theirs[..., 0] - ours[..., 0])[inner].mean()),
        gradients(ours) / max(gradients(theirs), 1e-6),
        next(name for name, bound in TONES.items() if skin[0] < bound),
    )


def summary(looks: Sequence[Look]) -> dict[str, float]:
    """Means over people, for the report."""
    return {
        name: round(statistics.fmean(getattr(look, name) for look in looks), 4)
        for name in ("cheeks", "darker", "gradients")
    }


def thumbnail(picture: Image.Image, side: int = 24) -> Image.Image:
    """A picture that says no more than one of `side` pixels a side: the floor that a likeness must beat."""
    return picture.resize((side, side), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)


def aligned(picture: Image.Image, keypoints: np.ndarray) -> np.ndarray:
    """The face as `(96, 96, 3)` float32 Lab."""
    move = move_onto(keypoints, SIDE)
    pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    face = cv2.warpAffine(pixels, move, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.cvtColor(face, cv2.COLOR_RGB2LAB)


def cheeks(face: np.ndarray) -> np.ndarray:
    """Mean Lab colour `(3,)` of both cheeks of an aligned face."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    masks = [np.hypot(x - across, y - down) < _CHEEK for across, down in _CHEEKS]
    return np.asarray(face[np.any(masks, axis=0)].mean(0))


def inner_face() -> np.ndarray:
    """Mask `(96, 96)` of eyes, nose, mouth and cheeks in an aligned face."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    return np.hypot((x - 0.51) / 0.32, (y - 0.5) / 0.36) < 1


def gradients(face: np.ndarray) -> float:
    """Mean step of light between neighbouring pixels of the inner face."""
    light, inside = face[..., 0], inner_face()
    across, down = np.abs(np.diff(light, axis=1))[inside[:, 1:]], np.abs(np.diff(light, axis=0))[inside[1:]]
    return float((across.mean() + down.mean()) / 2)
