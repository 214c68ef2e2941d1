"""Settings inside the picture: the `parameters` text that AUTOMATIC1111 began and other tools read.

A last line of our own (`InstantID: {json}`) restores the request. Paths, photos and embeddings never get in.
"""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from instantid_demo import __version__
from instantid_demo.faces.photo import content, open_photo
from instantid_demo.names import holds_path
from instantid_demo.provenance import other_tools, texts
from instantid_demo.request import Control, GenerationRequest, PictureFormat, RequestError, Result, extra

_OURS = "InstantID: "
_NEVER_RESTORED = {"consent", "person", "control"}
"""A confirmation is not inherited, and a text must not name files to open."""
_MOST_EXIF = 65533
"""Bytes of EXIF that a JPEG can hold."""
_MOST_NAMED = 12
_MOST_PARTS = 16


class Restored(dict[str, Any]):
    """Request fields that a picture's settings restore, one by one; empty where it holds none."""

    def __init__(
        self, fields: Mapping[str, Any], left_out: tuple[str, ...] = (), record: Mapping[str, Any] | None = None
    ):
        super().__init__(fields)
        self.left_out = left_out
        """What the settings say besides, in a word or two each: it has no meaning here, or names files."""
        self.record = dict(record or {})
        """Extra controls, people's places and kinds of pictures of our own requests: on record, but not restorable."""

    @property
    def names(self) -> str:
        """What was left out, the first of it where there is much; empty where nothing was."""
        return ", ".join(self.left_out[:_MOST_NAMED]) + (" …" if len(self.left_out) > _MOST_NAMED else "")

    @property
    def note(self) -> str:
        """A sentence about what was left out; empty where nothing was."""
        return f"Not taken over from the picture's settings: {self.names}." if self.left_out else ""


def parameters_text(result: Result, index: int, prompt: bool = True) -> str:
    """The text of picture `index` of a result; without the prompts where the host leaves them out."""
    request = result.request
    fields = request.public() | request.arranged()
    # Settings restore the one picture they stand in.
    fields |= {"seed": result.seeds[index]}
    fields.pop("images", None)
    fields.pop("consent", None)
    words = (request.prompt, request.negative_prompt) if prompt else ("", "")
    if not prompt:
        fields = {name: value for name, value in fields.items() if not name.endswith("prompt")}
    lines = [_one_line(words[0])]
    if negative := _one_line(words[1]):
        lines.append(f"Negative prompt: {negative}")
    lines.append(
        f"Steps: {request.steps}, Sampler: {request.scheduler}, CFG scale: {request.guidance:g}, "
        f"Seed: {result.seeds[index]}, Size: {request.width}x{request.height}, "
        f"Model: {_quoted(_one_line(result.model_name))}, Version: InstantID demo {__version__}"
    )
    lines.append(_OURS + json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
    return "\n".join(lines)


def _one_line(words: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe]+", " ", words).strip()


def _quoted(value: str) -> str:
    """As AUTOMATIC1111 writes a value that holds its own separators."""
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\[{]', value) else value


def parse(text: str) -> Restored:
    """Request fields that a settings text restores, ours or another tool's; empty where it holds none.

    Hostile or damaged text gives fewer fields, never an error: fields that do not fit the request are left out.
    """
    return of_texts({"parameters": text[: texts.MOST_CHARACTERS].replace("\0", "")})


def read(data: bytes) -> Restored:
    """As `parse`, of the texts in a picture file; empty where it is no picture."""
    return of_texts(texts.of_file(data))


def of_texts(found: Mapping[str, str]) -> Restored:
    """As `parse`, of texts by the name of the PNG chunk or EXIF tag that they stand in."""
    for text in found.values():
        fields = _ours(text)
        if fields:
            record = _record(fields)
            kept, dropped = _fitting(fields)
            took_part = [name for name in ("control", "person") if name in record] + record.get("pictures", [])
            titles = [str(GenerationRequest.model_fields[name].title).lower() for name in took_part]
            return Restored(kept, (*dropped, *titles), record)
    theirs = other_tools.read(found)
    if theirs is None:
        return Restored({})
    kept, dropped = _fitting(theirs.fields)
    unfit = {name: theirs.fields[name] for name in dropped if name not in ("prompt", "negative_prompt")}
    too_long = [name for name in dropped if name not in unfit]
    request = GenerationRequest.model_validate(kept)
    values = {name: getattr(request, name) for name in kept}
    return Restored(values, (*too_long, *other_tools.named(unfit), *other_tools.named(theirs.rest)))


def _ours(text: str) -> dict[str, Any]:
    """The JSON of our last line; {} where there is none.

    It stands below the line that other tools read: above that our own words are somebody's prompt.
    """
    for line in reversed(text.split("\n")):
        if line.startswith(_OURS + "{"):
            try:
                fields = json.loads(line.removeprefix(_OURS))
            except (ValueError, RecursionError):
                return {}
            return fields if isinstance(fields, dict) else {}
        if "Steps: " in line:
            break
    return {}


def _fitting(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Only the fields that a request takes, one by one and together, and nothing that names a file; and the others."""
    kept: dict[str, Any] = {}
    dropped = []
    for name, value in fields.items():
        if name not in GenerationRequest.model_fields or extra(name).get("private") or name in _NEVER_RESTORED:
            continue
        try:
            GenerationRequest.model_validate({**kept, name: value})
        except ValueError:
            dropped.append(name)
            continue
        if extra(name)["group"] != "words" and holds_path(value):
            dropped.append(name)
        else:
            kept[name] = value
    return kept, dropped


def _record(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What `GenerationRequest.arranged` wrote, as far as it still has that form; what else stands there is nothing."""

    def listed(name: str) -> list[Any]:
        return fields[name][:_MOST_PARTS] if isinstance(fields.get(name), list) else []

    controls = []
    for entry in listed("control"):
        try:
            control = Control.model_validate({**entry, "image": "map"})
        except (ValueError, TypeError):
            continue
        controls.append(control.model_dump(mode="json", exclude={"image"}, exclude_defaults=True))
    people = [entry for entry in listed("person") if isinstance(entry, dict)]
    known = [name for name in GenerationRequest.model_fields if extra(name).get("private") and name != "face"]
    record = {"control": controls, "person": people, "pictures": [name for name in known if name in listed("pictures")]}
    return {name: parts for name, parts in record.items() if parts}


def read_file(path: Path) -> Restored:
    """Request fields in a picture file; empty where it holds none.

    Raises:
        RequestError: the file is no picture.
    """
    try:
        found = read(content(Path(path)))
    except RequestError:
        found = read(b"")
    if not found:
        open_photo(path)  # says what is wrong with the file, if anything is
    return found


def restored(path: Path) -> Restored:
    """As `read_file`, for a user who expects settings.

    Raises:
        RequestError: the picture holds none.
    """
    found = read_file(path)
    if not found:
        raise RequestError(f"{Path(path).name} holds no settings: choose a picture that still has them.")
    return found


def encode(picture: Image.Image, kind: PictureFormat, text: str, *, faithful: bool = False) -> bytes:
    """The picture as a file's bytes with the settings text in it: PNG text, or EXIF in JPEG and WebP.

    `faithful`: as little of the picture is lost as the format allows.

    EXIF has little room. Where the text is longer than that, the prompts stand in it once instead of twice, and at
    last not at all: a picture is never lost for its settings.
    """
    text = text.encode("utf-8", "replace").decode()
    buffer = io.BytesIO()
    if kind == "png":
        info = PngImagePlugin.PngInfo()
        if text.isascii():
            info.add_text("parameters", text)
        else:
            info.add_itxt("parameters", text)
        picture.save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "jpeg" else {"quality": 95, "method": 4}
    if faithful:
        options |= {"quality": 99} if kind == "jpeg" else {"quality": 80, "lossless": True}
    picture.save(buffer, kind.upper(), exif=_exif(text), **options)
    return buffer.getvalue()


def _exif(text: str) -> bytes:
    """EXIF with the text as a comment, as much of it as there is room for."""
    *_, line, ours = ("\n" + text).split("\n")
    once = f"{line}\n{ours}"
    wide = [texts.UNICODE + words.encode("utf-16-be") for words in (text, once)]
    for comment in (*wide, texts.UNKNOWN + once.encode(), texts.UNICODE + line.encode("utf-16-be"), b""):
        exif = Image.Exif()
        exif.get_ifd(texts.EXIF)[texts.COMMENT] = comment
        if len(written := exif.tobytes()) <= _MOST_EXIF:
            return written
    raise AssertionError("an empty comment has room")
