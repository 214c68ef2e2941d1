"""Control maps that somebody brings ready made."""

from pathlib import Path

import numpy as np
from PIL import Image

from instantid_demo import masks
from instantid_demo.faces.photo import open_photo, opened

DARK = 32
"""Brightest value of a map that nobody would see: numbers of labels, not grey levels."""


def read(file: Path) -> Image.Image:
    """The map in a file, RGB at its own size.

    Where it is transparent there is nothing: black. Lines in black on a transparent ground are taken as white ones.
    Maps of more than 8 bits, and those with values too low to be seen (0 and 1), fill the range up to white.

    Raises:
        RequestError: the file is no picture.
    """
    picture = opened(file)
    if masks.is_deep(picture):
        return _brightened(masks.deep_values(picture))
    if not picture.has_transparency_data:
        drawn = open_photo(picture)
        return _brightened(np.asarray(drawn)) if 0 < _peak(drawn) < DARK else drawn
    seen = masks.as_rgba(picture)
    laid = Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen)
    laid.info = {name: value for name, value in picture.info.items() if name != "transparency"}
    drawn, opacity = open_photo(laid), masks.alpha(picture)
    return _brightened(opacity) if opacity is not None and _peak(drawn) < DARK else drawn


def _peak(picture: Image.Image) -> int:
    return int(np.asarray(picture).max(initial=0))


def _brightened(values: np.ndarray) -> Image.Image:
    """Values `(height, width)` or `(height, width, 3)`, from 0 on, as RGB whose brightest is white."""
    return Image.fromarray(masks.stretched(values, 0.0, max(float(values.max()), 1e-9))).convert("RGB")
