"""Any file a person may hand over -> one upright RGB picture, or one sentence that says what is wrong with it.

What a file takes in memory is reckoned from its header, before anything is decoded, and files are decoded one at a
time: no upload can cost more than `MOST_MEMORY`.
"""

import contextlib
import io
import math
import stat
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from instantid_demo import quiet
from instantid_demo.request import RequestError

MAX_PIXELS = 50_000_000
MAX_JPEG_PIXELS = 256_000_000
"""JPEGs are reduced while they are decoded."""
MAX_BYTES = 64 * 2**20
MIN_SIDE = 16
LARGEST = 4096 * 4096
"""Pixels of an opened photo: a larger one is brought down by a whole factor."""
MOST_MEMORY = 400 * 2**20
"""Bytes that opening one file may take, the file's own among them."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF", "JXL")
"""Everything else that Pillow knows stays closed: rare formats, and those that start another program."""
_SHOWN_BY_BROWSERS = frozenset({"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF"})
_OPTIONAL = {".heic": "HEIF", ".heif": "HEIF", ".jxl": "JXL"}
_WORKING = {"WEBP": 17.0, "AVIF": 14.0, "JPEG2000": 25.0, "HEIF": 9.0, "JXL": 16.0}
"""Bytes per pixel that a decoder takes at its peak, Pillow's own copy among them; measured. Others: that copy."""
_HEIF_ALONE = 5.5
"""The same for HEIF without Pillow's copy."""
_COPY = 4
"""Bytes per pixel of a picture in Pillow."""
_ROOM = 16 * 2**20
"""For strips and small change."""
_STRIP = 2**20
"""Pixels worked on at once."""
_AVERAGED = frozenset({"L", "RGB", "RGBA", "LA", "La", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F"})
"""Modes whose pixels can be averaged; the others hold numbers of colours."""
_SAME_COLOUR = 3
"""Levels of 255 by which a profile may differ from sRGB and count as it."""
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _PLANES, _ROWS_PER_STRIP, _TILE_ROWS = 258, 262, 277, 278, 323
"""TIFF tags."""
_YCBCR = 6
"""A TIFF's photometric interpretation."""

_decoding = threading.Semaphore()


@dataclass(frozen=True)
class Photo:
    """An opened file.

    Attributes:
        picture: Upright by its EXIF, in its own mode, at most `LARGEST` pixels; of the file's other information only
            the colour profile and a transparent colour are kept.
        scale: The file's pixels per pixel of `picture`, at least 1.
        cut: The file lacks its end, and the picture its last rows.
    """

    picture: Image.Image
    scale: float = 1.0
    cut: bool = False


def open_photo(source: Path | str | bytes | Image.Image) -> Image.Image:
    """Decodes a photo safely.

    EXIF rotation is applied, colours become sRGB, transparency is laid on white, an animation gives its first frame,
    and 16-bit, float, CMYK, palette and greyscale pictures become RGB.

    Args:
        source: A file, its bytes, or a picture.

    Returns:
        RGB, at most `LARGEST` pixels.

    Raises:
        RequestError: the file is missing, empty, no picture, damaged, too small or too large.
    """
    return rgb(opened(source))


def opened(source: Path | str | bytes | Image.Image) -> Image.Image:
    """As `open_photo`, but in the picture's own mode: masks and maps mean something by their transparency and depth."""
    return read(source).picture


def read(source: Path | str | bytes | Image.Image, name: str = "The picture") -> Photo:
    """As `opened`, with what else is to be known of the file; `name` stands in sentences about bytes and pictures."""
    if isinstance(source, Image.Image):
        _check_sides(source.size, name)
        if source.width * source.height > MAX_PIXELS:
            raise _too_many_pixels(name, MAX_PIXELS)
        return _finished(source, source.size, name)
    if isinstance(source, bytes):
        return _decode(source, name)
    path = Path(source)
    return _decode(content(path), path.name)


def content(path: Path) -> bytes:
    """A picture file's bytes.

    Raises:
        RequestError: there is none, it is no ordinary file, or it is too large to be a picture.
    """
    try:
        # Asked before it is opened: opening a pipe waits for whoever writes into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise RequestError(f"{path.name} is not a file: choose a picture.")
        with path.open("rb") as file:
            # Some special files claim to be empty and never end.
            found = file.read(MAX_BYTES + 1)
    except RequestError:
        raise
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise RequestError(f"{path.name} cannot be read: check that the file is there.") from error
    _check_bytes(found, path.name)
    return found


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read here: HEIF and JPEG XL only where their decoders are installed."""
    with contextlib.suppress(ImportError):
        import pi_heif

        pi_heif.register_heif_opener()
    with contextlib.suppress(ImportError):
        import pylibjxl

        pylibjxl.register_pillow()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def extra_suffixes() -> list[str]:
    """Suffixes of readable pictures that a browser may not take for pictures."""
    return [suffix for suffix, name in _OPTIONAL.items() if name in formats()]


def is_shown_by_browsers(path: Path) -> bool:
    """Whether a browser can show a picture file as it is; also where it is no picture at all."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _header(content(path), path.name).format in _SHOWN_BY_BROWSERS
    return True


def rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, as `open_photo` does it."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        coloured = _srgb(seen.convert("RGB"), picture.info.get("icc_profile"))
        coloured.putalpha(seen.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), coloured).convert("RGB")
    found = _srgb(picture, picture.info.get("icc_profile"))
    # Whoever saves it must not write the old profile into the file.
    found.info = {}
    return found


def _decode(found: bytes, name: str) -> Photo:
    _check_bytes(found, name)
    try:
        with _decoding, warnings.catch_warnings():
            # Pillow warns of oddities in metadata, and of sizes above a limit of its own.
            warnings.simplefilter("ignore")
            return _decoded(found, name)
    except RequestError:
        raise
    except MemoryError as error:
        raise RequestError(f"There is not enough memory to open {name}: choose a smaller version of it.") from error
    except Exception as error:  # each decoder has errors of its own for a damaged file
        raise RequestError(f"{name} is damaged and cannot be opened: choose another copy of it.") from error


def _decoded(found: bytes, name: str) -> Photo:
    picture = _header(found, name)
    size = picture.size
    _check_sides(size, name)
    is_jpeg = isinstance(picture, JpegImagePlugin.JpegImageFile)
    if is_jpeg:
        _draft(picture)
    alone = picture.format == "HEIF" and size[0] * size[1] > LARGEST
    _check_memory(picture, size, found, name, alone)
    if alone:
        return _finished(_heif(found), size, name)
    try:
        # libtiff writes its complaints to the terminal.
        with quiet.stderr() if picture.format == "TIFF" else contextlib.nullcontext():
            picture.seek(0)
            _mend_tiff(picture)
            picture.load()
    except OSError:
        if not is_jpeg:
            raise
        return _finished(_without_end(found, name), size, name, cut=True)
    if picture.format == "JXL":
        # The decoder has turned it already; what EXIF says counts for other formats.
        picture.info.pop("exif", None)
        picture.info.pop("xmp", None)
    return _finished(picture, size, name)


def _header(found: bytes, name: str) -> Image.Image:
    """A file opened, its pixels not yet decoded."""
    try:
        if found.startswith(b"\xff\xd8\xff"):
            # Not through `Image.open`, whose limit of pixels does not know that a JPEG can be reduced.
            return JpegImagePlugin.jpeg_factory(io.BytesIO(found))
        return Image.open(io.BytesIO(found), formats=formats())
    except (UnidentifiedImageError, SyntaxError) as error:
        others = "".join({"HEIF": ", HEIC", "JXL": ", JPEG XL"}.get(kind, "") for kind in formats())
        raise RequestError(f"{name} is not a picture this program can read: use JPEG, PNG{others} or WebP.") from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name, MAX_PIXELS) from error


def _draft(picture: Image.Image) -> None:
    """Lets a JPEG be decoded at a half, a quarter or an eighth where it is too large."""
    pixels = picture.width * picture.height
    factor = next((factor for factor in (1, 2, 4) if pixels <= LARGEST * factor**2), 8)
    if factor > 1:
        picture.draft(None, (picture.width // factor, picture.height // factor))


def _without_end(found: bytes, name: str) -> Image.Image:
    """A JPEG whose last rows are missing, with an end put to it.

    Raises:
        RequestError: most of it is missing.
    """
    picture = _header(found + b"\xff\xd9", name)
    _draft(picture)
    picture.load()
    rows = np.asarray(picture)
    # The decoder fills what it does not know with one grey.
    known = np.flatnonzero((rows != rows[-1, -1]).any(axis=tuple(range(1, rows.ndim))))
    if not len(known) or known[-1] < len(rows) / 2:
        raise RequestError(f"{name} is damaged, most of it is missing: choose another copy of it.")
    return picture


def _mend_tiff(picture: Image.Image) -> None:
    """Has libtiff read plain YCbCr too: Pillow takes such pixels for RGB, and too many of them."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or picture.tile[0][0] != "raw":
        return
    if picture.tag_v2.get(_PHOTOMETRIC) == _YCBCR:
        whole = (0, 0, *picture.size)
        picture.tile = [ImageFile._Tile("libtiff", whole, 0, ("RGBX", "raw", False, picture.tag_v2.offset))]
        picture.use_load_libtiff = True


def _heif(found: bytes) -> "_Rows":
    """A large HEIF picture, of which Pillow never makes a whole copy."""
    import pi_heif

    frame = pi_heif.open_heif(found, convert_hdr_to_8bit=True, remove_stride=False)
    data, mode, stride = np.frombuffer(frame.data, np.uint8), frame.mode, frame.stride

    def crop(top: int, bottom: int) -> Image.Image:
        part = data[top * stride : bottom * stride].tobytes()
        return Image.frombuffer(mode, (frame.size[0], bottom - top), part, "raw", mode, stride, 1)

    profile = frame.info.get("icc_profile")
    return _Rows(frame.size, mode, {"icc_profile": profile} if profile else {}, crop)


@dataclass(frozen=True)
class _Rows:
    """A picture that is read some rows at a time."""

    size: tuple[int, int]
    mode: str
    info: dict[str, object]
    crop: Callable[[int, int], Image.Image]


def _finished(source: "Image.Image | _Rows", size: tuple[int, int], name: str, *, cut: bool = False) -> Photo:
    """Brought down to `LARGEST`, upright and free of the file's decoder and metadata; `size`: the file's own."""
    factor = math.ceil(math.sqrt(source.size[0] * source.size[1] / LARGEST))
    whole = source.copy() if isinstance(source, Image.Image) and factor == 1 else _reduced(source, factor)
    whole.info.update(source.info)
    # A damaged EXIF block says nothing about the pixels.
    with contextlib.suppress(Exception):
        whole = ImageOps.exif_transpose(whole)
    whole.info = {key: value for key, value in whole.info.items() if key in ("icc_profile", "transparency")}
    return Photo(whole, max(1.0, max(size) / max(whole.size)), cut)


def _reduced(source: "Image.Image | _Rows", factor: int) -> Image.Image:
    """A picture at a whole fraction of its size, strip by strip: of a large one no second copy is ever made."""
    (width, height), mode = source.size, source.mode
    size = (-(-width // factor), -(-height // factor))
    if isinstance(source, Image.Image) and mode not in _AVERAGED and not mode.startswith("I;16"):
        return source.resize(size, Image.Resampling.NEAREST)
    found = Image.new("I" if mode.startswith("I;16") else mode, size)
    rows = max(1, _STRIP // (width * factor)) * factor
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = source.crop((0, top, width, bottom)) if isinstance(source, Image.Image) else source.crop(top, bottom)
        found.paste((strip.convert("I") if mode.startswith("I;16") else strip).reduce(factor), (0, top // factor))
    return found


def _srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """As RGB, with the colours that the profile means; one that cannot be used says nothing."""
    if profile and picture.mode != "LAB":
        if picture.mode not in ("RGB", "L", "CMYK"):
            picture = picture.convert("RGB")
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[given.profile.xcolor_space.strip()]
            # Grey pictures may carry a profile for colours, the others only their own kind.
            if picture.mode in (mode, "L") and (mode == "RGB" or mode == picture.mode):
                change = ImageCms.buildTransform(
                    given,
                    ImageCms.createProfile("sRGB"),
                    mode,
                    "RGB",
                    ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                if mode != "RGB" or not _is_srgb(change):
                    return change.apply(picture.convert(mode))
    return picture.convert("RGB")


def _is_srgb(change: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform to sRGB leaves colours as they are: then the pixels stay untouched."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    after = np.asarray(change.apply(Image.fromarray(cube)))
    return bool(np.abs(after.astype(int) - cube).max() <= _SAME_COLOUR)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey (L) of a picture of 16 bits, 32 bits or floats, by the range that its brightest value tells."""
    found = Image.new("L", picture.size)
    strips = [
        (0, top, picture.width, min(top + max(1, _STRIP // picture.width), picture.height))
        for top in range(0, picture.height, max(1, _STRIP // picture.width))
    ]
    is_float = picture.mode == "F"
    brightest = max(
        np.nan_to_num(np.asarray(picture.crop(box)), nan=0.0, posinf=0.0, neginf=0.0).max(initial=0) for box in strips
    )
    scales = (1, 255, 65535) if is_float else (255, 65535)
    top_value = next((scale for scale in scales if brightest <= scale), brightest)
    for box in strips:
        values = np.asarray(picture.crop(box))
        if is_float:
            light = np.nan_to_num(values, nan=0.0, posinf=float(top_value)).clip(0, float(top_value))
            grey = (light * (255 / float(top_value)) + 0.5).astype(np.uint8)
        else:
            grey = (values.clip(0, int(top_value)).astype(np.int64) * 255 // int(top_value)).astype(np.uint8)
        found.paste(Image.fromarray(grey), box[:2])
    return found


def _check_bytes(found: bytes, name: str) -> None:
    if not found:
        raise RequestError(f"{name} is empty: choose another picture.")
    if len(found) > MAX_BYTES:
        raise RequestError(f"{name} is larger than {MAX_BYTES >> 20} MB: choose a smaller version of it.")


def _check_sides(size: tuple[int, int], name: str) -> None:
    if min(size) < MIN_SIDE:
        raise RequestError(f"{name} is too small ({size[0]}×{size[1]}): choose a larger picture.")


def _check_memory(picture: Image.Image, size: tuple[int, int], found: bytes, name: str, alone: bool) -> None:
    """Refuses what would take too much: `size` is the file's, `picture.size` what is decoded of it."""
    most = MAX_JPEG_PIXELS if isinstance(picture, JpegImagePlugin.JpegImageFile) else MAX_PIXELS
    pixels, decoded = size[0] * size[1], picture.width * picture.height
    per_pixel = _HEIF_ALONE if alone else _WORKING.get(picture.format or "", float(_COPY))
    working = per_pixel * decoded + _beside(picture, pixels, found)
    copies = (0 if alone else _COPY * decoded) + _COPY * min(decoded, LARGEST)
    budget = MOST_MEMORY - _ROOM - len(found)
    need = max(working, copies)
    if pixels > most or need > budget:
        raise _too_many_pixels(name, min(most, max(int(pixels * budget / need), 0)))


def _beside(picture: Image.Image, pixels: int, found: bytes) -> int:
    """Bytes that a decoder holds beside the picture, by what the header says."""
    if isinstance(picture, JpegImagePlugin.JpegImageFile):
        # Anything but one scan of all components is kept whole, as coefficients of two bytes.
        planes = len(picture.layer)
        scan = found[picture.fp.tell() - 8 - 2 * planes :][:2] if picture.fp else b""
        if scan == b"\xff\xda" and not picture.info.get("progressive"):
            return 0
        across, down = max(layer[1] for layer in picture.layer), max(layer[2] for layer in picture.layer)
        return int(2 * pixels * sum(layer[1] * layer[2] for layer in picture.layer) / (across * down))
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        tags = picture.tag_v2
        rows = min(int(tags.get(_TILE_ROWS) or tags.get(_ROWS_PER_STRIP) or picture.height), picture.height)
        bits = max((int(bits) for bits in tags.get(_BITS, (8,))), default=8)
        turned = _COPY * pixels if tags.get(_ORIENTATION, 1) != 1 else 0
        return rows * picture.width * int(tags.get(_PLANES, 1)) * -(-bits // 8) + turned
    return 0


def _too_many_pixels(name: str, most: int) -> RequestError:
    return RequestError(f"{name} has too many pixels: choose a version under {most // 10**6} megapixels.")
