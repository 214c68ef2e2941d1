"""The training photographs: tar shards with `labels.csv` -> arrays on disk that the stages map into memory.

Keypoints are found anew with the detector that the product itself uses on this model's photos: detectors
disagree by up to a tenth of the eye distance, and a model trained on one detector's points looks inaccurate
to another. Mirror images are looked at as well, since a detector's bias does not mirror. Where it finds nothing
near the labelled points, the labels stand.
"""

import csv
import io
import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from instantid_demo.faces.offline import OfflineAnalyser, align, embed_chips

log = logging.getLogger(__name__)

SIZE = 160
_POINTS = ("eye1", "eye2", "nose", "mouth1", "mouth2")


@dataclass(frozen=True)
class Faces:
    """Training photographs, all arrays with `n` rows.

    Attributes:
        pictures: `(n, 160, 160, 3)` uint8 RGB.
        keypoints: `(n, 2, 5, 2)` float32, pixels of the 160 picture: of the photo and of its mirror image.
        embeddings: `(n, 2, 128)` float32 unit vectors: of the photo and of its mirror image, centred.
        centre: `(128,)` float32, the mean raw embedding that was subtracted.
        sex: `n` strings, man or woman.
        age: `n` strings, such as 20-29 or 70+.
    """

    pictures: np.ndarray
    keypoints: np.ndarray
    embeddings: np.ndarray
    centre: np.ndarray
    sex: list[str]
    age: list[str]

    def __len__(self) -> int:
        return len(self.sex)


def prepare(source: Path, out: Path, centre: np.ndarray | None = None) -> Faces:
    """Reads the shards in `source` (`*.tar`, `labels.csv`) once, and from `out` afterwards.

    Args:
        source: folder of the photographs.
        out: folder for what was read.
        centre: `(128,)` raw embedding to subtract, a trained checkpoint's; None: the mean of these photographs.

    Raises:
        FileNotFoundError: `source` holds no labels or no shards.
    """
    labels = _labels(source)
    files = {name: out / f"{name}.npy" for name in ("pictures", "keypoints", "raw")}
    if not all(file.exists() for file in files.values()):
        out.mkdir(parents=True, exist_ok=True)
        pictures = _pictures(source, [row["file"] for row in labels])
        keypoints = _keypoints(pictures, labels)
        np.save(files["pictures"], pictures)
        np.save(files["keypoints"], keypoints)
        np.save(files["raw"], _embeddings(pictures, keypoints))
    raw = np.load(files["raw"])
    if centre is None:
        centre = raw.mean((0, 1))
    embeddings = raw - centre
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return Faces(
        np.load(files["pictures"], mmap_mode="r"),
        np.load(files["keypoints"]),
        embeddings.astype(np.float32),
        centre.astype(np.float32),
        [row["sex"] for row in labels],
        [row["age"] for row in labels],
    )


def mirrored(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints `(5, 2)` of the mirror image of a 160 picture."""
    swapped = keypoints[[1, 0, 2, 4, 3]].copy()
    swapped[:, 0] = SIZE - 1 - swapped[:, 0]
    return swapped


def _labels(source: Path) -> list[dict[str, str]]:
    with (source / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _pictures(source: Path, names: list[str]) -> np.ndarray:
    shards = sorted(source.glob("*.tar"))
    if not shards:
        raise FileNotFoundError(f"No *.tar shards in {source}.")
    at = {name: index for index, name in enumerate(names)}
    pictures = np.zeros((len(names), SIZE, SIZE, 3), np.uint8)
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.isfile() and (name := Path(member.name).name) in at:
                    content = tar.extractfile(member)
                    assert content is not None
                    picture = Image.open(io.BytesIO(content.read())).convert("RGB").resize((SIZE, SIZE))
                    pictures[at[name]] = np.asarray(picture)
    return pictures


def _keypoints(pictures: np.ndarray, labels: list[dict[str, str]]) -> np.ndarray:
    analyser = OfflineAnalyser()
    result, kept = np.zeros((len(labels), 2, 5, 2), np.float32), 0
    for index, row in enumerate(labels):
        labelled = np.array([[float(row[f"{p}_x"]), float(row[f"{p}_y"])] for p in _POINTS], np.float32)
        for view, (picture, points) in enumerate(views(pictures[index], np.stack([labelled, mirrored(labelled)]))):
            near = [
                found
                for found in analyser.locate(picture)
                if np.linalg.norm(found - points, axis=1).mean() < 0.06 * SIZE
            ]
            result[index, view] = near[0] if near else points
            kept += not near
    log.info("keypoints found anew in all but %d of %d pictures", kept, 2 * len(labels))
    return result


def views(picture: np.ndarray, keypoints: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The photo and its mirror image, each with its keypoints; `keypoints` is `(2, 5, 2)`."""
    return [(picture, keypoints[0]), (np.ascontiguousarray(picture[:, ::-1]), keypoints[1])]


def _embeddings(pictures: np.ndarray, keypoints: np.ndarray, batch: int = 64) -> np.ndarray:
    raw = np.zeros((len(pictures), 2, 128), np.float32)
    for start in range(0, len(pictures), batch):
        rows = range(start, min(start + batch, len(pictures)))
        chips = [align(*view) for row in rows for view in views(pictures[row], keypoints[row])]
        raw[rows.start : rows.stop] = embed_chips(np.stack(chips)).reshape(len(rows), 2, 128)
        if start % (batch * 20) == 0:
            log.info("embedded %d of %d", start, len(pictures))
    return raw
