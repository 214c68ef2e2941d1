"""Where faces and pictures stand on the canvas: geometry only, no networks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from instantid_demo.request import Place, Region

if TYPE_CHECKING:
    from PIL import Image

Keypoints = np.ndarray
"""(5, 2) float32 in pixels: eye, eye, nose, mouth, mouth; the picture's left first."""
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""
SOFT_EDGE = 0.06
"""Width of a region's soft edge as a share of the canvas' shorter side."""


@dataclass(frozen=True)
class Move:
    """Scale, then shift: `point * scale + shift`."""

    scale: float
    shift: tuple[float, float]

    def points(self, points: np.ndarray) -> np.ndarray:
        """`(n, 2)` points moved."""
        return (np.asarray(points, np.float32) * self.scale + np.asarray(self.shift, np.float32)).astype(np.float32)

    def box(self, box: Box) -> Box:
        """A box moved."""
        x0, y0, x1, y1 = self.points(np.asarray(box, np.float32).reshape(2, 2)).ravel().tolist()
        return x0, y0, x1, y1


def onto(keypoints: Keypoints, target: Keypoints) -> Move:
    """The move that brings a face to the size and place of `target` and leaves its own tilt and turn alone.

    The scale is that of the least-squares similarity, the shift joins the centres.
    """
    own, wanted = np.asarray(keypoints, np.float64), np.asarray(target, np.float64)
    a, b = (points - points.mean(0) for points in (own, wanted))
    # As complex numbers the best rotation and scale is one factor; only its length is used.
    factor = abs(np.vdot(a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1])) / max(float((a**2).sum()), 1e-9)
    if factor < 1e-6:
        factor = float(np.sqrt((b**2).sum() / max(float((a**2).sum()), 1e-9)))
    shift = wanted.mean(0) - own.mean(0) * factor
    return Move(factor, (float(shift[0]), float(shift[1])))


def placed(keypoints: Keypoints, place: Place | None, width: int, height: int) -> Keypoints:
    """A face's keypoints moved to `place`: its centre there, its size times the place's factor."""
    if place is None:
        return keypoints
    centre = keypoints.mean(0)
    goal = np.array([place.x * width, place.y * height], np.float32)
    return ((keypoints - centre) * place.size + goal).astype(np.float32)


def in_region(region: Region, width: int, height: int, face_share: float) -> Place:
    """The place of a face in the middle of a region.

    `face_share` is the usual face's keypoint-bearing square as a share of the canvas' shorter side; it shrinks with
    the region so that the face keeps inside.
    """
    shorter = min(width, height)
    room = min((region.x1 - region.x0) * width, (region.y1 - region.y0) * height)
    size = min(1.0, room / (shorter * max(face_share, 1e-6)))
    return Place(x=(region.x0 + region.x1) / 2, y=(region.y0 + region.y1) / 2, size=max(0.2, size))


def in_box(box: Box, width: int, height: int, face_share: float) -> Place:
    """As `in_region`, of a box in pixels, however small; what lies beyond the canvas does not count."""
    x0, y0, x1, y1 = np.clip(np.divide(box, (width, height, width, height)), 0, 1).tolist()
    return in_region(Region.model_construct(x0=x0, y0=y0, x1=x1, y1=y1), width, height, face_share)


def region_mask(region: Region, width: int, height: int) -> np.ndarray:
    """`(height, width)` float32: 1 inside, 0 outside, soft between; the canvas' own border stays hard."""
    edge = SOFT_EDGE * min(width, height)

    def ramp(low: float, high: float, size: int) -> np.ndarray:
        points = (np.arange(size) + 0.5) / size
        soft = edge / size
        rise = np.ones(size) if low <= 0 else (points - low) / soft + 0.5
        fall = np.ones(size) if high >= 1 else (high - points) / soft + 0.5
        return np.clip(np.minimum(rise, fall), 0, 1)

    across = ramp(region.x0, region.x1, width)[None]
    return (ramp(region.y0, region.y1, height)[:, None] * across).astype(np.float32)


def box_mask(box: Box, width: int, height: int) -> np.ndarray:
    """`(height, width)` float32, 1 in the box, which is cut at the border (the original wraps it around)."""
    x0, y0, x1, y1 = (round(value) for value in box)
    mask = np.zeros((height, width), np.float32)
    mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = 1
    return mask


def face_box(keypoints: Keypoints) -> Box:
    """The box of a face of which only the keypoints are known: forehead and chin included."""
    eyes, mouth = keypoints[:2].mean(0), keypoints[3:].mean(0)
    reach = max(float(np.linalg.norm(mouth - eyes)), float(np.linalg.norm(keypoints[0] - keypoints[1])), 1.0)
    x, y = ((eyes + mouth) / 2).tolist()
    return x - 1.1 * reach, y - 1.4 * reach, x + 1.1 * reach, y + 1.4 * reach


def like_picture(size: tuple[int, int], width: int, height: int, most: int) -> tuple[int, int]:
    """Width and height of about the area `width * height` in the shape of a picture of `size`, multiples of 8."""
    shape = min(max(size[0] / size[1], 1 / 3), 3)
    area = width * height
    wide = (area * shape) ** 0.5
    sides = (round(side / 8) * 8 for side in (wide, wide / shape))
    new_width, new_height = (min(max(64, side), most - most % 8) for side in sides)
    return new_width, new_height


def crop(picture: tuple[int, int], canvas: tuple[int, int]) -> Box:
    """The part of a picture of this size that has the canvas' shape: cut at the longer side's ends."""
    scale = max(canvas[0] / picture[0], canvas[1] / picture[1])
    width, height = canvas[0] / scale, canvas[1] / scale
    left, top = (picture[0] - width) / 2, (picture[1] - height) / 2
    # Rounding may lead a hair's breadth beyond the picture, which Pillow refuses.
    return max(left, 0), max(top, 0), min(left + width, picture[0]), min(top + height, picture[1])


def cover(picture: "Image.Image", width: int, height: int) -> tuple["Image.Image", Move]:
    """A picture that fills the canvas, cut at the longer side's ends; and where its points went."""
    from PIL import Image

    box = crop(picture.size, (width, height))
    scale = max(width / picture.width, height / picture.height)
    filled = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return filled, Move(scale, (-box[0] * scale, -box[1] * scale))


def cut_alike(mask: "Image.Image", picture: tuple[int, int], size: tuple[int, int]) -> "Image.Image":
    """A mask at `size`, cut as `cover` cuts the picture that it belongs to, whose own size may be another."""
    from PIL import Image

    x0, y0, x1, y1 = crop(picture, size)
    across, down = mask.width / picture[0], mask.height / picture[1]
    box = (x0 * across, y0 * down, min(x1 * across, mask.width), min(y1 * down, mask.height))
    # Linear: sharper filters ring, and a mask's black would not stay black.
    return mask.resize(size, Image.Resampling.BILINEAR, box=box)


def enlargement(size: tuple[int, int], factor: int, at_least: int) -> int:
    """How many times as large a picture becomes that shall be `factor` times, and its shorter side `at_least`."""
    return max(factor, -(-at_least // min(size)))


def enlarged(picture: "Image.Image", factor: int, at_least: int = 0) -> "Image.Image":
    """A picture `factor` times as large, and more where its shorter side stays below `at_least`."""
    from PIL import Image

    factor = enlargement(picture.size, factor, at_least)
    if factor == 1:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)
