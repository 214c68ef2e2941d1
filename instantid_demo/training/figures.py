"""People cut out of training photographs, to be set smaller or moved before a scene.

The photographs are tight crops: where a head or shoulders are cut by the border, they are rounded off by continuing the
border's colours, so that a smaller person stands free before a scene instead of in a mirrored frame.
"""

from dataclasses import dataclass

import cv2
import numpy as np

_ROOM = 80


@dataclass(frozen=True)
class Figure:
    """A person in a picture of `s` pixels.

    Attributes:
        picture: `(s, s, 3)` uint8 RGB; outside the photograph its border's colours go on.
        ground: `(s, s, 1)` float32 0..1, 1 where the background is.
        keypoints: `(5, 2)` float32 pixels.
    """

    picture: np.ndarray
    ground: np.ndarray
    keypoints: np.ndarray

    def before(self, scene: np.ndarray) -> "Figure":
        """The person before another picture `(s, s, 3)` uint8; a little of its light falls on their outline."""
        near = cv2.GaussianBlur(self.ground, (0, 0), len(scene) / 40)[..., None] * 0.35
        ambient = cv2.GaussianBlur(scene, (0, 0), len(scene) / 10).astype(np.float32)
        lit = self.picture.astype(np.float32) * (1 - near) + ambient * near
        picture = lit * (1 - self.ground) + scene.astype(np.float32) * self.ground
        return Figure(picture.astype(np.uint8), self.ground, self.keypoints)


def turned(
    picture: np.ndarray,
    person: np.ndarray,
    keypoints: np.ndarray,
    size: int,
    scale: float,
    angle: float = 0,
    shift: tuple[float, float] = (0, 0),
) -> Figure:
    """The person of a photograph in a picture of `size` pixels.

    Args:
        picture: `(h, h, 3)` uint8 RGB.
        person: `(h, h)` uint8, 255 on the person.
        keypoints: `(5, 2)` pixels of `picture`.
        size: Side of the result.
        scale: 1: the whole photograph fills the result; smaller: the person gets smaller.
        angle: Degrees, counterclockwise.
        shift: Pixels of the result, right and down.
    """
    side = len(picture)
    wide, mask = _rounded(picture, _alone(person, keypoints))
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, scale * size / side)
    matrix[:, 2] = matrix[:, 2] + (size - side) / 2 + np.array(shift)
    from_wide = matrix.copy()
    from_wide[:, 2] -= matrix[:, :2] @ np.full(2, _ROOM)
    if matrix[0, 0] < 0.9:  # areas, not points: small pictures keep no coarse grain
        sigma = 0.35 * (1 / matrix[0, 0] - 0.9)
        wide = cv2.GaussianBlur(wide, (0, 0), sigma)
    moved = cv2.warpAffine(wide, from_wide, (size, size), borderMode=cv2.BORDER_REPLICATE)
    cut = cv2.warpAffine(mask, from_wide, (size, size), borderMode=cv2.BORDER_REPLICATE)
    ground = 1 - np.clip((cut.astype(np.float32) / 255 - 0.3) / 0.5, 0, 1)
    points = keypoints @ matrix[:, :2].T + matrix[:, 2]
    return Figure(moved, ground[..., None], points.astype(np.float32))


def _alone(person: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The mask without other people and things that do not touch the person."""
    _, parts = cv2.connectedComponents((person > 128).astype(np.uint8), connectivity=4)
    x, y = np.clip(np.round(keypoints.mean(0)), 0, len(person) - 1).astype(int)
    own = cv2.dilate((parts == parts[y, x]).astype(np.uint8), np.ones((5, 5), np.uint8))
    return person * own if parts[y, x] else person


def _rounded(picture: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photograph and mask with `_ROOM` pixels more on every side, the person's outline continued there."""
    side, room = len(picture), _ROOM
    wide = cv2.copyMakeBorder(picture, room, room, room, room, cv2.BORDER_REPLICATE)
    mask = np.zeros(wide.shape[:2], np.uint8)
    if (span := _span(person[0])) is not None:
        half = max((span[1] - span[0]) // 2, 1)
        cv2.ellipse(
            mask, (room + sum(span) // 2, room + 1), (half, int(0.55 * half)), 0, 180, 360, 255, -1, cv2.LINE_AA
        )
    for column, x in ((person[:, 0], room), (person[:, -1], room + side - 1)):
        if (span := _span(column)) is not None:
            half = max((span[1] - span[0]) // 2, 1)
            centre = (x, room + sum(span) // 2)
            cv2.ellipse(mask, centre, (int(0.3 * half), half), 0, 0, 360, 255, -1, cv2.LINE_AA)
    left, right = _span(person[-1]) or (side // 4, 3 * side // 4)
    slope, low = int(0.55 * side), room + side
    outline = [
        *((room + left, low - 2), (room + right, low - 2), (room + right + slope, low + side // 5)),
        *(
            (room + right + slope, low + room),
            (room + left - slope, low + room),
            (room + left - slope, low + side // 5),
        ),
    ]
    cv2.fillPoly(mask, [np.array(outline, np.int32)], 255, cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (0, 0), 2)
    mask[room : room + side, room : room + side] = person
    columns = np.clip(np.arange(wide.shape[1]) - room, left, right)
    wide[low:] = cv2.GaussianBlur(picture[-1:][:, columns], (0, 0), sigmaX=side / 12, sigmaY=0.1)
    soft = cv2.GaussianBlur(wide, (0, 0), 4)
    soft[room : room + side, room : room + side] = picture
    return soft, mask


def _span(line: np.ndarray) -> tuple[int, int] | None:
    """First and last place of the person on a border, None where hardly any."""
    on = np.flatnonzero(line > 128)
    return (int(on[0]), int(on[-1])) if len(on) > len(line) // 16 else None
