"""Maps that the extra ControlNet learns from: edges, depth or pose of a training picture, as the product draws."""

import cv2
import numpy as np
from PIL import Image

from instantid_demo.controls import maps

_SHARES = {"canny": 0.4, "depth": 0.3, "pose": 0.3}


def any_kind(picture: np.ndarray, keypoints: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The map of a picture `(h, w, 3)` uint8 RGB with keypoints `(5, 2)`, of a kind drawn by lot; shaped like it."""
    size = (picture.shape[1], picture.shape[0])
    kind = draw.choice(list(_SHARES), p=list(_SHARES.values()))
    if kind == "canny":
        return np.asarray(maps.canny(Image.fromarray(picture)))
    if kind == "pose":
        return np.asarray(maps.skeleton(size, keypoints))
    return _as_estimated(np.asarray(maps.head_depth(size, keypoints)), draw)


def _as_estimated(depth: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A depth map more like an estimator's, which also sees a background and knows no absolute distances."""
    height, width = depth.shape[:2]
    values: np.ndarray = (depth[..., 0] / 255) ** draw.uniform(0.6, 1.6) * draw.uniform(0.7, 1.0)
    if draw.random() < 0.5:
        y, x = np.mgrid[:height, :width]
        slope = draw.uniform(-1, 1, 2)
        ground = draw.uniform(0, 0.3) * (1 + slope[0] * (x / width - 0.5) + slope[1] * (y / height - 0.5))
        values = np.maximum(values, ground)
    values = cv2.GaussianBlur(values, (0, 0), draw.uniform(0.3, 2.0))
    return np.repeat(np.clip(values * 255, 0, 255).astype(np.uint8)[..., None], 3, 2)
