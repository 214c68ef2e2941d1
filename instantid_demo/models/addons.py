"""Where a LoRA or an embedding lies that somebody names: the user's own files, and downloaded ones."""

import re
from pathlib import Path

from instantid_demo.method import checkpoints
from instantid_demo.models import catalogue
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

SUFFIXES = (".safetensors", *checkpoints.PICKLE_SUFFIXES)
LORAS, EMBEDDINGS = "loras", "embeddings"
"""Folders for the user's own files, beside the downloaded models: `--lora name` finds `loras/name.safetensors`."""
LONGEST = 400
"""Characters of a source; file systems end sooner."""
NAMED = 6
"""Files that a sentence names before it only counts."""


def find(source: str, settings: Settings) -> Path:
    """The file of a LoRA.

    Args:
        source: a path; a catalogue name or downloaded hub id, with `/file.safetensors` where it holds several; or the
            name of a file in the models folder's `loras`.
        settings: where the models lie.

    Raises:
        RequestError: it is not here, or a repository holds several; the message names them.
    """
    source = source.strip()
    shown = source if len(source) <= 80 else f"{source[:80]}…"
    if _is_a_name(source):
        path = Path.home() / source[2:] if source.startswith("~/") else Path(source)
        if (path.suffix or path.name != source) and path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise RequestError(f"{path.name!r} is no LoRA file: choose a .safetensors file, or a .pt or .bin one.")
            return path
        if path.is_dir() and (path.is_absolute() or source.startswith(".")):
            return _chosen(path, "", shown, deep=False)
        repository, inner = split(source)
        folder = catalogue.local(repository, settings)
        if folder is not None:
            return _chosen(folder, inner, repository)
        own = _own(source, settings)
        if own is not None:
            return own
        is_repository = catalogue.knows(repository) or re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
        if is_repository and (inner or path.suffix.lower() not in SUFFIXES):
            raise RequestError(
                f"The LoRA {shown} is not here: run `python -m instantid_demo download {repository}` first."
            )
    raise RequestError(
        f"There is no LoRA {Path(shown).name or 'without a name'} here: give a file, a downloaded hub id, or the name "
        f"of a file in the models folder's {LORAS}."
    )


def named(name: str, settings: Settings) -> str | None:
    """The source that a bare name stands for, as texts of other tools give it; None where no such LoRA is here.

    A path never counts: a text must not name files to open. On a host for strangers only the catalogue counts.
    """
    name = name.strip()
    if catalogue.knows(name):
        return name if catalogue.local(name, settings) is not None else None
    bare = re.split(r"[/\\]", name)[-1]
    return None if settings.hosted or not _is_a_name(bare) or _own(bare, settings) is None else bare


def _is_a_name(source: str) -> bool:
    """Whether a file system can have a file of this name."""
    parts = re.split(r"[/\\]", source)
    return bool(source) and "\0" not in source and len(source) <= LONGEST and all(len(p.encode()) < 256 for p in parts)


def split(source: str) -> tuple[str, str]:
    """A repository (catalogue name or hub id), and what is wanted in it."""
    head, _, rest = source.partition("/")
    if catalogue.knows(head):
        return head, rest
    parts = source.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def _chosen(folder: Path, wanted: str, name: str, *, deep: bool = True) -> Path:
    """The only file of a folder, or the one that is wanted."""
    files = _files(folder, deep=deep)
    if wanted:
        for file in files:
            inner = file.relative_to(folder)
            if wanted.lower() in {str(name).lower() for name in (inner.as_posix(), inner.with_suffix(""), inner.name)}:
                return file
    elif len(files) == 1:
        return files[0]
    if not files:
        raise RequestError(f"{name} holds no LoRA: choose another one.")
    names = ", ".join(file.relative_to(folder).as_posix() for file in files[:NAMED])
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    first = files[0].relative_to(folder).as_posix()
    raise RequestError(
        f"{name} holds {len(files)} files: {names}{more}. Name the one that you want, as in {name}/{first}."
    )


def _files(folder: Path, *, deep: bool = True) -> list[Path]:
    """Model files in a folder, each once: a safe format before a pickle of the same name."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*") if deep else folder.glob("*")):
        inner = file.relative_to(folder)
        if file.suffix.lower() in SUFFIXES and file.is_file() and not any(p.startswith(".") for p in inner.parts):
            key = inner.with_suffix("").as_posix()
            if key not in found or file.suffix.lower() == ".safetensors":
                found[key] = file
    return list(found.values())


def _own(name: str, settings: Settings) -> Path | None:
    """A file by its bare name among the user's own and then the downloaded ones."""
    if not settings.models.is_dir():
        return None
    wanted = _spelled(name)
    own = settings.models / LORAS
    for folder in (own, *(mark.parent for mark in sorted(settings.models.glob("*/.complete")))):
        # What lies deeper in a downloaded folder is a base model's.
        for file in _files(folder, deep=folder == own) if folder.is_dir() else ():
            if wanted in (_spelled(file.name), _spelled(file.stem)):
                return file
    return None


def _spelled(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.lower())


def embeddings(models: Path) -> dict[str, Path]:
    """The embeddings that are here, by their names in lower case."""
    folder = models / EMBEDDINGS
    files = sorted(folder.rglob("*")) if folder.is_dir() else []
    return {file.stem.lower(): file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()}


def plain_name(name: str) -> str:
    """A name as texts write it, without a folder and an ending, in lower case."""
    bare = re.split(r"[/\\]", name)[-1].lower()
    return bare.rpartition(".")[0] if bare.endswith(SUFFIXES) else bare
