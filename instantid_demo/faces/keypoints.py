"""The picture that IdentityNet sees: five keypoints as coloured dots and limbs (paper §3.3, `draw_kps`)."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

LIMBS = ((0, 2), (1, 2), (3, 2), (4, 2))
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
RADIUS, HALF_WIDTH, LIMB_LIGHT = 10, 4, 0.6


def draw(width: int, height: int, keypoints: np.ndarray) -> Image.Image:
    """The map of one face, to the pixel as the original draws it.

    Args:
        width: Of the map, pixels.
        height: Of the map, pixels.
        keypoints: `(5, 2)`: eye, eye, nose, mouth, mouth; arithmetic follows its dtype, as in the original.

    Returns:
        RGB on black.
    """
    return draw_many(width, height, [keypoints])


def draw_many(width: int, height: int, faces: Sequence[np.ndarray]) -> Image.Image:
    """The map of several faces; later faces lie above earlier ones."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for face in faces:
        points = np.asarray(face)
        limbs = np.zeros_like(canvas)
        for start, end in LIMBS:
            cv2.fillConvexPoly(limbs, _limb(points[start], points[end]), COLOURS[start])
        drawn = limbs.any(2)
        canvas[drawn] = (limbs[drawn] * LIMB_LIGHT).astype(np.uint8)
        for point, colour in zip(points, COLOURS, strict=True):
            cv2.circle(canvas, (int(point[0]), int(point[1])), RADIUS, colour, -1)
    return Image.fromarray(canvas)


def _limb(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """A thin ellipse between two points as a polygon."""
    x, y = np.stack([start, end]).T
    length = ((x[0] - x[1]) ** 2 + (y[0] - y[1]) ** 2) ** 0.5
    angle = int(math.degrees(math.atan2(y[0] - y[1], x[0] - x[1])))
    centre = (int(np.mean(x)), int(np.mean(y)))
    return np.asarray(cv2.ellipse2Poly(centre, (int(length / 2), HALF_WIDTH), angle, 0, 360, 1))
