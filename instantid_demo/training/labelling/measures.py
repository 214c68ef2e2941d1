"""What can be measured in a training photograph once the face mesh and the person mask are known.

Lightness and colours are CIE Lab (L 0..100, a and b about -60..60). Mesh indices are MediaPipe's.
"""

import cv2
import numpy as np

_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149),
    *(150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_UPPER_LIP = (98, 2, 327, 391, 270, 267, 0, 37, 40, 165)
_CHIN = (181, 17, 405, 379, 400, 152, 176, 150)
_CHEEKS = ((50, 101, 36, 205, 187), (280, 330, 266, 425, 411))
_JAW = ((187, 205, 57, 43, 150, 172), (411, 425, 287, 273, 379, 397))
_EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
_FOREHEAD = (109, 10, 338, 337, 151, 108)

NAMES = (
    *("sharpness", "sharpness_ratio", "mouth_open", "mouth_wide", "mouth_lift", "teeth"),
    *("skin_L", "skin_a", "skin_b", "lips_L", "lips_a", "lips_b", "hair_L", "hair_a", "hair_b", "hair_share"),
    *("hair_sides", "top_L", "top_a", "top_b", "forehead_L", "upper_lip_L", "chin_L", "jaw_L", "chin_detail"),
    *("eyes_L", "eyes_sd", "chroma", "ground_share", "ground_L", "ground_a", "ground_b", "ground_sd"),
    *("mesh_tilt", "mesh_turn", "brightness", "skin_side"),
)
"""Columns of `measure`. Regions that cannot be seen are NaN (`mouth_*` are in mouth widths or eye distances)."""


def measure(picture: np.ndarray, mesh: np.ndarray, person: np.ndarray) -> np.ndarray:
    """All `NAMES` of one photograph, `(len(NAMES),)` float32.

    Args:
        picture: `(h, w, 3)` uint8 RGB.
        mesh: `(468, 3)` pixels.
        person: `(h, w)` uint8, 255 on the person.
    """
    size = picture.shape[0]
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    points = mesh[:, :2].astype(np.float32)
    face, lips, mouth = (_filled(points, size, part) for part in (_OVAL, _LIPS, _MOUTH))
    cheeks = _filled(points, size, *_CHEEKS)
    skin = _mean(lab, cheeks)
    lip = _mean(lab, lips & ~mouth)

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inner = _filled(points, size, _OVAL, shrink=0.85)
    edges = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.7), cv2.CV_32F)
    contrast = float(grey[inner].std()) + 4 if inner.any() else np.nan
    sharpness = float(edges[inner].std()) if inner.any() else np.nan

    eyes = np.linalg.norm(points[33] - points[263]) + 1e-6
    width = np.linalg.norm(points[61] - points[291])
    down = points[152] - points[10]
    down = down / (np.linalg.norm(down) + 1e-6)
    corners = (points[61] + points[291]) / 2
    lift = float(((points[13] + points[14]) / 2 - corners) @ down / eyes)
    inside = lab[mouth]
    teeth = float(((inside[:, 0] > 0.75 * skin[0]) & (np.hypot(inside[:, 1], inside[:, 2]) < 18)).sum()) / eyes**2

    on = person > 140
    y, x = np.mgrid[:size, :size]
    from_chin = (x - points[152, 0]) * down[0] + (y - points[152, 1]) * down[1]
    above = from_chin < float((points[168] - points[152]) @ down)
    around = cv2.dilate(face.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    hair = on & around & above
    top = around & (from_chin < float((points[10] - points[152]) @ down) - 2)
    lower = on & around & ~above & (from_chin < 0)
    behind = person < 60

    hair_colour, top_colour = _mean(lab, hair, 60), _mean(lab, top, 30)
    ground = _mean(lab, behind, 60)
    chin = _filled(points, size, _CHIN)
    left, right = (_mean(lab, _filled(points, size, part))[0] for part in _CHEEKS)
    turn = float((points[1] - points[234]) @ (points[454] - points[234])) / (
        float(np.sum((points[454] - points[234]) ** 2)) + 1e-6
    )
    return np.array(
        (
            *(sharpness, sharpness / contrast),
            *(np.linalg.norm(points[13] - points[14]) / eyes, width / eyes, lift, teeth),
            *skin,
            *lip,
            *hair_colour,
            float(hair.sum()) / size**2,
            float(lower.sum()) / size**2,
            *top_colour,
            *(_mean(lab, _filled(points, size, part))[0] for part in (_FOREHEAD, _UPPER_LIP, _CHIN)),
            _mean(lab, _filled(points, size, *_JAW))[0],
            float(edges[chin].std()) / contrast if chin.any() else np.nan,
            *_light(lab, _filled(points, size, *_EYES)),
            float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
            float(behind.mean()),
            *ground,
            float(lab[behind].std(0).mean()) if behind.sum() > 60 else np.nan,
            float(np.degrees(np.arctan2(down[0], down[1]))),
            turn - 0.5,
            float(lab[..., 0].mean()),
            abs(left - right),
        ),
        np.float32,
    )


def _filled(points: np.ndarray, size: int, *parts: tuple[int, ...], shrink: float = 1) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    for part in parts:
        outline = points[list(part)]
        outline = outline.mean(0) + (outline - outline.mean(0)) * shrink
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
    return mask > 0


def _mean(lab: np.ndarray, where: np.ndarray, least: int = 4) -> np.ndarray:
    return lab[where].mean(0) if where.sum() >= least else np.full(3, np.nan, np.float32)


def _light(lab: np.ndarray, where: np.ndarray) -> tuple[float, float]:
    return (float(lab[where][:, 0].mean()), float(lab[where][:, 0].std())) if where.any() else (np.nan, np.nan)


def thumbnail(picture: np.ndarray, mesh: np.ndarray, side: int = 16) -> np.ndarray:
    """The head in Lab, turned upright by the mesh and with room for hair and beard, `(side * side * 3,)` float16."""
    points = mesh[:, :2].astype(np.float32)
    eyes, mouth = (points[33] + points[263]) / 2, (points[61] + points[291]) / 2
    # Eyes and mouth go to fixed heights of the thumbnail; the head's width follows.
    source = np.stack([eyes, mouth, eyes + (mouth - eyes)[::-1] * (1, -1)]).astype(np.float32)
    step = 0.26 * side
    target = np.array([(0.5, 0.44), (0.5, 0.7), (0.5, 0.44)], np.float32) * side
    target[2, 0] += step
    moved = cv2.warpAffine(
        cv2.GaussianBlur(picture, (0, 0), picture.shape[0] / side / 3),
        cv2.getAffineTransform(source, target),
        (side, side),
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.cvtColor(moved.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1).astype(np.float16)
