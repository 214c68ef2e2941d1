"""Head positions without a photo: a 3-D face of five points, turned and projected.

The points are the mean keypoints of Pocket's training photos (`offline.CHIP_KEYPOINTS`, made symmetric); depths are
round anthropometric proportions: the nose tip half an eye distance before the eyes, the mouth corners a tenth.
Projection is orthographic: a portrait is taken from far enough away.
"""

import math
from typing import Literal

import numpy as np

from instantid_demo.faces.face import MOUTH_DOWN, NOSE_DOWN, NOSE_FORWARD
from instantid_demo.request import Place, View

MODEL = np.array(
    [
        [-0.5, 0.0, 0.0],
        [0.5, 0.0, 0.0],
        [0.0, NOSE_DOWN, NOSE_FORWARD],
        [-0.455, MOUTH_DOWN, 0.1],
        [0.455, MOUTH_DOWN, 0.1],
    ],
    np.float32,
)
"""`(5, 3)`: x to the picture's right, y down, z towards the camera, in eye distances."""
_PIVOT = np.array([0.0, 0.5 * MOUTH_DOWN, -0.7], np.float32)
"""The head turns about a point behind the face, so that a turned face also moves a little."""

NAMED_VIEWS: dict[str, View] = {
    "front": View(),
    "slightly left": View(yaw=-20),
    "slightly right": View(yaw=20),
    "three-quarter left": View(yaw=-40),
    "three-quarter right": View(yaw=40),
    "profile left": View(yaw=-75),
    "profile right": View(yaw=75),
    "looking up": View(pitch=25),
    "looking down": View(pitch=-25),
    "tilted left": View(roll=-18),
    "tilted right": View(roll=18),
    "up and left": View(yaw=-25, pitch=18),
    "down and right": View(yaw=25, pitch=-18),
}
"""Plain name -> direction; left and right are the picture's."""

_FRAMINGS = {"pocket": (0.362, 0.5118, 0.505), "sdxl": (0.12, 0.5, 0.42), "sd15": (0.14, 0.5, 0.42)}
"""Eye distance as a share of the shorter side; centre of eyes and mouth as shares of width and height."""


def keypoints_for(
    view: View, place: Place | None, width: int, height: int, framing: Literal["pocket", "sdxl", "sd15"] = "sdxl"
) -> np.ndarray:
    """Keypoints `(5, 2)` float32 in pixels of a face looking in a direction.

    Args:
        view: Degrees; +yaw turns to the picture's right, +pitch up, +roll clockwise.
        place: Centre and size in the frame, or None for the model's usual one.
        width: Of the canvas.
        height: Of the canvas.
        framing: Whose usual framing: Pocket shows the face alone, SDXL a portrait.
    """
    eye_distance, x, y = _FRAMINGS[framing]
    scale = eye_distance * min(width, height)
    if place is not None:
        scale, x, y = scale * place.size, place.x, place.y
    points = project(view)
    centre = points[[0, 1, 3, 4]].mean(0) if view.yaw == view.pitch == 0 else np.array([0.0, 0.0], np.float32)
    return ((points - centre) * scale + (x * width, y * height)).astype(np.float32)


def project(view: View) -> np.ndarray:
    """The turned model, seen from the front: `(5, 2)` in eye distances about the face's centre."""
    yaw, pitch, roll = (math.radians(angle) for angle in (view.yaw, view.pitch, view.roll))
    turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    tilt = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    turned = (MODEL - _PIVOT) @ (nod @ turn).T + _PIVOT - (0, _PIVOT[1], 0)
    return (turned[:, :2] @ tilt.T).astype(np.float32)
