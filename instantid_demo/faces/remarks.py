"""What a user should know about a photo that was used all the same."""

from typing import Literal

import cv2
import numpy as np
from PIL import Image

from instantid_demo.faces import turns
from instantid_demo.faces.face import Face

Remark = Literal["turned", "small", "blurred", "cut"]
SENTENCES: dict[Remark, str] = {
    "turned": "The photo was turned upright.",
    "small": "The face in the photo is small: one of more than 60 pixels gives more likeness.",
    "blurred": "The face in the photo is blurred: a sharper photo gives more likeness.",
    "cut": "The photo's file lacks its end: what is there of it was used.",
}
_SMALL = 60.0
"""Pixels of the longer side of a face's box below which a recogniser has to guess."""
_SHARP = 0.135
"""Sharpness below which likeness suffers: unblurred portraits are at 0.16 and more, those that lost half at 0.13."""
_SIDE, _MARGIN = 128, 26
"""Pixels of the copy of a face's crop that is looked at, and of its border that is not."""


def of(face: Face) -> list[Remark]:
    """What is to be said about the face that was chosen in a photo."""
    found: list[Remark] = ["turned"] if turns.quarters_of([face]) else []
    if max(face.box[2] - face.box[0], face.box[3] - face.box[1]) < _SMALL:
        return [*found, "small"]
    return [*found, "blurred"] if sharpness(face.crop) < _SHARP else found


def sharpness(crop: Image.Image) -> float:
    """Strength of the edges in a face's crop, as its `Face` keeps it, over its contrast: about 0.03 to 0.4."""
    way = Image.Resampling.BOX if max(crop.size) >= _SIDE else Image.Resampling.BICUBIC
    grey = np.asarray(crop.convert("L").resize((_SIDE, _SIDE), way), np.float32)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    # A little smoothed, so that neither noise nor JPEG's blocks count as edges.
    edges = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.8), cv2.CV_32F)
    return float(np.sqrt((edges**2).mean() / max(float(grey.var()), 1.0)))
