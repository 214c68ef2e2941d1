"""Photos that lie on their side or stand on their head: faces are looked for in all four quarter turns.

Detectors find "a face" in a turned photo too, with its eyes on the mouth, and take it for a stranger's. So the first
plausible find counts only where it is beyond doubt; else the turn with the best finds does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from instantid_demo.faces.face import Face, estimate_pose

Found = tuple[np.ndarray, float, np.ndarray]
"""Of one face: box `(4,)`, score, keypoints `(5, 2)`."""
QUARTERS = (0, 1, 2, 3)
"""Quarter turns anticlockwise, as `numpy.rot90` counts them."""
_MOST_ROLL = 40.0
"""Degrees: a head that is tilted further may belong to a turned photo."""
_LYING = 60.0
"""Degrees of roll from which a photo counts as turned, and not the head as tilted."""
_TRANSPOSED = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}


def is_upright(keypoints: np.ndarray) -> bool:
    """Whether keypoints `(5, 2)` are an upright face's: little roll, the mouth below the eyes, the nose between."""
    points = np.asarray(keypoints, np.float64)
    roll = np.degrees(np.arctan2(*(points[1] - points[0])[::-1]))
    eyes, mouth = points[:2, 1].mean(), points[3:, 1].mean()
    return bool(abs(roll) < _MOST_ROLL and eyes < points[2, 1] < mouth)


def weight(found: Sequence[Found], sure: float) -> float:
    """How much finds speak for the turn that they were made in; infinity where they are beyond doubt, 0 for none.

    `sure`: score from which an upright face is beyond doubt. Scores are compared by the digits of their certainty.
    """
    if not found:
        return 0.0
    _, score, points = max(found, key=lambda item: float(item[0][2] - item[0][0]))
    if score >= sure and is_upright(points):
        return np.inf
    return float(-sum(np.log10(1 - score + 1e-7) for _, score, _ in found))


def look(pixels: np.ndarray, detect: Callable[[np.ndarray], list[Found]], sure: float) -> tuple[list[Found], int]:
    """The finds in the quarter turn that shows the faces best, and that turn; the others are spared where one is sure.

    Args:
        pixels: `(h, w, 3)`.
        detect: finds faces in the turned pixels, and says where in those.
        sure: see `weight`.
    """
    best: list[Found] = []
    turn, most = 0, 0.0
    for quarters in QUARTERS:
        found = detect(np.rot90(pixels, quarters))
        speaks = weight(found, sure)
        if speaks > most:
            best, turn, most = found, quarters, speaks
        if np.isinf(most):
            break
    return best, turn


def turned(points: np.ndarray, quarters: int, size: tuple[int, int]) -> np.ndarray:
    """Points `(n, 2)` of a picture of `size` (width, height) after it was turned so many quarters anticlockwise."""
    (width, height), (x, y) = size, np.asarray(points, np.float32).T
    places = ((x, y), (y, width - 1 - x), (width - 1 - x, height - 1 - y), (height - 1 - y, x))
    return np.stack(places[quarters % 4], 1).astype(np.float32)


def turned_box(box: np.ndarray, quarters: int, size: tuple[int, int]) -> np.ndarray:
    """A box `(4,)` x0, y0, x1, y1, as `turned` does it."""
    corners = turned(np.asarray(box).reshape(2, 2), quarters, size)
    return np.concatenate([corners.min(0), corners.max(0)]).astype(np.float32)


def quarters_of(faces: Sequence[Face]) -> int:
    """Quarters by which a photo must be turned anticlockwise for its largest face to stand upright; mostly 0."""
    if not faces:
        return 0
    roll = max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2]))).pose.roll
    return 0 if abs(roll) < _LYING else round(roll / 90) % 4


def turned_picture(picture: Image.Image, quarters: int) -> Image.Image:
    """A picture turned so many quarters anticlockwise."""
    return picture.transpose(_TRANSPOSED[quarters % 4]) if quarters % 4 else picture


def turned_face(face: Face, quarters: int, size: tuple[int, int]) -> Face:
    """A face of a photo of `size` after the photo was turned so many quarters anticlockwise."""
    if not quarters % 4:
        return face
    keypoints = turned(face.keypoints, quarters, size)
    return replace(
        face,
        box=turned_box(face.box, quarters, size),
        keypoints=keypoints,
        crop=turned_picture(face.crop, quarters),
        pose=estimate_pose(keypoints),
    )
