"""A second face recogniser that did not condition the model: a judge with no stake in the case.

Pocket is conditioned on dlib's embedding; any ArcFace-like ONNX file on disk judges it (insightface's packs, or
a file given by hand). SDXL is conditioned on antelopev2; dlib, which comes with the program, judges that.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

_NAMES = ("w600k_r50.onnx", "glintr100.onnx", "w600k_mbf.onnx")


class Embedder(Protocol):
    """Makes a comparable vector of a face."""

    name: str

    def embed(self, picture: Image.Image, keypoints: np.ndarray) -> np.ndarray:
        """Embedding `(d,)` of the face with these keypoints `(5, 2)` in an RGB picture."""
        ...


class ArcFaceFile:
    """A recogniser in one ONNX file that takes 112×112 faces, aligned as insightface does."""

    def __init__(self, file: Path) -> None:
        """Reads the file.

        Raises:
            RequestError: it is not such a recogniser.
        """
        import onnxruntime
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX

        from instantid_demo.faces.antelope import providers

        try:
            self._net = ArcFaceONNX(str(file), onnxruntime.InferenceSession(str(file), providers=providers()))
        except Exception as error:  # onnx and onnxruntime raise their own kinds, without a common base
            raise RequestError(
                f"{file.name} is not a face recogniser in ONNX: give --embedder an ArcFace .onnx file."
            ) from error
        if self._net.input_size != (112, 112):
            raise RequestError(f"{file.name} does not take faces of 112 by 112 pixels: give another --embedder.")
        self.name = file.stem

    def embed(self, picture: Image.Image, keypoints: np.ndarray) -> np.ndarray:
        """Embedding `(d,)`, not normalised."""
        from insightface.utils.face_align import norm_crop

        pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])
        chip = norm_crop(pixels, landmark=np.asarray(keypoints, np.float32), image_size=112)
        return self._net.get_feat(chip)[0]


def independent(recogniser: str, settings: Settings, file: Path | None = None) -> Embedder | None:
    """A recogniser other than the one that conditions the model, or None where none is here.

    Args:
        recogniser: The model's own: dlib or antelopev2.
        settings: Where downloaded models lie.
        file: An ArcFace-like `.onnx` file given by hand.

    Raises:
        RequestError: the given file is missing or no recogniser.
    """
    if file is not None:
        if not file.is_file():
            raise RequestError(f"There is no file {file}: check the name after --embedder.")
        return ArcFaceFile(file)
    if recogniser != "dlib":
        from instantid_demo.faces.offline import OfflineAnalyser

        return OfflineAnalyser.of(settings.pocket / "face_centre.npy")
    found = next(_on_disk((settings.models, Path.home() / ".insightface" / "models")), None)
    return None if found is None else ArcFaceFile(found)


def _on_disk(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for name in _NAMES:
            yield from sorted(folder.rglob(name))
