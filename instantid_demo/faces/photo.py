"""Any file a person may hand over -> one upright RGB picture, or one sentence that says what is wrong with it."""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from instantid_demo.request import RequestError

MAX_PIXELS = 50_000_000
MAX_BYTES = 64 * 2**20
MIN_SIDE = 16


def open_photo(source: Path | str | bytes | Image.Image) -> Image.Image:
    """Decodes a photo safely.

    EXIF rotation is applied, transparency is laid on white, an animation gives its first frame, and 16-bit, CMYK,
    palette and greyscale pictures become RGB.

    Args:
        source: A file, its bytes, or a picture.

    Returns:
        RGB, each side at least 16 pixels, at most 50 megapixels.

    Raises:
        RequestError: the file is missing, empty, no picture, damaged, too small or too large.
    """
    return _rgb(opened(source))


def opened(source: Path | str | bytes | Image.Image) -> Image.Image:
    """As `open_photo`, but in the picture's own mode: masks and maps mean something by their transparency and depth."""
    if isinstance(source, Image.Image):
        return _upright(source, "The picture")
    if isinstance(source, bytes):
        return _decode(source, "The picture")
    path = Path(source)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise RequestError(f"{path.name} is not a file: choose a picture.")
        if size > MAX_BYTES:
            raise RequestError(f"{path.name} is larger than {MAX_BYTES >> 20} MB: choose a smaller version of it.")
        return _decode(path.read_bytes(), path.name)
    except OSError as error:
        raise RequestError(f"{path.name} cannot be read: check that the file is there.") from error


def _decode(content: bytes, name: str) -> Image.Image:
    if not content:
        raise RequestError(f"{name} is empty: choose another picture.")
    if len(content) > MAX_BYTES:
        raise RequestError(f"{name} is larger than {MAX_BYTES >> 20} MB: choose a smaller version of it.")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit lies above ours, which is checked before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content))
            _check_size(picture, name)
            picture.seek(0)
            picture.draft("RGB", (4096, 4096))
            picture.load()
    except UnidentifiedImageError as error:
        raise RequestError(f"{name} is not a picture this program can read: use JPEG, PNG or WebP.") from error
    except Image.DecompressionBombError as error:
        raise RequestError(f"{name} has too many pixels: choose a version under {MAX_PIXELS // 10**6} MP.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{name} is damaged and cannot be opened: choose another copy of it.") from error
    return _upright(picture, name)


def _check_size(picture: Image.Image, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise RequestError(f"{name} has too many pixels: choose a version under {MAX_PIXELS // 10**6} megapixels.")
    if min(picture.size) < MIN_SIDE:
        raise RequestError(f"{name} is too small ({picture.width}×{picture.height}): choose a larger picture.")


def _upright(picture: Image.Image, name: str) -> Image.Image:
    _check_size(picture, name)
    # A damaged EXIF block says nothing about the pixels.
    with contextlib.suppress(OSError, SyntaxError, ValueError, KeyError, TypeError):
        picture = ImageOps.exif_transpose(picture)
    return picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _sixteen_bit(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _sixteen_bit(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.float64)
    top = 65535.0 if values.max(initial=0) > 255 else 255.0
    grey = np.clip(np.nan_to_num(values) / top * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
