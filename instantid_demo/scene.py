"""The start picture of a request, and which part of it may change, on the canvas."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from instantid_demo import framing, masks
from instantid_demo.faces.photo import open_photo
from instantid_demo.framing import Box
from instantid_demo.request import GenerationRequest, RequestError
from instantid_demo.saving import LEAST_SIDE


@dataclass(frozen=True)
class Scene:
    """A start picture cut to the canvas."""

    picture: Image.Image
    """RGB at the canvas' size."""
    move: framing.Move
    """From the start picture's own pixels to the canvas."""
    mask: Image.Image | None = None
    """L: 255 in the squares of all latents that may change; None: all may."""
    kept: masks.Kept | None = None
    """What stays, where not all may change."""

    @property
    def painted(self) -> Box | None:
        """The box around what may change; None where that is all."""
        return None if self.mask is None else self.mask.getbbox()

    def may_change(self, point: np.ndarray) -> bool:
        """Whether a point `(2,)` of the canvas lies in what may change."""
        if self.mask is None:
            return True
        column, row = (min(max(int(at), 0), side - 1) for at, side in zip(point, self.mask.size, strict=True))
        return bool(self.mask.getpixel((column, row)))


@dataclass(frozen=True)
class StartPicture:
    """A start picture as it was given."""

    picture: Image.Image
    """RGB."""
    painted: Image.Image | None = None
    """L, of the same shape in any resolution: 255 where it may change; None: everywhere."""
    notes: tuple[str, ...] = ()
    """Sentences for the user."""

    @classmethod
    def of(cls, request: GenerationRequest) -> "StartPicture | None":
        """The request's; None where it has none.

        Raises:
            RequestError: picture or mask cannot be read, nothing is painted, or they do not belong together.
        """
        if request.init is None:
            return None
        if request.mask is None:
            picture, painted = masks.hole(request.init)
            said = "The start picture has a hole: only the hole changes. A mask would choose another part."
            return cls(picture, painted, () if painted is None else (said,))
        picture = open_photo(request.init)
        painted, notes = masks.read(request.mask)
        masks.fitting(painted, picture.size)
        if masks.is_full(painted):
            return cls(picture, None, (*notes, "The mask covers the whole start picture: all of it may change."))
        return cls(picture, painted, notes)

    def on_canvas(self, size: tuple[int, int], upscale: int) -> Scene:
        """Start picture and mask, both cut in the same way.

        Args:
            size: of the canvas, multiples of 8.
            upscale: how many times as large the picture is to be saved.

        Raises:
            RequestError: what is painted lies outside the canvas.
        """
        picture, move = framing.cover(self.picture, *size)
        if self.painted is None:
            return Scene(picture, move)
        mask = masks.cells(framing.cut_alike(self.painted, self.picture.size, size))
        if not mask.getbbox():
            raise RequestError(
                f"At {size[0]}×{size[1]} the painted part of the start picture is cut off: "
                "choose a size in the shape of the start picture, or leave the size open."
            )
        factor = framing.enlargement(size, upscale, LEAST_SIDE)
        saved = (size[0] * factor, size[1] * factor)
        drawn = masks.softened(framing.cut_alike(self.painted, self.picture.size, saved))
        return Scene(picture, move, mask, masks.Kept(framing.cover(self.picture, *saved)[0], drawn))
