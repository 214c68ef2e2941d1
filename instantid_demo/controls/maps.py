"""Control maps: edges, depth and body pose of a picture.

Edges need nothing. Depth uses Depth Anything V2 and pose uses OpenPose (controlnet-aux) once they are downloaded; until
then, or where OpenPose sees nobody, a face stands for the whole: an ellipsoid head over a slanted bust, and a skeleton
of the usual proportions. (DWPose in controlnet-aux 0.0.10 cannot run, and mediapipe stops it from importing.) A
ready-made map is taken as is.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from instantid_demo.faces.offline import OfflineAnalyser
from instantid_demo.request import ControlKind, RequestError

CANNY = (100, 200)
"""Thresholds of the original's multi-ControlNet app."""


def draw(kind: ControlKind, picture: Image.Image, models: Path | None = None) -> Image.Image:
    """The control map of a picture, RGB at its size.

    Args:
        kind: canny, depth or pose.
        picture: RGB.
        models: Folder of downloaded models, for the estimators of depth and pose.

    Raises:
        RequestError: depth or pose is asked of a picture without a face, and no estimator is here.
    """
    if kind == "canny":
        return canny(picture)
    if kind == "depth":
        estimator = models / "depth" if models is not None else None
        if estimator is not None and (estimator / ".complete").is_file():
            return depth(picture, estimator)
        return head_depth(picture.size, _face(picture, "depth"))
    if models is not None and (models / "openpose" / ".complete").is_file():
        seen = body_pose(picture, models / "openpose")
        if seen.getbbox():
            return seen
    return skeleton(picture.size, _face(picture, "pose"))


def canny(picture: Image.Image) -> Image.Image:
    """White edges on black (OpenCV)."""
    edges = cv2.Canny(np.asarray(picture.convert("RGB")), *CANNY)
    return Image.fromarray(edges).convert("RGB")


def depth(picture: Image.Image, estimator: Path) -> Image.Image:
    """Near is bright (Depth Anything V2 through transformers)."""
    found = _depth_pipeline(estimator)(picture)["predicted_depth"]
    values = np.asarray(found, np.float32).squeeze()
    values = (values - values.min()) / max(float(values.max() - values.min()), 1e-6)
    return (
        Image.fromarray((values * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC).convert("RGB")
    )


def body_pose(picture: Image.Image, estimator: Path) -> Image.Image:
    """Everybody's skeleton in OpenPose's colours; black where there is nobody."""
    found = _openpose(estimator / "body_pose_model.pth")(picture.convert("RGB"), output_type="pil")
    return found.convert("RGB").resize(picture.size, Image.Resampling.BICUBIC)


def head_depth(size: tuple[int, int], keypoints: np.ndarray) -> Image.Image:
    """The depth of an ellipsoid head with a nose and a bust below it, placed by five keypoints `(5, 2)`."""
    width, height = size
    centre, along, across, reach = _frame(keypoints)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    offset = np.stack([x - centre[0], y - centre[1]], -1) / reach
    head = np.sqrt(np.clip(1 - (offset @ along / 1.65) ** 2 - (offset @ across / 1.2) ** 2, 0, 1))
    # The nose tells where the head looks.
    nose = 0.15 * np.exp(-np.square(np.stack([x, y], -1) - keypoints[2]).sum(-1) / (0.3 * reach) ** 2)
    face = np.where(head > 0, 0.25 + 0.6 * head + nose, 0)
    # A head turns on shoulders that stay upright.
    side, down = offset[..., 0] - 0.5 * along[0], offset[..., 1]
    neck = np.where(down > 0, 0.4 * np.sqrt(np.clip(1 - (side / 0.7) ** 2, 0, 1)), 0)
    bust = 0.25 + 0.4 * np.sqrt(np.clip(1 - (side / 3) ** 2, 0, 1))
    bust = np.where(down > 1.9 + 1.1 * np.abs(side / 3) ** 3, bust, 0) * (np.abs(side) < 3)
    values = np.maximum.reduce([face, neck, bust])
    return Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8)).convert("RGB")


def skeleton(size: tuple[int, int], keypoints: np.ndarray) -> Image.Image:
    """Head, shoulders and arms in OpenPose's colours, placed by five keypoints `(5, 2)` of a face."""
    centre, along, across, reach = _frame(keypoints)

    def at(side: float, down: float) -> np.ndarray:
        return centre + across * side * reach + along * down * reach

    neck, shoulders = at(0, 2.3), (at(-2.2, 2.6), at(2.2, 2.6))
    elbows, wrists, hips = (at(-2.7, 5.2), at(2.7, 5.2)), (at(-2.4, 7.4), at(2.4, 7.4)), (at(-1.3, 7.2), at(1.3, 7.2))
    eyes, nose = keypoints[:2], keypoints[2]
    ears = (at(-1.15, -0.15), at(1.15, -0.15))
    limbs = [
        *((neck, shoulders[0]), (neck, shoulders[1]), (shoulders[0], elbows[0]), (elbows[0], wrists[0])),
        *((shoulders[1], elbows[1]), (elbows[1], wrists[1]), (neck, hips[0]), (neck, hips[1]), (neck, nose)),
        *((nose, eyes[0]), (eyes[0], ears[0]), (nose, eyes[1]), (eyes[1], ears[1])),
    ]
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    thick = max(2, round(0.12 * reach))
    for number, (start, end) in enumerate(limbs):
        hue = np.array([[[round(170 * number / len(limbs)), 255, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.line(canvas, tuple(map(int, start)), tuple(map(int, end)), [round(0.6 * c) for c in colour], thick)
        cv2.circle(canvas, tuple(map(int, end)), thick, colour, -1)
    return Image.fromarray(canvas)


def _frame(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Centre of the face, unit vectors down and to the right of the face, and eyes-to-mouth distance in pixels."""
    eyes, mouth = keypoints[:2].mean(0), keypoints[3:].mean(0)
    reach = max(float(np.linalg.norm(mouth - eyes)), 1.0)
    along = (mouth - eyes) / reach
    return (eyes + mouth) / 2, along, np.array([along[1], -along[0]]), reach


def _face(picture: Image.Image, kind: str) -> np.ndarray:
    found = OfflineAnalyser().locate(np.asarray(picture.convert("RGB")))
    if not found:
        raise RequestError(
            f"The {kind} map needs a face in the picture: choose another one, or give a ready-made map ({kind}-map)."
        )
    return found[0]


@lru_cache(maxsize=1)
def _depth_pipeline(folder: Path) -> Any:
    from transformers import pipeline

    return pipeline("depth-estimation", model=str(folder))


@lru_cache(maxsize=1)
def _openpose(file: Path) -> Any:
    from controlnet_aux import OpenposeDetector
    from controlnet_aux.open_pose.body import Body

    return OpenposeDetector(Body(str(file)))
