"""Training photographs of any number: WebDataset-style tar shards, or a folder with `metadata.csv`.

A shard holds `KEY.jpg` (or png, webp) and `KEY.json` with `caption` and `identity` (or `KEY.txt` with the caption).
A folder's `metadata.csv` has the columns `file_name`, `caption` (or `text`) and `identity`. Photos that name the same
identity show the same person; without a name every photo is a person of its own. Shards are read at any position, not
in sequence, so that a run goes on exactly where it was stopped.
"""

import csv
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from instantid_demo.faces.photo import open_photo
from instantid_demo.request import RequestError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Photograph:
    """One photograph: where its bytes lie, and what is known of it."""

    key: str
    caption: str
    identity: str
    file: Path
    offset: int = 0
    size: int = -1
    """Bytes from `offset` on; -1: the whole file."""

    def read(self) -> bytes:
        """The encoded picture."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def picture(self) -> Image.Image:
        """The picture, upright RGB."""
        return open_photo(self.read())


def photographs(source: Path) -> list[Photograph]:
    """All photographs of a folder: its `*.tar` shards, or the rows of its `metadata.csv`, or simply its pictures.

    Raises:
        RequestError: there is nothing of the kind.
    """
    if not source.is_dir():
        raise RequestError(f"There is no folder {source}: give --data a folder of shards or photographs.")
    shards = sorted(source.glob("*.tar"))
    if shards:
        found = [photo for shard in shards for photo in _in_shard(shard)]
    elif (source / "metadata.csv").is_file():
        found = _in_table(source)
    else:
        files = sorted(file for file in source.rglob("*") if file.suffix.lower() in SUFFIXES)
        found = [Photograph(str(file.relative_to(source)), "", str(file.relative_to(source)), file) for file in files]
    if not found:
        raise RequestError(f"{source} holds no photographs: it needs *.tar shards, metadata.csv or pictures.")
    return found


def write_shards(photos: Iterable[Photograph], out: Path, per_shard: int = 1000) -> list[Path]:
    """Packs photographs into `shard-00000.tar`, `shard-00001.tar`, … of `per_shard` each."""
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    tar: tarfile.TarFile | None = None
    try:
        for number, photo in enumerate(photos):
            if tar is None or number % per_shard == 0:
                if tar is not None:
                    tar.close()
                written.append(out / f"shard-{len(written):05d}.tar")
                tar = tarfile.open(written[-1], "w")  # noqa: SIM115 - closed below, one shard after the other
            picture = photo.read()
            words = json.dumps({"caption": photo.caption, "identity": photo.identity}).encode()
            kind = (Image.open(io.BytesIO(picture)).format or "jpeg").lower().replace("jpeg", "jpg")
            for name, content in ((f"{number:08d}.{kind}", picture), (f"{number:08d}.json", words)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    finally:
        if tar is not None:
            tar.close()
    return written


def _in_shard(shard: Path) -> list[Photograph]:
    pictures: dict[str, tarfile.TarInfo] = {}
    words: dict[str, dict[str, str]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                key, dot, kind = member.name.partition(".")
                if not member.isfile():
                    continue
                if f"{dot}{kind}".lower() in SUFFIXES:
                    pictures[key] = member
                elif kind in ("json", "txt"):
                    content = tar.extractfile(member)
                    assert content is not None
                    text = content.read().decode("utf-8")
                    words[key] = json.loads(text) if kind == "json" else {"caption": text.strip()}
    except (tarfile.TarError, ValueError) as error:
        raise RequestError(f"The shard {shard.name} cannot be read: pack it anew, uncompressed.") from error
    found = []
    for key, member in pictures.items():
        known, unique = words.get(key, {}), f"{shard.name}/{key}"
        caption, identity = str(known.get("caption", "")), str(known.get("identity") or unique)
        found.append(Photograph(unique, caption, identity, shard, member.offset_data, member.size))
    return found


def _in_table(source: Path) -> list[Photograph]:
    with (source / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and "file_name" not in rows[0]:
        raise RequestError("metadata.csv needs the columns file_name, caption and identity.")
    found = []
    for row in rows:
        name = row["file_name"]
        if not (source / name).is_file():
            raise RequestError(f"metadata.csv names {name}, but there is no such file.")
        caption = row.get("caption") or row.get("text") or ""
        found.append(Photograph(name, caption, row.get("identity") or name, source / name))
    return found
