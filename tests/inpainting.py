"""What an inpainted file did to its start picture: for the tests of engine, command line, API and page."""

from pathlib import Path

import numpy as np
from PIL import Image

from instantid_demo import framing

Box = tuple[float, float, float, float]
BOX: Box = (0.3, 0.2, 0.6, 0.7)
"""What is painted: x0, y0, x1, y1 in fractions of the start picture."""
MARGIN = 0.03
"""Of the shorter side, around it: the soft edge lies within."""


def corners(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in pixels of a picture of this size."""
    x0, y0, x1, y1 = box
    return round(x0 * size[0]), round(y0 * size[1]), round(x1 * size[0]), round(y1 * size[1])


def painted(file: Path, size: tuple[int, int]) -> Path:
    """A mask file, white in `BOX`."""
    made = Image.new("L", size)
    made.paste(255, corners(BOX, size))
    made.save(file)
    return file


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Of two pictures or parts of them, in dB."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def compared(file: Path, start: Path, box: Box = BOX) -> tuple[float, float]:
    """PSNR of a saved picture to its start picture: outside the painted box, and inside."""
    made, original = Image.open(file).convert("RGB"), Image.open(start).convert("RGB")
    wanted, pixels = np.asarray(framing.cover(original, *made.size)[0]), np.asarray(made)
    marked = Image.new("L", original.size)
    marked.paste(255, corners(box, original.size))
    inside = np.asarray(marked.resize(made.size, box=framing.crop(original.size, made.size))) > 127
    margin = round(MARGIN * min(made.size))
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    near = np.zeros_like(inside)
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    near[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1] = True
    return psnr(pixels[~near], wanted[~near]), psnr(pixels[inside], wanted[inside])
