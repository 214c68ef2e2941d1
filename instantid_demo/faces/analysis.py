"""What every face analyser offers."""

from typing import Any, Protocol

import numpy as np
from PIL import Image

from instantid_demo.faces.face import Face


class FaceAnalyser(Protocol):
    """Finds faces and tells who they are. Implementations: `offline.OfflineAnalyser`, `antelope.AntelopeAnalyser`."""

    name: str
    """The recogniser's name, as identity cards keep it: dlib or antelopev2."""
    dimension: int
    """Width of the embedding: 128 or 512."""

    def detect(self, picture: Image.Image, limit: int | None = None) -> list[Face]:
        """Faces of an RGB picture from left to right; at most the `limit` largest."""

    def embed(self, picture: Any, keypoints: np.ndarray) -> np.ndarray:
        """Embedding `(d,)` float32 of the face with keypoints `(5, 2)`."""

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Embeddings `(..., d)` as `embed` gives them, from the recogniser's own as other programs save them.

        Raises:
            RequestError: they were changed in a way that cannot be undone.
        """
