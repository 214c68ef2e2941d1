"""Fetching models: asked for by name, resumable, checked for room first, complete or not there at all."""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from instantid_demo.models import catalogue
from instantid_demo.models.catalogue import Entry
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

SPARE = 1.0
"""Gigabytes that stay free."""


def fetch(entry: Entry, models: Path) -> Path:
    """Downloads a model into its folder; a stopped download goes on where it was.

    HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are respected by huggingface_hub, which also compares every
    file's size and hash with the hub's.

    Raises:
        RequestError: no room, no network, or no permission; the message says what to do.
    """
    import httpx2
    from huggingface_hub import errors, list_repo_files, snapshot_download

    folder = catalogue.folder_of(entry.name, models)
    if (folder / ".complete").is_file():
        return folder
    models.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(models).free / 1e9
    if free < entry.gigabytes + SPARE:
        raise RequestError(
            f"{entry.label} needs {entry.gigabytes:g} GB, but only {free:.1f} GB are free: make room, "
            "or set INSTANTID_HOME to another disk."
        )
    try:
        wanted = list(entry.files) or lightest(list_repo_files(entry.repository))
        snapshot_download(entry.repository, allow_patterns=wanted, local_dir=folder)
    except errors.GatedRepoError as error:
        raise RequestError(
            f"{entry.label} asks for your agreement: accept its terms on huggingface.co/{entry.repository}, "
            "then set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RequestError(
            f"{entry.repository} is not on the hub any more, or is private: choose another model."
        ) from error
    except (
        errors.OfflineModeIsEnabled,
        errors.LocalEntryNotFoundError,
        errors.HfHubHTTPError,
        httpx2.HTTPError,
    ) as error:
        raise RequestError(
            f"{entry.label} could not be fetched: check the network and try again; it goes on where it stopped."
        ) from error
    except OSError as error:
        raise RequestError(f"{entry.label} could not be written: {error.strerror or error}.") from error
    missing = [pattern for pattern in entry.files if not any(folder.glob(pattern))]
    if missing:
        raise RequestError(f"{entry.repository} lacks {', '.join(missing)}: it has changed; choose another model.")
    (folder / ".complete").touch()
    return folder


def lightest(files: list[str]) -> list[str]:
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
    """Models on disk: their folder's name and size in gigabytes."""
    for mark in sorted(settings.models.glob("*/.complete")):
        size = sum(file.stat().st_size for file in mark.parent.rglob("*") if file.is_file())
        yield mark.parent.name, size / 1e9


def delete(name: str, settings: Settings) -> None:
    """Removes a downloaded model from disk.

    Raises:
        RequestError: it is not here.
    """
    folder = catalogue.local(name, settings)
    if folder is None or folder.parent.resolve() != settings.models.resolve():
        raise RequestError(f"The model {name} is not here.")
    (folder / ".complete").unlink()
    shutil.rmtree(folder)


def wanted(name: str) -> Entry:
    """A catalogue entry, or one made for any hub id of a base model.

    Raises:
        RequestError: neither.
    """
    if catalogue.knows(name) or "/" not in name:
        return catalogue.entry(name)
    return Entry(
        name=name.replace("/", "--"),
        label=name,
        kind="base",
        repository=name,
        gigabytes=7.0,
        licence="see the model's page",
        about="Brought along by you.",
    )


def main(argv: list[str]) -> int:
    """`download [NAME…]`; without a name it lists the catalogue."""
    from instantid_demo import flags

    parser: argparse.ArgumentParser = flags.Parser("instantid_demo download", description="Fetch models by name.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="from the list, or a hub id of an SDXL base")
    parser.add_argument("--delete", action="store_true", help="remove them from disk instead")
    given = parser.parse_args(argv)
    settings = Settings()
    if not given.names:
        here = dict(present(settings))
        for entry in catalogue.ENTRIES:
            state = "here" if entry.name in here else f"{entry.gigabytes:g} GB"
            print(f"{entry.name:14} {state:>7}  {entry.label}: {entry.about} Licence: {entry.licence}.")
        return 0
    for name in given.names:
        if given.delete:
            delete(name, settings)
            print(f"{name} was removed.")
            continue
        if settings.offline:
            raise RequestError("Downloads are switched off here: unset INSTANTID_OFFLINE first.")
        entry = wanted(name)
        print(f"Fetching {entry.label} ({entry.gigabytes:g} GB). Licence: {entry.licence}.", flush=True)
        print(f"{entry.label} is in {fetch(entry, settings.models)}.")
    return 0
