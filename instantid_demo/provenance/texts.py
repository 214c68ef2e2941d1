"""The texts inside a picture file: PNG's chunks, and EXIF's comments in whatever encoding a tool wrote them."""

import codecs
import contextlib
import io
import warnings
from typing import Any

from PIL import Image

from instantid_demo.faces.photo import MAX_BYTES, MAX_PIXELS

MOST_CHARACTERS = 2**20
"""Of one text; a large ComfyUI workflow is about a tenth of it."""
MOST_TEXTS = 64
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
"""Files that carry settings."""
COMMENT = 0x9286
"""EXIF UserComment."""
EXIF = 0x8769
"""EXIF's own directory."""
UNICODE, UNKNOWN = b"UNICODE\0", bytes(8)
_PREFIXES = {UNICODE: "", UNKNOWN: "", b"ASCII\0\0\0": "", b"JIS\0\0\0\0\0": "iso2022_jp"}
_TAGS = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software", 0x9C9C: "XPComment"}
_MARKS = ("Steps: ", '": ', '":', ": ")
"""Some of these stand in every settings text, and in none that was read in the wrong byte order."""


def of_file(data: bytes) -> dict[str, str]:
    """The texts of a picture file by the name of their chunk or tag; {} where it has none or is no such picture.

    Pixels are decoded only where a PNG has texts behind them.
    """
    if len(data) > MAX_BYTES:
        return {}
    # What is damaged has no settings; Pillow's readers of metadata warn of it and raise errors of every kind.
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.suppress(Exception),
        Image.open(io.BytesIO(data), formats=FORMATS) as picture,
    ):
        tail = data[data.rfind(b"IDAT") :] if picture.format == "PNG" else b""
        late = any(kind in tail for kind in (b"tEXt", b"iTXt", b"zTXt"))
        if late and picture.width * picture.height <= MAX_PIXELS:
            with contextlib.suppress(Exception):
                picture.load()
        return _of_picture(picture)
    return {}


def _of_picture(picture: Image.Image) -> dict[str, str]:
    found: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if type(value) is str:
            # Pillow takes what is not marked as UTF-8 for Latin-1; tools write UTF-8 all the same.
            with contextlib.suppress(UnicodeError):
                value = value.encode("latin-1")
        if isinstance(value, bytes):
            value = decoded(value)
        if isinstance(value, str) and value.strip() and len(found) < MOST_TEXTS:
            found.setdefault(name, value[:MOST_CHARACTERS].replace("\0", ""))

    for name, value in picture.info.items():
        if name not in ("exif", "icc_profile", "xmp"):
            add(str(name), value)
    if picture.format == "PNG" and "exif" not in picture.info:
        return found  # Pillow would decode the pixels to look for it behind them
    with contextlib.suppress(Exception):
        exif = picture.getexif()
        for tag, name in _TAGS.items():
            add(name, exif.get(tag))
        add("UserComment", exif.get_ifd(EXIF).get(COMMENT))
    return found


def decoded(comment: bytes) -> str:
    """The text of an EXIF comment: with the standard's eight letters before it or without, in any usual encoding.

    Tools write UTF-16 in both byte orders, with and without a mark of the order, and UTF-8, under any prefix.
    """
    prefix = next((known for known in _PREFIXES if comment[:8].upper() == known), b"")
    text = comment[len(prefix) :]
    if text.startswith(codecs.BOM_UTF8):
        return text.decode("utf-8-sig", "ignore")
    if text.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
        return text[: len(text) // 2 * 2].decode("utf-16", "ignore")
    if b"\0" in text.strip(b"\0"):
        even = text[: len(text) // 2 * 2]
        orders = [even.decode(order, "ignore") for order in ("utf-16-be", "utf-16-le")]
        return max(orders, key=_plausible).rstrip("\0")
    text = text.strip(b"\0")
    for encoding in filter(None, (_PREFIXES.get(prefix), "utf-8", "cp932" if prefix.startswith(b"JIS") else "")):
        with contextlib.suppress(UnicodeDecodeError):
            return text.decode(encoding)
    return text.decode("latin-1")


def _plausible(text: str) -> tuple[int, int]:
    return sum(text.count(mark) for mark in _MARKS), sum(letter.isascii() for letter in text)
