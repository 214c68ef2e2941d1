"""Converted networks on the disk: a folder per model, so that they can be counted, swept, declined and deleted."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from instantid_demo.settings import Settings

if TYPE_CHECKING:
    from instantid_demo.sources import Source

LEFTOVERS = ("*.float32", "*.part", "*.part.xml", "*.part.bin")
"""What a conversion that was ended leaves."""
_DECLINED = ".declined"


def root(settings: Settings) -> Path:
    """The folder of all converted networks."""
    return settings.home / "openvino"


def place(part: Path, settings: Settings) -> Path:
    """The folder for converted networks of the model that `part`, a file or folder, belongs to."""
    part, models = part.resolve(), settings.models.resolve()
    if part.is_relative_to(models) and part != models:
        return root(settings) / part.relative_to(models).parts[0]
    return root(settings) / f"{part.stem}-{hashlib.sha256(str(part).encode()).hexdigest()[:8]}"


def kept(settings: Settings) -> Iterator[tuple[str, float]]:
    """By the models' names: gigabytes of their converted networks."""
    for folder in sorted(root(settings).glob("*/")):
        if size := gigabytes(folder):
            yield folder.name, size


def gigabytes(folder: Path) -> float:
    """Of the files in a folder that may not be there."""
    total = 0
    for file in folder.glob("*"):
        with suppress(FileNotFoundError):  # renamed or removed while we looked
            total += file.stat().st_size
    return total / 1e9


def delete(name: str, settings: Settings) -> bool:
    """Removes a model's converted networks; whether there were any.

    Raises:
        OSError: something holds them open.
    """
    folder = root(settings) / name
    if folder.parent != root(settings) or name.startswith(".") or not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True


def sweep(settings: Settings) -> None:
    """Removes what ended conversions left, but not what another process is working on."""
    for folder in root(settings).glob("*/"):
        with suppress(Timeout), converting(folder, wait=False):
            for pattern in LEFTOVERS:
                for file in folder.glob(pattern):
                    with suppress(OSError):
                        file.unlink()


def places(source: "Source", settings: Settings) -> tuple[Path, Path]:
    """The folders for a base's converted networks and for its IdentityNet, which may serve many bases."""
    base = place(source.base, settings)
    own = source.identity_net.resolve().is_relative_to(source.base.resolve())
    return base, base if own else place(source.identity_net, settings)


@contextmanager
def converting(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Nobody else converts into `folder` meanwhile.

    Raises:
        Timeout: somebody does, and we do not `wait`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", timeout=-1 if wait else 0):
        yield


def declined(settings: Settings) -> bool:
    """Whether the user does not want networks to be converted."""
    return (root(settings) / _DECLINED).is_file()


def decline(settings: Settings, no: bool) -> None:
    """Remembers the user's wish.

    Raises:
        OSError: it cannot be written.
    """
    file = root(settings) / _DECLINED
    if no:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    else:
        file.unlink(missing_ok=True)
