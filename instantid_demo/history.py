"""Earlier results: the saved files themselves, newest first; each holds its own settings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from instantid_demo.request import RequestError
from instantid_demo.saving import SUFFIXES

_OURS = re.compile(r"\d{8}-\d{6}-\d{6}-\d+\.(png|jpg|webp)")


@dataclass(frozen=True)
class Entry:
    """One saved picture."""

    file: Path
    time: float
    """When it was saved, seconds since the epoch."""
    settings: dict[str, Any]
    """Request fields that its metadata restores; `prompt` among them unless the host leaves it out."""

    @property
    def prompt(self) -> str:
        """What was asked for."""
        return str(self.settings.get("prompt", ""))


class History:
    """The pictures of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self, search: str = "", most: int = 60) -> list[Entry]:
        """The newest results whose prompt or style holds all words of `search`."""
        wanted = search.lower().split()
        found = []
        for entry in self._all():
            text = f"{entry.prompt} {entry.settings.get('style', '')}".lower()
            if all(word in text for word in wanted):
                found.append(entry)
                if len(found) == most:
                    break
        return found

    def delete(self, file: Path) -> None:
        """Removes one saved picture for good.

        Raises:
            RequestError: the file is not a result of this folder.
        """
        path = Path(file).resolve()
        if path.parent != self.folder.resolve() or not _OURS.fullmatch(path.name) or not path.is_file():
            raise RequestError("That picture is not in the history any more: reload the list.")
        path.unlink()

    def _all(self) -> Iterator[Entry]:
        if not self.folder.is_dir():
            return
        files = [file for file in self.folder.iterdir() if _OURS.fullmatch(file.name) and file.suffix in SUFFIXES]
        for file in sorted(files, key=lambda path: path.name, reverse=True):
            try:
                changed = file.stat().st_mtime
            except FileNotFoundError:
                continue  # deleted since the folder was listed
            yield Entry(file, changed, dict(_settings(file, changed)))


@lru_cache(maxsize=2048)
def _settings(file: Path, changed: float) -> dict[str, Any]:
    from instantid_demo.provenance import metadata

    try:
        return metadata.read_file(file)
    except RequestError:
        return {}
