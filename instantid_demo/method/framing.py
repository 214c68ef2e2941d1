"""The reference's picture sizes and face masks (FORMAT.md quirks 9, 11 and 15)."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from instantid_demo.request import RequestError


def fit_picture(
    picture: Image.Image,
    *,
    max_side: int = 1280,
    min_side: int = 1024,
    size: tuple[int, int] | None = None,
    multiple: int = 64,
    pad_to_max_side: bool = False,
) -> Image.Image:
    """The picture at a size the networks like: long side `max_side`, both sides a multiple of `multiple`.

    Small pictures grow; `min_side` takes part in the rounding only. `size` (w, h) overrides all that.
    `pad_to_max_side` centres the result on a white square.

    Raises:
        RequestError: the picture is so narrow that a side would vanish.
    """
    if size is None:
        width, height = picture.size
        for target, side in ((min_side, min), (max_side, max)):
            ratio = target / side(width, height)
            width, height = round(ratio * width), round(ratio * height)
        size = (width // multiple * multiple, height // multiple * multiple)
        if not all(size):
            raise RequestError("The picture is too narrow; crop it closer to the face.")
        # The reference interpolates twice; one pass would give other pixels.
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    if pad_to_max_side:
        square = Image.new("RGB", (max_side, max_side), "white")
        square.paste(picture, ((max_side - size[0]) // 2, (max_side - size[1]) // 2))
        return square
    return picture


def box_mask(width: int, height: int, box: Sequence[float]) -> np.ndarray:
    """(height, width) uint8, 255 inside the box x0, y0, x1, y1, whose coordinates are truncated to whole pixels.

    A box beyond the picture is clipped. The reference lets negative coordinates count from the other edge instead,
    which mostly empties the mask and so switches the identity off.
    """
    left, top, right, bottom = (max(int(edge), 0) for edge in box)
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask
