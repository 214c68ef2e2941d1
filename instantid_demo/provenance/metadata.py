"""Settings inside the picture: the `parameters` text that AUTOMATIC1111 began and other tools read.

A last line of our own (`InstantID: {json}`) restores the request. Paths, photos and embeddings never get in.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from instantid_demo import __version__
from instantid_demo.faces.photo import open_photo
from instantid_demo.request import GenerationRequest, PictureFormat, RequestError, Result, extra

MOST_CHARACTERS = 20_000
_OURS = "InstantID: "
_COMMENT = 0x9286
"""EXIF UserComment."""
_UNICODE = b"UNICODE\0"
_LINE = re.compile(r"(\w[\w ]*): ([^,]+)(?:, |$)")
_NEVER_RESTORED = {"consent", "person", "control"}
"""A confirmation is not inherited, and a text must not name files to open."""
_THEIRS = {"Steps": "steps", "CFG scale": "guidance", "Seed": "seed"}


def parameters_text(result: Result, index: int, prompt: bool = True) -> str:
    """The text of picture `index` of a result; without the prompts where the host leaves them out."""
    request = result.request
    fields = request.public() | request.arranged()
    # Settings restore the one picture they stand in.
    fields |= {"seed": result.seeds[index]}
    fields.pop("images", None)
    fields.pop("consent", None)
    words = (request.prompt.strip(), request.negative_prompt.strip()) if prompt else ("", "")
    if not prompt:
        fields = {name: value for name, value in fields.items() if not name.endswith("prompt")}
    lines = [words[0].replace("\n", " ")]
    if words[1]:
        lines.append("Negative prompt: " + words[1].replace("\n", " "))
    lines.append(
        f"Steps: {request.steps}, Sampler: {request.scheduler}, CFG scale: {request.guidance:g}, "
        f"Seed: {result.seeds[index]}, Size: {request.width}x{request.height}, "
        f"Model: {result.model_name.replace(',', ' ')}, Version: InstantID demo {__version__}"
    )
    lines.append(_OURS + json.dumps(fields, ensure_ascii=True, separators=(",", ":")))
    return "\n".join(lines)


def parse(text: str) -> dict[str, Any]:
    """Request fields that a settings text restores, ours or another tool's; {} where it holds none.

    Hostile or damaged text gives fewer fields, never an error: fields that do not fit the request are left out.
    """
    text = text[:MOST_CHARACTERS].replace("\0", "")
    if not text.strip():
        return {}
    head, found, tail = text.rpartition(_OURS)
    if found:
        try:
            fields = json.loads(tail)
        except (ValueError, RecursionError):
            fields = {}
        if isinstance(fields, dict) and fields:
            return _fitting(fields)
    return _fitting(_others(head if found else text))


def _others(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    last = next((line for line in reversed(lines) if line.startswith("Steps: ")), "")
    if not last:
        return {}
    words = "\n".join(lines[: lines.index(last)])
    prompt, _, negative = words.partition("Negative prompt: ")
    values = dict(_LINE.findall(last))
    fields: dict[str, Any] = {"prompt": prompt.strip(), "negative_prompt": negative.strip()}
    fields |= {ours: values[theirs] for theirs, ours in _THEIRS.items() if theirs in values}
    if match := re.fullmatch(r"(\d+)x(\d+)", values.get("Size", "")):
        fields |= {"width": match[1], "height": match[2]}
    return fields


def _fitting(fields: dict[str, Any]) -> dict[str, Any]:
    """Only the fields that a request takes, one by one; nothing that names a file."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in GenerationRequest.model_fields or extra(name).get("private") or name in _NEVER_RESTORED:
            continue
        try:
            GenerationRequest.model_validate({name: value})
        except ValueError:
            continue
        kept[name] = value
    return kept


def read_file(path: Path) -> dict[str, Any]:
    """Request fields in a picture file; {} where it holds none.

    Raises:
        RequestError: the file is no picture.
    """
    open_photo(path)
    with Image.open(path) as picture:
        return parse(text_of(picture))


def text_of(picture: Image.Image) -> str:
    """The settings text of an opened picture; empty where there is none."""
    text = picture.info.get("parameters", "")
    if isinstance(text, str) and text:
        return text
    comment = picture.getexif().get_ifd(0x8769).get(_COMMENT, b"")
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return ""
    return comment[len(_UNICODE) :].decode("utf-16-be", "ignore")


def encode(picture: Image.Image, kind: PictureFormat, text: str, *, faithful: bool = False) -> bytes:
    """The picture as a file's bytes with the settings text in it: PNG text, or EXIF in JPEG and WebP.

    `faithful`: as little is lost as the format allows.
    """
    buffer = io.BytesIO()
    if kind == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", text)
        picture.save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[_COMMENT] = _UNICODE + text.encode("utf-16-be")
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "jpeg" else {"quality": 95, "method": 4}
    if faithful:
        options |= {"quality": 99} if kind == "jpeg" else {"quality": 80, "lossless": True}
    picture.save(buffer, kind.upper(), exif=exif.tobytes(), **options)
    return buffer.getvalue()


def restored(path: Path) -> dict[str, Any]:
    """As `read_file`, for a user who expects settings.

    Raises:
        RequestError: the picture holds none.
    """
    fields = read_file(path)
    if not fields:
        raise RequestError(f"{Path(path).name} holds no settings: choose a picture made by this program.")
    return fields
