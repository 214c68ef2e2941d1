"""From photos to people: faces found once per photo, identities made once per set of photos."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from PIL import Image

from instantid_demo.faces import foreign, remarks, turns
from instantid_demo.faces.analysis import FaceAnalyser
from instantid_demo.faces.face import Face
from instantid_demo.faces.identity import Identity, card_metadata
from instantid_demo.faces.photo import content, read, rgb
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings
from instantid_demo.sources import Source

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The most recently used values of a computation, by content."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`, made if it is not known."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return value


@dataclass(frozen=True)
class Seen:
    """What a photo shows."""

    faces: tuple[Face, ...]
    """From left to right, in the pixels of the opened photo as it was given."""
    size: tuple[int, int]
    """Of the opened photo: width, height."""
    scale: float
    """The file's pixels per pixel of it."""
    cut: bool
    """The file lacks its end."""


@dataclass(frozen=True)
class Subject:
    """A person as the user gave them."""

    identity: Identity
    face: Face | None
    """The chosen face of the first photo, turned upright; None where only an identity card was given."""
    notes: tuple[str, ...] = ()


class People:
    """Photos to faces and identities with one recogniser, remembered by the photos' content."""

    def __init__(self, analyser: FaceAnalyser, most: int = 64) -> None:
        """`most`: photos to remember. Only boxes, keypoints, embeddings and crops are kept, in memory."""
        self.analyser = analyser
        self._seen: Recent[Seen] = Recent(most)
        self._subjects: Recent[Subject] = Recent(most)
        # The page looks for faces while a request runs.
        self._lock = threading.RLock()

    def faces(self, photo: Any) -> tuple[Face, ...]:
        """All faces of a photo (path, bytes or PIL), from left to right."""
        return self.seen(photo).faces

    def seen(self, photo: Any) -> Seen:
        """What a photo (path, bytes or PIL) shows.

        Raises:
            RequestError: it cannot be read.
        """
        name = "The picture"
        if isinstance(photo, (str, Path)):
            name, photo = Path(photo).name, content(Path(photo))
        with self._lock:
            return self._seen.get(_key(photo), lambda: self._look(photo, name))

    def remarks(self, photo: Any, face: Face) -> list[str]:
        """Sentences about a photo and the face that was chosen in it."""
        found: list[remarks.Remark] = ["cut"] if self.seen(photo).cut else []
        return [remarks.SENTENCES[remark] for remark in [*found, *remarks.of(face)]]

    def subject(self, photos: Sequence[Path], index: int | None, combine: Literal["average", "concatenate"]) -> Subject:
        """The person of these photos, or of one identity card.

        Args:
            photos: of the same person.
            index: which face of the first photo, from the left; None: the largest. Others: the most similar.
            combine: how several photos become one identity.

        Raises:
            RequestError: a photo shows no face, or not as many as `index` asks for.
        """
        key = (tuple(_key(photo) for photo in photos), index, combine)
        with self._lock:
            return self._subjects.get(key, lambda: self._subject(photos, index, combine))

    def largest(self, photo: Any, index: int | None = None) -> Face:
        """The chosen face of a photo: the `index`-th from the left, or the largest.

        Raises:
            RequestError: there is none, or not as many.
        """
        name = Path(photo).name if isinstance(photo, (str, Path)) else "the picture"
        faces = self.faces(photo)
        if not faces:
            raise RequestError(
                f"No face was found in {name}: choose a photo where the face is larger, upright and well lit."
            )
        if index is None:
            return max(faces, key=area)
        if index >= len(faces):
            count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
            raise RequestError(f"{name} shows {count}, counted from 0: there is no face {index}.")
        return faces[index]

    def match(self, picture: Image.Image, wanted: Sequence[np.ndarray]) -> list[Face | None]:
        """For each person's keypoints `(5, 2)` the nearest face in a made picture, no face twice; None: not found."""
        with self._lock:
            found = list(self.analyser.detect(picture))
        pairs = sorted(
            (float(np.linalg.norm(face.keypoints.mean(0) - points.mean(0))), person, index)
            for person, points in enumerate(wanted)
            for index, face in enumerate(found)
        )
        matched: list[Face | None] = [None] * len(wanted)
        taken: set[int] = set()
        for _, person, index in pairs:
            if matched[person] is None and index not in taken:
                matched[person] = found[index]
                taken.add(index)
        return matched

    def _subject(self, photos: Sequence[Path], index: int | None, combine: Any) -> Subject:
        cards = [photo for photo in photos if foreign.is_identity(photo)]
        if cards and len(photos) > 1:
            raise RequestError("Give one identity card alone, or photos: both together do not mix.")
        if cards:
            return Subject(self._card(Path(cards[0])), None)
        first = self.largest(photos[0], index)
        faces = [first, *(self._alike(photo, first) for photo in photos[1:])]
        identity = Identity.from_faces(faces, model=self.analyser.name, combine=combine)
        notes = [
            f"Photo {number}: {remark[0].lower()}{remark[1:]}" if len(photos) > 1 else remark
            for number, (photo, face) in enumerate(zip(photos, faces, strict=True), start=1)
            for remark in self.remarks(photo, face)
        ]
        notes += [
            f"Photo {number + 1} looks like someone else: the likeness may be better without it."
            for number in identity.outliers
        ]
        upright = turns.turned_face(first, turns.quarters_of([first]), self.seen(photos[0]).size)
        return Subject(identity, upright, tuple(notes))

    def _look(self, photo: Any, name: str) -> Seen:
        opened = read(photo, name)
        picture = rgb(opened.picture)
        return Seen(tuple(self.analyser.detect(picture)), picture.size, opened.scale, opened.cut)

    def _alike(self, photo: Path, first: Face) -> Face:
        """In a further photo the face most like the first one's."""
        self.largest(photo)
        return max(self.faces(photo), key=lambda face: cosine(face.embedding, first.embedding))

    def _card(self, file: Path) -> Identity:
        if card_metadata(file):
            identity = Identity.load(file)
            if identity.model != self.analyser.name:
                raise RequestError(
                    f"{file.name} was made with the face recogniser {identity.model}, but this model needs "
                    f"{self.analyser.name}: make the card anew from a photo."
                )
            return identity
        raw = foreign.vectors(file)
        if raw.shape[-1] != self.analyser.dimension:
            raise RequestError(
                f"{file.name} holds {raw.shape[-1]} numbers, but this model's face recogniser, "
                f"{self.analyser.name}, has {self.analyser.dimension}: give a photo instead."
            )
        return Identity(self.analyser.normalised(raw), self.analyser.name, 1 if raw.ndim == 1 else len(raw))


def recogniser(source: Source, settings: Settings) -> FaceAnalyser:
    """The face analyser that a model's adapter was trained with.

    Raises:
        RequestError: its files are not here.
    """
    if source.recogniser == "dlib":
        from instantid_demo.faces.offline import OfflineAnalyser

        return OfflineAnalyser.of((source.folder or settings.pocket) / "face_centre.npy")
    from instantid_demo.faces.antelope import AntelopeAnalyser
    from instantid_demo.models import catalogue

    folder = catalogue.local("antelopev2", settings)
    if folder is None:
        raise RequestError(
            "The face recogniser antelopev2 is not here: run `python -m instantid_demo download antelopev2` first."
        )
    return AntelopeAnalyser(folder)


def area(face: Face) -> float:
    """Of a face's box, in square pixels."""
    x0, y0, x1, y1 = face.box
    return float((x1 - x0) * (y1 - y0))


def cosine(one: Any, other: Any) -> float:
    """Of the angle between two embeddings `(d,)`."""
    return float(np.dot(one, other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _key(photo: Any) -> Hashable:
    """A photo's content as a short key."""
    if isinstance(photo, (str, Path)):
        photo = content(Path(photo))
    if isinstance(photo, bytes):
        return hashlib.sha256(photo).hexdigest()
    return hashlib.sha256(repr((photo.size, photo.mode)).encode() + photo.tobytes()).hexdigest()
