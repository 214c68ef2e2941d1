"""Who a person is to the model: a face embedding, from one photo or several, that can be kept and blended."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np

from instantid_demo.faces import appearance, foreign
from instantid_demo.faces.face import Face
from instantid_demo.request import FacePart, RequestError

Recogniser = Literal["dlib", "antelopev2"]
DIMENSIONS: dict[str, int] = {"dlib": 128, "antelopev2": 512}
SAME_PERSON: dict[str, float] = {"dlib": 0.4, "antelopev2": 0.3}
"""Cosine below which a photo looks like someone else (dlib: centred; see docs on its measured distributions)."""
NOTICE = "Biometric data of a person. Keep it private; use it only with that person's consent."
CARD_FORMAT = "instantid-identity"
_DIGITS = 4
"""Of the number of photos that a card may claim."""


@dataclass(frozen=True, eq=False)
class Identity:
    """A person's identity.

    Attributes:
        embedding: `(d,)` float32, or `(k, d)` where several photos are kept side by side.
        model: The recogniser that made it: dlib (d = 128) or antelopev2 (d = 512).
        photos: How many photos it came from.
        outliers: Indices of photos that look like someone else.
        thumbnail: `(24, 24, 4)`: what the first photo looks like beside the embedding (see `appearance`), or None.
    """

    embedding: np.ndarray
    model: str
    photos: int = 1
    outliers: tuple[int, ...] = ()
    thumbnail: np.ndarray | None = None

    @classmethod
    def from_faces(
        cls, faces: Sequence[Face], *, model: str, combine: Literal["average", "concatenate"] = "average"
    ) -> Self:
        """One identity from faces of the same person.

        `average` is the mean of the unit embeddings at their mean length (paper's ablation); `concatenate` keeps
        them as one longer sequence for the Resampler, as the reference does.

        Raises:
            RequestError: no face.
        """
        if not faces:
            raise RequestError("No face to make an identity from: choose a photo that shows one.")
        embeddings = np.stack([np.asarray(face.embedding, np.float32) for face in faces])
        outliers = _outliers(embeddings, SAME_PERSON.get(model, 0.3))
        # An average of several thumbnails would be a ghost; light and hair differ from photo to photo.
        thumbnail = faces[0].thumbnail
        if len(faces) == 1:
            return cls(embeddings[0], model, thumbnail=thumbnail)
        if combine == "concatenate":
            return cls(embeddings, model, len(faces), outliers, thumbnail)
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        mean = (embeddings / lengths).mean(0)
        average = (mean / np.linalg.norm(mean) * lengths.mean()).astype(np.float32)
        return cls(average, model, len(faces), outliers, thumbnail)

    @property
    def mean(self) -> np.ndarray:
        """`(d,)`: one vector, whatever the number of photos."""
        return self.embedding if self.embedding.ndim == 1 else self.embedding.mean(0)

    def blend(self, other: "Identity", share: float) -> Self:
        """The identity at `share` of the way to `other` on the sphere; 0 is this one, 1 the other.

        Their thumbnails are aligned by the faces' keypoints and dissolve into each other; with one alone there is none.

        Raises:
            RequestError: the two were made with different recognisers.
        """
        if self.model != other.model:
            raise RequestError("These two identities were made with different face recognisers and cannot be blended.")
        one, two = self.mean.astype(np.float64), other.mean.astype(np.float64)
        lengths = np.linalg.norm(one), np.linalg.norm(two)
        one, two = one / lengths[0], two / lengths[1]
        angle = np.arccos(np.clip(one @ two, -1, 1))
        if angle < 1e-4:
            mixed = one
        elif angle > np.pi - 1e-4:
            raise RequestError("These two faces are exact opposites to the recogniser: choose another photo.")
        else:
            mixed = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * two) / np.sin(angle)
        length = (1 - share) * lengths[0] + share * lengths[1]
        thumbnail = None
        if self.thumbnail is not None and other.thumbnail is not None:
            thumbnail = (1 - share) * self.thumbnail + share * other.thumbnail
        embedding = (mixed * length).astype(np.float32)
        return replace(self, embedding=embedding, photos=self.photos + other.photos, thumbnail=thumbnail)

    def sequence(self, amount: float | None, free: Collection[FacePart] = ()) -> np.ndarray:
        """What the Resampler takes: `(d,)` or `(k, d)`, or `(k + 16, 128)` with the thumbnail's rows behind it.

        Args:
            amount: 0 (the embedding alone) to 1 (all that the thumbnail shows); None: the model takes no thumbnail.
            free: Parts of the face that are left to words and chance.
        """
        if amount is None:
            return self.embedding
        behind = np.zeros((appearance.ROWS, appearance.WIDTH), np.float32)
        if self.thumbnail is not None and amount > 0:
            behind = appearance.rows(appearance.freed(self.thumbnail, free), appearance.grain(amount))
        return np.concatenate([np.atleast_2d(self.embedding), behind])

    def save(self, file: Path, *, thumbnail: bool = False) -> None:
        """Writes an identity card, marked as biometric data: the embedding alone, and the thumbnail only if asked."""
        from safetensors.numpy import save_file

        file.parent.mkdir(parents=True, exist_ok=True)
        about = {"format": CARD_FORMAT, "model": self.model, "photos": str(self.photos), "notice": NOTICE}
        tensors = {"embedding": np.ascontiguousarray(self.embedding, np.float32)}
        if thumbnail and self.thumbnail is not None:
            tensors[foreign.THUMBNAIL] = np.ascontiguousarray(self.thumbnail, np.float32)
        save_file(tensors, file, metadata=about)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Reads an identity card.

        Raises:
            RequestError: the file is missing, damaged, or something else.
        """
        about = card_metadata(file)
        embedding = foreign.vectors(file)
        size = DIMENSIONS.get(about.get("model", ""))
        if embedding.shape[-1] != size:
            raise RequestError(f"{file.name} is not an identity card: choose one that was saved here, or a photo.")
        photos = about.get("photos", "1")
        is_number = photos.isascii() and photos.isdecimal() and len(photos) <= _DIGITS
        return cls(embedding, about["model"], int(photos) if is_number else 1, thumbnail=_thumbnail(file))


def card_metadata(file: Path) -> dict[str, str]:
    """What an identity card says about itself; empty for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as card:
            about = card.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    return about if about.get("format") == CARD_FORMAT else {}


def _thumbnail(file: Path) -> np.ndarray | None:
    """The thumbnail of an identity card, where it has one that can be.

    Raises:
        RequestError: it has one that cannot.
    """
    from safetensors.numpy import load_file

    thumbnail = load_file(file).get(foreign.THUMBNAIL)
    if thumbnail is None:
        return None
    shape = (appearance.SIDE, appearance.SIDE, 4)
    if thumbnail.shape != shape or not (np.isfinite(thumbnail).all() and 0 <= thumbnail.min() <= thumbnail.max() <= 1):
        raise RequestError(f"{file.name} is damaged: make the card anew from a photo.")
    return thumbnail


def _outliers(embeddings: np.ndarray, least: float) -> tuple[int, ...]:
    """Photos whose face is unlike the middle of the others; of two unlike ones the second."""
    if len(embeddings) < 2:
        return ()
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    if len(unit) == 2:
        return (1,) if cosines[0, 1] < least else ()
    others = [np.median(np.delete(row, index)) for index, row in enumerate(cosines)]
    return tuple(index for index, value in enumerate(others) if value < least)
