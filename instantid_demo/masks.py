"""Which part of a start picture may change: masks in every form that people bring, and what stays as it was.

A mask is white where the picture may change. Where it has transparency, the opaque part counts as painted; where it
is a photo with a hole in it, the hole. A label map counts every label but the lowest as painted. A start picture that
has a hole itself needs no mask.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from instantid_demo.faces.photo import open_photo, opened
from instantid_demo.request import RequestError

SOFT_EDGE = 0.015
"""Width of the soft edge around the painted part as a share of the picture's shorter side; nothing changes beyond."""
CELL = 8
"""Pixels of the canvas per latent."""
OTHER_SHAPE = 0.02
"""Relative difference of two aspects from which a mask was not painted on this start picture; less is rounding."""
_LEAST_HOLE = 0.001
"""Share of a picture from which its transparent part is a hole: less are rounded corners."""
_PAINTED = 32
"""Grey level from which a pixel counts as painted at all."""
_INVISIBLE = 8
"""Opacity that nobody sees."""
_NOISE = 16
"""Grey levels that JPEG may leave in black."""
_LABELS = 32
"""A map whose brightest value is below this holds the numbers of labels, not grey levels."""
_PAINTS = 16
"""So many colours cover nine tenths of what somebody painted; a photo needs more."""
_LOOKED_AT = 2**18
"""Pixels of which the colours are counted, at most."""


@dataclass(frozen=True)
class Kept:
    """What of the start picture stays as it was, at the size in which the result is saved."""

    picture: Image.Image
    """RGB: the start picture's part that is the canvas."""
    drawn: Image.Image
    """L: 255 where the drawn picture shows, 0 where the start picture stays, soft between."""

    def around(self, picture: Image.Image) -> Image.Image:
        """The drawn picture (RGB, any size of the same shape) with the start picture around the painted part."""
        return Image.composite(
            picture,
            _at(self.picture, picture.size, Image.Resampling.LANCZOS),
            _at(self.drawn, picture.size, Image.Resampling.BILINEAR),
        )

    def untouched(self) -> np.ndarray:
        """`(height, width)` bool: where not even the soft edge reaches."""
        return np.asarray(self.drawn) == 0


def read(file: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """The mask in a file, and sentences for the user.

    Returns:
        L at the file's own size: 255 where the picture may change, 0 where it stays.

    Raises:
        RequestError: the file is no picture, or nothing is painted in it.
    """
    picture = opened(file)
    notes: tuple[str, ...] = ()
    opacity = alpha(picture)
    if opacity is None:
        values = _grey(picture)
    elif _is_photo(picture, opacity):
        values = 255 - opacity
        notes = ("The mask is a photo with a hole: the hole is what changes.",)
    else:
        values = _opaque(opacity)
    if values.max(initial=0) < _PAINTED:
        raise RequestError(f"Nothing is painted in the mask {file.name}: paint white where the picture may change.")
    return Image.fromarray(values), notes


def is_full(mask: Image.Image) -> bool:
    """Whether a mask (L) is painted all over."""
    least, _ = mask.getextrema()
    return isinstance(least, int) and least >= 255 - _NOISE


def hole(file: Path) -> tuple[Image.Image, Image.Image | None]:
    """A start picture without a mask: RGB, and L with 255 in its transparent part; None where it has none.

    The hole is filled with the colours around it: what was under it, or white, would shine through what is drawn.

    Raises:
        RequestError: the file is no picture, or transparent all over.
    """
    picture = opened(file)
    opacity = alpha(picture)
    if opacity is None or (opacity < 128).mean() < _LEAST_HOLE:
        return open_photo(picture), None
    if (opacity >= 128).mean() < _LEAST_HOLE:
        raise RequestError(f"{file.name} is transparent all over: choose a start picture that shows something.")
    filled = _filled(as_rgba(picture))
    filled.info = {name: value for name, value in picture.info.items() if name != "transparency"}
    return open_photo(filled), Image.fromarray(255 - opacity)


def alpha(picture: Image.Image) -> np.ndarray | None:
    """`(height, width)` uint8 opacity of a picture in its own mode; None where all of it is opaque."""
    if is_deep(picture) or not picture.has_transparency_data:
        return None
    opacity = np.asarray(as_rgba(picture).getchannel("A"))
    return opacity if opacity.min() < 128 else None


def as_rgba(picture: Image.Image) -> Image.Image:
    """A picture of at most 8 bits per channel as RGBA."""
    plain = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)
    return picture.convert(plain).convert("RGBA")


def is_deep(picture: Image.Image) -> bool:
    """Whether it has one channel of more than 8 bits: 16 or 32 bits, or floating point."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def deep_values(picture: Image.Image) -> np.ndarray:
    """`(height, width)` float32 values of a deep picture, none below 0, infinite ones and gaps as 0."""
    values = np.asarray(picture).astype(np.float32)
    np.nan_to_num(values, copy=False, nan=0, posinf=0, neginf=0)
    return np.maximum(values, 0, out=values)


def fitting(mask: Image.Image, start: tuple[int, int]) -> None:
    """Checks that a mask was painted on a start picture of this size, in whatever resolution.

    Raises:
        RequestError: their shapes differ.
    """
    (width, height), (wanted_width, wanted_height) = mask.size, start
    rounding = 0.5 / width + 0.5 / height
    if abs(width * wanted_height / (height * wanted_width) - 1) > OTHER_SHAPE + rounding:
        raise RequestError(
            f"The mask is {width}×{height}, but the start picture {wanted_width}×{wanted_height}: "
            "paint the mask on the start picture, so that both have one shape."
        )


def cells(mask: Image.Image) -> Image.Image:
    """L: 255 in every latent's square that the mask (L, at the canvas' size) touches, 0 elsewhere.

    The pipelines look at one pixel per latent: thin strokes would fall between them. What is drawn beyond the
    painted part does not stay (`Kept`).
    """
    values = np.asarray(mask)
    height, width = values.shape
    touched = values.reshape(height // CELL, CELL, width // CELL, CELL).max((1, 3)) >= _PAINTED
    return Image.fromarray(255 * touched.repeat(CELL, 0).repeat(CELL, 1).astype(np.uint8))


def softened(mask: Image.Image) -> Image.Image:
    """L: the mask (L, at the saved size) with a soft edge around it: what is painted is all drawn."""
    values = np.asarray(mask.point(lambda value: value if value >= _NOISE else 0))
    if values.max() < 128:
        return Image.fromarray(values)
    width = max(2.0, SOFT_EDGE * min(mask.size))
    edge: np.ndarray = cv2.distanceTransform((values < 128).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # From 255 at the painted part to 0 at the edge's end, in place: the saved picture may be large.
    edge *= -255 / width
    edge += 255
    return Image.fromarray(np.maximum(values, np.clip(edge, 0, 255, out=edge).astype(np.uint8)))


def _grey(picture: Image.Image) -> np.ndarray:
    """What a mask without transparency paints: uint8, its darkest dark part 0, its brightest part 255."""
    if is_deep(picture):
        values, least = deep_values(picture), float(np.finfo(np.float32).tiny)
    else:
        # The brightest channel: red paint on black is as painted as white.
        values, least = np.asarray(picture.convert("RGB")).max(2), 128.0
    low, top = float(values.min()), float(values.max())
    if low == top:
        return np.full(values.shape, 255 * (top >= least), np.uint8)
    if top < _LABELS and (values == np.round(values)).all():
        return 255 * (values > low).astype(np.uint8)
    return stretched(values, low if low <= top / 4 else 0.0, top)


def _opaque(opacity: np.ndarray) -> np.ndarray:
    """What a mask with transparency paints: uint8, its least transparent part 255."""
    top = float(opacity.max())
    return stretched(opacity, 0.0, top) if top > _INVISIBLE else np.zeros_like(opacity)


def stretched(values: np.ndarray, low: float, top: float) -> np.ndarray:
    """uint8: `low` becomes 0, `top` 255. Floating point `values` are worked on in place: they may be many."""
    if values.dtype == np.uint8:
        return stretched(np.arange(256, dtype=np.float32), low, top)[values]
    values -= low
    values *= 255 / (top - low)
    return np.clip(np.round(values, out=values), 0, 255, out=values).astype(np.uint8)


def _is_photo(picture: Image.Image, opacity: np.ndarray) -> bool:
    """Whether what is opaque is a photo and not paint."""
    step = 1 + int((opacity.size / _LOOKED_AT) ** 0.5)
    some = np.asarray(as_rgba(picture))[::step, ::step, :3][opacity[::step, ::step] >= 128]
    colours = (some >> 2).astype(np.int64)
    if not len(colours):
        return False
    counts = np.unique(colours @ (4096, 64, 1), return_counts=True)[1]
    return np.sort(counts)[::-1][:_PAINTS].sum() < 0.9 * len(colours)


def _filled(picture: Image.Image) -> Image.Image:
    """An RGBA picture whose transparent part continues the colours around it, from coarse to fine; opaque."""
    levels = [picture]
    while max(levels[-1].size) > 1:
        levels.append(levels[-1].reduce(2))
    below = levels.pop()
    below.putalpha(255)
    for level in reversed(levels):
        below = below.resize(level.size, Image.Resampling.BILINEAR)
        below.alpha_composite(level)
    return below


def _at(picture: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, resampling)
