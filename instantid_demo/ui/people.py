"""Faces that the page shows, made into identities."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from instantid_demo.faces.face import Face
    from instantid_demo.faces.identity import Identity


def identity_of(faces: Sequence["Face"], combine: Literal["average", "concatenate"] = "average") -> "Identity":
    """One identity of several faces of a person, found by the same recogniser.

    Raises:
        RequestError: no face.
    """
    from instantid_demo.faces.identity import Identity
    from instantid_demo.sources import RECOGNISERS

    model = RECOGNISERS[len(faces[0].embedding)] if faces else ""
    return Identity.from_faces(faces, model=model, combine=combine)


def area(box: Any) -> float:
    """Of a box `(4,)`, in square pixels."""
    return float((box[2] - box[0]) * (box[3] - box[1]))


def largest(faces: Sequence["Face"]) -> int:
    """Index of the face with the largest box."""
    return max(range(len(faces)), key=lambda index: area(faces[index].box))
