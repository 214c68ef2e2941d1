"""One face as an analyser finds it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from instantid_demo.request import View


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        box: `(4,)` float32 x0, y0, x1, y1 in pixels; may reach beyond the picture.
        score: The detector's confidence, 0..1.
        keypoints: `(5, 2)` float32 pixels: eye, eye, nose tip, mouth corner, mouth corner; the picture's left first.
        embedding: `(d,)` float32 (128 for the offline analyser, 512 for antelopev2).
        crop: The face with some margin, RGB, at most 256 pixels.
        pose: Estimated direction of the head.
        age: Estimated years, where the analyser tells.
        thumbnail: `(24, 24, 4)` float32 (see `appearance.thumbnail`), where models of this analyser can use it.
    """

    box: np.ndarray
    score: float
    keypoints: np.ndarray
    embedding: np.ndarray
    crop: Image.Image = field(repr=False)
    pose: View = field(default_factory=View)
    age: float | None = None
    thumbnail: np.ndarray | None = field(default=None, repr=False)


def largest(boxes: Sequence[Sequence[float]]) -> int:
    """Index of the box with the largest area; of equal ones the later, as in the original scripts."""
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
    return max(range(len(areas)), key=lambda index: (areas[index], index))


def crop(picture: Image.Image, box: np.ndarray, margin: float = 0.35, side: int = 256) -> Image.Image:
    """The square around a box with a margin, cut at the picture's border."""
    x0, y0, x1, y1 = (float(value) for value in box)
    half = max(x1 - x0, y1 - y0) * (0.5 + margin)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = round(max(0, x - half)), round(max(0, y - half))
    right, bottom = round(min(picture.width, x + half)), round(min(picture.height, y + half))
    cut = picture.crop((left, top, max(left, right), max(top, bottom)))
    if not min(cut.size):
        cut = picture.copy()
    cut.thumbnail((side, side), Image.Resampling.LANCZOS)
    return cut


# The mean face of the offline detector in eye distances (mouth below the eyes, nose below the eyes) and the height
# of the nose tip before the plane of eyes and mouth, a round anthropometric proportion.
MOUTH_DOWN, NOSE_DOWN, NOSE_FORWARD = 1.044, 0.58, 0.5


def estimate_pose(keypoints: np.ndarray) -> View:
    """Direction of the head from five keypoints `(5, 2)`: rough, a few degrees near the front, more in profile."""
    points = np.asarray(keypoints, np.float64)
    eye_line = points[1] - points[0]
    roll = math.degrees(math.atan2(eye_line[1], eye_line[0]))
    turn = math.radians(-roll)
    upright = points @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    eyes, mouth, nose = upright[:2].mean(0), upright[3:].mean(0), upright[2]
    width = max(upright[1, 0] - upright[0, 0], (upright[4, 0] - upright[3, 0]) / 0.91, 1e-6)
    height = max(mouth[1] - eyes[1], 1e-6)
    share = (nose[1] - eyes[1]) / height
    middle = eyes[0] + (mouth[0] - eyes[0]) * min(max(share, 0), 1)
    yaw = math.degrees(math.atan2((nose[0] - middle) / width, NOSE_FORWARD))
    pitch = math.degrees(math.atan2((NOSE_DOWN / MOUTH_DOWN - share) * MOUTH_DOWN, NOSE_FORWARD))
    clip = lambda value, limit: max(-limit, min(limit, value))  # noqa: E731
    return View(yaw=clip(yaw, 90), pitch=clip(pitch, 60), roll=clip(roll, 180))
