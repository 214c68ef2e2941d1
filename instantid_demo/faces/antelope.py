"""antelopev2 through insightface: the recogniser that the public InstantID weights were trained with.

The embedding is glintr100's raw 512-d output, not normalised, as the original feeds it. The models are for
non-commercial research. They cannot be had on every machine: tests run this module on a stand-in for insightface.
"""

import contextlib
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from instantid_demo.faces.face import Face, crop, estimate_pose
from instantid_demo.request import RequestError

FILES = ("scrfd_10g_bnkps.onnx", "glintr100.onnx")
"""Needed; `genderage.onnx` adds the age estimate."""
_SIZES = ((640, 640), (320, 320), (1280, 1280))
"""Detection sizes tried in turn: close-ups are missed at large ones, small faces at small ones."""
_PADDING = 0.4
_SHORTEST = 2.0
"""Length of an embedding below which it is no raw one."""


class AntelopeAnalyser:
    """insightface's SCRFD detector and ArcFace recogniser, on the CPU unless onnxruntime offers CUDA."""

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
        found, border = self._find(picture, 0), 0
        if not found:
            border = round(_PADDING * max(picture.size))
            found = self._find(ImageOps.expand(picture, border, (127, 127, 127)), limit or 0)
        faces = []
        for item in found:
            box, points = np.asarray(item.bbox, np.float32) - border, np.asarray(item.kps, np.float32) - border
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
        faces.sort(key=lambda face: -float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1])))
        return sorted(faces[:limit], key=lambda face: float(face.box[0] + face.box[2]))

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

    def _find(self, picture: Image.Image, most: int) -> list[Any]:
        pixels = np.ascontiguousarray(np.asarray(picture)[..., ::-1])
        with self._lock:
            for size in _SIZES:
                self._app.det_model.input_size = size
                if found := self._app.get(pixels, max_num=most):
                    return list(found)
        return []


def _load(folder: Path) -> Any:
    from insightface.app import FaceAnalysis

    # insightface prints what it loads; nobody asked.
    with contextlib.redirect_stdout(io.StringIO()):
        import onnxruntime

        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        app = FaceAnalysis(
            name=str(folder), allowed_modules=["detection", "recognition", "genderage"], providers=providers
        )
        app.prepare(ctx_id=0, det_size=_SIZES[0])
    return app
