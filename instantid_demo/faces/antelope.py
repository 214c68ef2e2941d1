"""antelopev2 through insightface: the recogniser that the public InstantID weights were trained with.

The embedding is glintr100's raw 512-d output, not normalised, as the original feeds it. The models are for
non-commercial research. They cannot be had on every machine: tests run this module on stand-ins for the networks.
"""

import contextlib
import io
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from instantid_demo.faces import turns
from instantid_demo.faces.face import Face, crop, estimate_pose
from instantid_demo.request import RequestError

FILES = ("scrfd_10g_bnkps.onnx", "glintr100.onnx")
"""Needed; `genderage.onnx` adds the age estimate."""
_SIZES = ((640, 640), (320, 320), (1280, 1280))
"""Detection sizes tried in turn: close-ups are missed at large ones, small faces at small ones."""
_SURE = 0.8
"""Score from which an upright find is beyond doubt."""
_MOST_EYES = 140
"""Pixels between the eyes: from twice of it on a smaller copy goes to the recogniser, which samples single pixels."""
_PADDING = 0.4
_SHORTEST = 2.0
"""Length of an embedding below which it is no raw one."""


class AntelopeAnalyser:
    """insightface's SCRFD detector and ArcFace recogniser, on the CPU unless there is CUDA."""

    name = "antelopev2"
    dimension = 512

    def __init__(self, folder: Path) -> None:
        """`folder` holds the .onnx files themselves, not a nested folder.

        Raises:
            RequestError: a file is missing.
        """
        missing = [file for file in FILES if not (folder / file).is_file()]
        if missing:
            raise RequestError(
                f"The face recogniser lacks {' and '.join(missing)}: "
                "run `python -m instantid_demo download antelopev2`."
            )
        self._lock = threading.Lock()
        self._app = _load(folder)

    def detect(self, picture: Image.Image, limit: int | None = None) -> list[Face]:
        """Faces of an RGB picture from left to right; at most the `limit` largest."""
        picture = picture.convert("RGB")
        found, quarters, border = *self._find(picture), 0
        if not found:
            border = round(_PADDING * max(picture.size))
            found, quarters = self._find(ImageOps.expand(picture, border, (127, 127, 127)))
        found = sorted(found, key=lambda item: -_area(item.bbox))[:limit]
        width, height = (side + 2 * border for side in picture.size)
        size = (height, width) if quarters % 2 else (width, height)
        faces = []
        for item in found:
            box = turns.turned_box(item.bbox, -quarters, size) - border
            points = turns.turned(item.kps, -quarters, size) - border
            age = getattr(item, "age", None)
            faces.append(
                Face(
                    box,
                    float(item.det_score),
                    points,
                    np.asarray(item.embedding, np.float32),
                    crop(picture, box),
                    estimate_pose(points),
                    None if age is None else float(age),
                )
            )
        return sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))

    def embed(self, picture: Any, keypoints: np.ndarray) -> np.ndarray:
        """Raw embedding `(512,)` of the face with keypoints `(5, 2)` in an RGB picture."""
        from insightface.utils import face_align

        pixels = np.asarray(picture)[..., ::-1]
        with self._lock:
            model = self._app.models["recognition"]
            return model.get_feat(face_align.norm_crop(pixels, np.asarray(keypoints, np.float32))).ravel()

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Embeddings `(..., 512)` unchanged: insightface's own `embedding` is what the weights were trained with.

        Raises:
            RequestError: they have unit length (`normed_embedding`); the length, about 20, is lost.
        """
        if np.linalg.norm(raw, axis=-1).max() < _SHORTEST:
            raise RequestError(
                "This face embedding was brought to length 1, which InstantID cannot use: "
                "save insightface's `embedding` instead of `normed_embedding`."
            )
        return np.asarray(raw, np.float32)

    def _find(self, picture: Image.Image) -> tuple[list[Any], int]:
        """insightface's faces in the quarter turn that shows them best, in the coordinates of the turned picture."""
        pixels = np.asarray(picture)[..., ::-1]
        with self._lock:
            for size in _SIZES:
                found, quarters = turns.look(pixels, partial(self._pass, size=size), _SURE)
                if found:
                    turned = np.ascontiguousarray(np.rot90(pixels, quarters))
                    return [self._recognised(turned, face) for face in found], quarters
        return [], 0

    def _pass(self, pixels: np.ndarray, size: tuple[int, int]) -> list[turns.Found]:
        boxes, points = self._app.det_model.detect(np.ascontiguousarray(pixels), input_size=size)
        return [(box[:4], float(box[4]), five) for box, five in zip(boxes, points, strict=True)]

    def _recognised(self, pixels: np.ndarray, found: turns.Found) -> Any:
        """insightface's own face, as its `FaceAnalysis.get` makes it; a very large one in a smaller copy."""
        from insightface.app.common import Face as Recognised

        box, score, points = found
        factor = max(1, int(np.linalg.norm(points[1] - points[0]) // _MOST_EYES))
        if factor > 1:
            size = (pixels.shape[1] // factor, pixels.shape[0] // factor)
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        face = Recognised(bbox=box / factor, kps=points / factor, det_score=score)
        for task, model in self._app.models.items():
            if task != "detection":
                model.get(pixels, face)
        face.bbox, face.kps = box, points
        return face


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def providers() -> list[str]:
    """What computes onnxruntime's networks here, the first choice first."""
    import onnxruntime
    import torch

    # CUDA is offered wherever the package was built with it, and complained about at length where there is none.
    has_cuda = torch.cuda.is_available() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if has_cuda else ["CPUExecutionProvider"]


def _load(folder: Path) -> Any:
    from insightface.app import FaceAnalysis

    # It calls what its own dependencies have marked as old.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"insightface\b.*")
    # insightface prints what it loads; nobody asked.
    with contextlib.redirect_stdout(io.StringIO()):
        app = FaceAnalysis(
            name=str(folder),
            allowed_modules=["detection", "recognition", "genderage"],
            providers=providers(),
        )
        app.prepare(ctx_id=0, det_size=_SIZES[0])
    return app
