"""Where the weight files inside installed packages lie."""

from importlib.util import find_spec
from pathlib import Path


def recognition_model_file(name: str = "dlib_face_recognition_resnet_model_v1.dat") -> Path:
    """Path of a weight file of `face-recognition-models`.

    The package is found without importing it: its `__init__` needs `pkg_resources`, which current
    setuptools no longer ship.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The package face-recognition-models is not installed: run `make setup`.")
    return Path(spec.submodule_search_locations[0]) / "models" / name
