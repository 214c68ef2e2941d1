"""Fetching models: asked for by name, looked at before the bytes come, complete and unharmed or not there at all."""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from instantid_demo import ticker
from instantid_demo.backends import converted
from instantid_demo.models import catalogue
from instantid_demo.models.catalogue import Entry
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

if TYPE_CHECKING:
    from instantid_demo.models import hub

SPARE = 1_000_000_000
"""Bytes that stay free."""
GIGABYTE = 1e9
COMPLETE = ".complete"
"""The file that marks a folder in which everything is; it holds the repository's name and commit."""
_OWN = "see the model's page"
_HEADER = 8
"""Bytes that say how long a .safetensors file's header is."""
_MOST_HEADER = 100_000_000

Told = Callable[[int, int], None]
"""Hears how many bytes are here and how many there will be."""


@dataclass(frozen=True)
class Plan:
    """What a download will bring."""

    entry: Entry
    found: "hub.Listing"
    files: tuple["hub.File", ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.size for file in self.files)

    @property
    def licence(self) -> str:
        """As the catalogue knows it, or else as the repository's card says."""
        return self.found.licence if self.entry.licence == _OWN and self.found.licence else self.entry.licence


def plan(entry: Entry) -> Plan:
    """Asks the hub what a model consists of, and what kind a stranger's is; none of its weights come yet.

    Raises:
        RequestError: the hub cannot be asked, the repository lacks what is needed, or holds no model for this program.
    """
    from instantid_demo.models import hub

    found = hub.listing(entry.repository, entry.revision)
    names = [file.path for file in found.files]
    known = catalogue.knows(entry.name)
    patterns = entry.files or (lightest(names) if known else _chosen(entry.repository, names))
    missing = [pattern for pattern in patterns if not any(_matches(name, pattern) for name in names)]
    if missing:
        raise RequestError(f"{entry.repository} lacks {', '.join(missing)}: it has changed; choose another model.")
    files = tuple(file for file in found.files if any(_matches(file.path, pattern) for pattern in patterns))
    if not known:
        _require_kind(found, files)
    return Plan(entry, found, files)


def fetch(entry: Entry, models: Path, told: Told = lambda done, total: None, planned: Plan | None = None) -> Path:
    """Downloads a model into its folder; what a stopped download left is gone on with.

    Args:
        entry: of the catalogue, or `wanted`.
        models: the folder of all models.
        told: hears the progress in bytes.
        planned: what `plan` said, where it has been asked already.

    Returns:
        Its folder, in which every wanted file has the hub's size and checksum.

    Raises:
        RequestError: no room, no network, no permission, damaged, being fetched already; the message says what to do.
    """
    from instantid_demo.models import hub

    folder = catalogue.folder_of(entry.name, models)
    if _is_whole(entry, folder):
        return folder
    planned = planned or plan(entry)
    try:
        with _alone(folder, entry.label):
            folder.mkdir(exist_ok=True)
            _sweep(folder, planned.files)
            missing = [file for file in planned.files if not _is_here(folder / file.path, file)]
            done = planned.size - sum(file.size for file in missing)
            parts = (hub.part_of(file, folder) for file in missing)
            done += sum(part.stat().st_size for part in parts if part.is_file())
            _require_room(entry.label, planned.size - done, folder)

            def count(more: int) -> None:
                nonlocal done
                done += more
                told(done, planned.size)

            count(0)
            for file in missing:
                hub.fetch(planned.found, file, folder, count)
            (folder / COMPLETE).write_text(f"{planned.found.repository} {planned.found.commit}\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{entry.label} could not be written to {folder}: {error.strerror or error}.") from error
    return folder


def lightest(files: Sequence[str]) -> list[str]:
    """Of a repository's files those that loading needs: safe formats, half precision where there is a choice.

    Many repositories hold the same weights up to five times: two precisions, two formats, and once more as one file.
    """
    small = [name for name in files if name.endswith((".json", ".txt", ".model"))]
    weights = [name for name in files if name.endswith(".safetensors") and "non_ema" not in name]
    if "model_index.json" in files:
        weights = [name for name in weights if "/" in name]
    halved = {name.rpartition("/")[0] for name in weights if ".fp16" in name}
    return small + [name for name in weights if ".fp16" in name or name.rpartition("/")[0] not in halved]


def present(settings: Settings) -> Iterator[tuple[str, float]]:
    """Complete models on disk: their folder's name and size in gigabytes."""
    for mark in sorted(settings.models.glob(f"*/{COMPLETE}")):
        yield mark.parent.name, gigabytes(mark.parent)


def unfinished(settings: Settings) -> Iterator[tuple[str, float]]:
    """What stopped downloads left: their folder's name and size in gigabytes."""
    for folder in sorted(settings.models.glob("*/")):
        size = gigabytes(folder)
        if size and not (folder / COMPLETE).is_file() and any(folder.rglob("*.part")):
            yield folder.name, size


def gigabytes(folder: Path) -> float:
    """Of all files in a folder."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue  # renamed while we looked
    return total / GIGABYTE


def delete(name: str, settings: Settings) -> None:
    """Removes a model from disk, an unfinished one too, with the copies that were converted of it.

    Raises:
        RequestError: it is not here, is being fetched, or something holds its files open.
    """
    folder = catalogue.folder_of(name, settings.models)
    inside = folder.parent.resolve() == settings.models.resolve() and not name.startswith(".")
    try:
        if not inside or not folder.is_dir():
            if inside and converted.delete(folder.name, settings):
                return
            raise RequestError(f"The model {name[:80]} is not here.")
        with _alone(folder, name):
            (folder / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(folder)
            converted.delete(folder.name, settings)
    except OSError as error:
        raise RequestError(
            f"{name} could not be removed from {folder} ({error.strerror or error}): end what uses it, then try again."
        ) from error


def wanted(name: str) -> Entry:
    """A catalogue entry; or one made for any hub id, or for one file of it (`owner/name/file.safetensors`).

    Raises:
        RequestError: neither.
    """
    if catalogue.knows(name) or "/" not in name:
        return catalogue.entry(name)
    parts = name.split("/")
    repository, rest = "/".join(parts[:2]), parts[2:]
    folder = catalogue.entry(repository).name if catalogue.knows(repository) else repository.replace("/", "--")
    return Entry(
        name=folder,
        label=name,
        kind="base",
        repository=repository,
        files=("/".join(rest),) if rest else (),
        gigabytes=0,
        licence=_OWN,
        about="Brought along by you.",
    )


def main(argv: list[str]) -> int:
    """`download [NAME…]`; without a name it lists the catalogue."""
    from instantid_demo import flags, quiet

    parser: argparse.ArgumentParser = flags.Parser("instantid_demo download", description="Fetch models by name.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="from the list, a hub id, or one file of it: owner/name/file.safetensors",
    )
    parser.add_argument("--delete", action="store_true", help="remove them from disk instead")
    given = parser.parse_args(argv)
    settings = Settings()
    if not given.names:
        _list(settings)
        return 0
    if given.delete:
        for name in given.names:
            delete(wanted(name).name if "/" in name else name, settings)
            print(f"{name} was removed.")
        return 0
    if settings.offline:
        raise RequestError("Downloads are switched off here: unset INSTANTID_OFFLINE first.")
    quiet.hub()
    for name in given.names:
        _download(wanted(name), settings)
    return 0


def _download(entry: Entry, settings: Settings) -> None:
    """One model, with its progress on the terminal."""
    folder = catalogue.folder_of(entry.name, settings.models)
    if not _is_whole(entry, folder):
        planned = plan(entry)
        print(f"Fetching {entry.label} ({planned.size / GIGABYTE:.2f} GB). Licence: {planned.licence}.", flush=True)
        line = ticker.Line(sys.stderr)
        try:
            fetch(entry, settings.models, _Rate(line), planned)
        except KeyboardInterrupt:
            raise RequestError("Stopped: the same command goes on from here.") from None
        finally:
            line.end()
    print(f"{entry.label} is in {folder}.", flush=True)


class _Rate:
    """Bytes so far as a line for the terminal."""

    def __init__(self, line: ticker.Line) -> None:
        self._line, self._start, self._first = line, time.monotonic(), -1

    def __call__(self, done: int, total: int) -> None:
        if self._first < 0:
            self._first = done
        seconds = time.monotonic() - self._start
        speed = max(0, done - self._first) / seconds if seconds > 0 else 0.0
        left = f", {ticker.left((total - done) / speed)}" if speed and done < total else ""
        self._line.tell(f"{done / GIGABYTE:.2f} of {total / GIGABYTE:.2f} GB, {speed / 1e6:.0f} MB/s{left}")


def _list(settings: Settings) -> None:
    here, begun = dict(present(settings)), dict(unfinished(settings))
    for entry in catalogue.ENTRIES:
        state = "here" if entry.name in here else "begun" if entry.name in begun else f"{entry.gigabytes:g} GB"
        print(f"{entry.name:14} {state:>7}  {entry.label}: {entry.about} Licence: {entry.licence}.")
    for name, size in converted.kept(settings):
        print(f"{name:14} {'here':>7}  {size:.2f} GB converted for this processor; deleted with it.")
    for name, size in (here | begun).items():
        if not catalogue.knows(name):
            print(f"{name:14} {'here' if name in here else 'begun':>7}  {size:.2f} GB, brought along by you.")


def _chosen(repository: str, names: Sequence[str]) -> tuple[str, ...]:
    """Which files of a repository that the catalogue does not know: a folder's lightest set, or its one file.

    Raises:
        RequestError: it holds no weights, or several models.
    """
    if "model_index.json" in names:
        return tuple(lightest(names))
    weights = [name for name in names if name.lower().endswith(".safetensors")]
    weights = weights or [name for name in names if name.lower().endswith((".pt", ".bin", ".pth", ".ckpt"))]
    if "config.json" in names:
        usual = [name for name in weights if _USUAL.fullmatch(name)]
        halved = [name for name in usual if ".fp16" in name]
        if chosen := halved or usual:
            return (*(name for name in names if name.endswith(".json")), *chosen)
    if not weights:
        raise RequestError(f"{repository} holds no weights that this program can read: choose another model.")
    if len(weights) > 1:
        some = ", ".join(weights[:8]) + (" and more" if len(weights) > 8 else "")
        raise RequestError(
            f"{repository} holds several files ({some}): name the one that you want, as {repository}/{weights[0]}."
        )
    return (weights[0],)


_USUAL = re.compile(r"(diffusion_pytorch_model|model)(\.fp16)?(-\d+-of-\d+)?\.safetensors")
"""A network's weights as diffusers and transformers name them."""


def _require_kind(found: "hub.Listing", files: Sequence["hub.File"]) -> None:
    """Refuses a stranger's repository by its index, config or the header of its one file, before its weights come."""
    from instantid_demo.method import checkpoints
    from instantid_demo.models import hub

    index = next((file for file in files if file.path == "model_index.json"), None)
    config = next((file for file in files if file.path == "config.json"), None)
    weights = next((file for file in files if file.path.lower().endswith(".safetensors")), None)
    if index:
        kind = _class_name(hub.beginning(found, index, index.size), found.repository)
        if not kind.startswith("StableDiffusionXL"):
            raise RequestError(
                f"{found.repository} is a {kind.removesuffix('Pipeline') or 'model of an unknown kind'}, and InstantID "
                "is for SDXL: choose another base model."
            )
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / found.repository.rpartition("/")[2]
        folder.mkdir()
        if config:
            (folder / "config.json").write_bytes(hub.beginning(found, config, config.size))
            checkpoints.inspect(folder)
        elif weights and weights.size > _HEADER:
            length = int.from_bytes(hub.beginning(found, weights, _HEADER), "little")
            if length > min(weights.size, _MOST_HEADER):
                raise RequestError(f"{found.repository} holds a file that is no .safetensors file: choose another.")
            # The size of the whole with nothing behind the header: enough to tell what it is.
            stand_in = folder / weights.path.rpartition("/")[2]
            stand_in.write_bytes(hub.beginning(found, weights, _HEADER + length))
            with stand_in.open("r+b") as file:
                file.truncate(weights.size)
            checkpoints.inspect(stand_in)


def _class_name(content: bytes, name: str) -> str:
    try:
        return str(json.loads(content)["_class_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"The model_index.json of {name} is damaged: choose another model.") from error


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _is_whole(entry: Entry, folder: Path) -> bool:
    return (folder / COMPLETE).is_file() and all(
        (folder / pattern).is_file() or any(folder.glob(pattern)) for pattern in entry.files
    )


def _is_here(path: Path, file: "hub.File") -> bool:
    """Whether a file has arrived whole and unharmed; one that has not is removed."""
    from instantid_demo.models import hub

    if not path.is_file():
        return False
    if path.stat().st_size == file.size and hub.digest(path, file) == file.digest:
        return True
    path.unlink()
    return False


def _sweep(folder: Path, files: Sequence["hub.File"]) -> None:
    """Removes parts that nothing will go on with: of other versions, and of huggingface_hub's own downloads."""
    from instantid_demo.models import hub

    parts = {hub.part_of(file, folder) for file in files}
    for part in folder.rglob("*.part"):
        if part not in parts:
            part.unlink()
    if (folder / ".cache").is_dir():
        shutil.rmtree(folder / ".cache")


def _require_room(label: str, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise RequestError(
            f"{label} needs {needed / GIGABYTE:.1f} GB more, but only {free / GIGABYTE:.1f} GB are free: make room, "
            "or set INSTANTID_HOME to another disk."
        )


@contextmanager
def _alone(folder: Path, label: str) -> Iterator[None]:
    """Nobody else writes into this folder meanwhile, in this process or another."""
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(f"{label} is being fetched already: wait until that is done.") from None
    try:
        yield
    finally:
        lock.release()
