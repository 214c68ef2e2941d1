"""What a training step takes: pictures, words, maps, and thumbnails with parts left free; all drawn by lot.

A thread draws ahead, so that the networks never wait; no picture is ever drawn twice.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from instantid_demo.faces import appearance
from instantid_demo.faces import keypoints as keypoint_maps
from instantid_demo.faces.face import estimate_pose
from instantid_demo.training.faces import Faces, views
from instantid_demo.training.labelling.labels import Labels
from instantid_demo.training.pictures import RESOLUTION, Drawn, draw_picture
from instantid_demo.training.rendered_styles import KEEPS_THE_GROUND

HELD_OUT = 200
"""The last persons are never trained on; the evaluation during training draws them."""

GRAINS = (24, 20, 16, 12, 8)
GRAIN_CHANCES = (0.35, 0.15, 0.2, 0.18, 0.12)
PART_CHANCE = 0.25
"""Of each part of the face to be left free, in thumbnails that lose parts at all."""
UNKNOWN_WEIGHT = 0.12
"""What pixels count in losses that compare them where nothing told the networks what is there."""
MIRRORED_WEIGHT = 0.4
"""The same where the thumbnail shows the mirror image."""

_SOFT, _OLD, _EXTREME = 0.4, 2.0, 1.5
_RARE = {"bald": 8.0, "blond": 4.0, "sad": 2.0, "lipstick": 2.0, "hat": 1.5, "sunglasses": 1.5, "beard": 1.5}
"""How much more often photographs are drawn that show what few do."""


@dataclass(frozen=True)
class Drops:
    """Chances of leaving conditions out of a training example; what remains of 1 keeps everything.

    Attributes:
        all: nobody, no words.
        person: embedding and thumbnail; the words stay and get work to do.
        embedding: the embedding alone.
        thumbnail: the thumbnail alone.
        parts: some parts of the thumbnail.
        words: all words, whatever else.
        map: the keypoint map, whatever else.
    """

    all: float = 0.04
    person: float = 0.12
    embedding: float = 0.04
    thumbnail: float = 0.15
    parts: float = 0.33
    words: float = 0.08
    map: float = 0.06


@dataclass
class Batch:
    """`n` examples.

    Attributes:
        pictures: `(n, 3, 128, 128)` in -1..1.
        sequence: `(n, 17, 128)`: embedding, then the thumbnail's rows; zeros where left out.
        maps: `(n, 3, 128, 128)` in 0..1.
        mapped: `(n, 1, 1, 1)`: 1, or 0 where the map is left out.
        ids: `(n, 77)` token ids.
        keypoints: `(n, 5, 2)` pixels.
        person: `(n,)` rows of the training persons.
        known: `(n, 1, 32, 32)` in 0..1: how well the conditions say what is in each place.
        likeness: `(n,)` 1 where the person may be judged: embedding and map are told and the style keeps faces.
    """

    pictures: Tensor
    sequence: Tensor
    maps: Tensor
    mapped: Tensor
    ids: Tensor
    keypoints: Tensor
    person: Tensor
    known: Tensor
    likeness: Tensor


class Drawer:
    """Draws batches from the photographs; iterating never ends. Held-out and dropped persons never appear."""

    def __init__(
        self, faces: Faces, labels: Labels, tokenizer: CLIPTokenizer, styled: float, drops: Drops, seed: int
    ) -> None:
        """`styled`: share of pictures in a style."""
        self.faces, self.labels, self.tokenizer = faces, labels, tokenizer
        self.styled, self.drops = styled, drops
        chances = weights(faces, labels)
        chances[-HELD_OUT:] = 0
        self.chances = chances / chances.sum()
        self.draw = np.random.default_rng(seed)

    def ahead(self, size: int, depth: int = 4) -> Iterator[Batch]:
        """Batches, drawn by a thread of its own."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(depth)

        def work() -> None:
            cv2.setNumThreads(1)
            try:
                while True:
                    ready.put(self.of(self.draw.choice(len(self.chances), size, p=self.chances)))
            except BaseException as error:  # handed over: nobody would hear of it in this thread
                ready.put(error)

        threading.Thread(target=work, daemon=True).start()
        while True:
            batch = ready.get()
            if isinstance(batch, BaseException):
                raise batch
            yield batch

    def of(self, rows: np.ndarray, drop: bool = True, grain: int | None = None) -> Batch:
        """Examples of the photographs `rows`; without `drop` plain ones that are told everything, at `grain`."""
        drawn = [
            draw_picture(self.faces, self.labels, row, drop and self.draw.random() < self.styled, drop, self.draw)
            for row in rows
        ]
        told = [self._told(row, picture, drop, grain) for row, picture in zip(rows, drawn, strict=True)]
        pictures = torch.from_numpy(np.stack([one.picture for one in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1
        keypoints = np.stack([one.keypoints for one in drawn])
        words = [one.caption if one_told.words else "" for one, one_told in zip(drawn, told, strict=True)]
        ids = self.tokenizer(words, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        return Batch(
            pictures.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(np.stack([one.sequence for one in told])),
            keypoint_tensor(keypoints),
            torch.tensor([float(one.map) for one in told]).view(-1, 1, 1, 1),
            ids,
            torch.from_numpy(keypoints),
            torch.from_numpy(np.asarray(rows)),
            torch.from_numpy(np.stack([one.known for one in told]))[:, None],
            torch.tensor([float(one.likeness) for one in told]),
        )

    def _told(self, row: int, picture: Drawn, drop: bool, grain: int | None) -> "_Told":
        """What is told of one example."""
        draw, drops = self.draw, self.drops
        case = "whole"
        if drop:
            cases = ("all", "person", "embedding", "thumbnail", "parts")
            limits = np.cumsum([getattr(drops, name) for name in cases])
            case = (*cases, "whole")[int(np.searchsorted(limits, draw.random(), side="right"))]
        sequence = np.zeros((1 + appearance.ROWS, appearance.WIDTH), np.float32)
        certain = np.zeros((appearance.SIDE, appearance.SIDE), np.float32)
        if embedded := case not in ("all", "person", "embedding"):
            embedding = self.faces.embeddings[row, int(draw.integers(2))]
            noisy = embedding + (0.02 * draw.standard_normal(len(embedding)).astype(np.float32) if drop else 0)
            sequence[0] = noisy / np.linalg.norm(noisy)
        if case not in ("all", "person", "thumbnail"):
            other = drop and draw.random() < mirror_chance(self.faces.keypoints[row, 0])
            photo, keypoints = views(self.faces.pictures[row], self.faces.keypoints[row])[picture.mirror != other]
            small = appearance.thumbnail(photo, keypoints, small_change(draw) if drop else None)
            if drop:
                small = relit(small, draw)
            if case == "parts":
                small = with_holes(small, draw)
            own = picture.scene is None and (picture.style is None or picture.style in KEEPS_THE_GROUND)
            certain = small[..., 3] if own else appearance.freed(small, ["ground"])[..., 3]
            if not own and draw.random() < 0.8:  # words say what is behind the person
                small = appearance.freed(small, ["ground"])
            sequence[1:] = appearance.rows(small, grain or int(draw.choice(GRAINS, p=GRAIN_CHANCES)))
            certain = certain * (MIRRORED_WEIGHT if other else 1)
        lost_words, lost_map = draw.random(2) < ((drops.words, drops.map) if drop else (0, 0))
        return _Told(
            sequence,
            in_picture(certain, picture.keypoints),
            not (lost_words or case == "all"),
            not lost_map,
            embedded and not lost_map and picture.judged,
        )


@dataclass(frozen=True)
class _Told:
    """What is told of one example: rows for the Resampler, the known part `(32, 32)`, words, map; and who may judge."""

    sequence: np.ndarray
    known: np.ndarray
    words: bool
    map: bool
    likeness: bool


def weights(faces: Faces, labels: Labels) -> np.ndarray:
    """How often each photograph is drawn `(n,)`: never a spoilt one, seldom a soft one, rare looks more often."""
    skin = labels.measured("skin_L")
    low, high = np.percentile(skin, (12, 88))
    chances = np.where(labels.drop == 0, 1.0, 0.0)
    chances *= np.where(labels.sharpness < 1 / 3, _SOFT, 1)
    chances *= np.where(np.isin(faces.age, ("50-59", "60-69", "70+")), _OLD, 1)
    chances *= np.where((skin < low) | (skin > high), _EXTREME, 1)
    rare = [np.where(labels.words[word] == 1, factor, 1) for word, factor in _RARE.items()]
    return chances * np.max(rare, axis=0)


def mirror_chance(keypoints: np.ndarray) -> float:
    """How often a thumbnail shows the mirror image: the only other view of a person there is, if they look aside."""
    return 0.4 if abs(estimate_pose(keypoints).yaw) > 10 else 0.05


def small_change(draw: np.random.Generator) -> np.ndarray:
    """A slight turn, zoom and shift `(2, 3)` about the middle, so that a thumbnail tells things, not pixels."""
    angle, zoom = np.radians(draw.normal(0, 2)), np.exp(draw.normal(0, 0.03))
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([0.5, 0.5])
    return np.concatenate([turn, (middle - turn @ middle + draw.normal(0, 0.015, 2))[:, None]], 1)


def relit(small: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A thumbnail a little brighter, warmer and noisier, or the opposite."""
    gain = np.exp(draw.normal(0, 0.04)) * np.exp(draw.normal(0, 0.02, 3))
    light = small[..., :3] * gain + draw.normal(0, 0.015, small[..., :3].shape)
    return np.dstack([np.clip(light, 0, 1), small[..., 3]]).astype(np.float32)


def with_holes(small: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A thumbnail that lost some parts of the face, or a rectangle."""
    if draw.random() < 0.75:
        lost = [part for part in appearance.PARTS if draw.random() < PART_CHANCE]
        return appearance.freed(small, lost or [appearance.PARTS[int(draw.integers(len(appearance.PARTS)))]])
    small = small.copy()
    corner, size = draw.integers(0, 18, 2), draw.integers(6, 16, 2)
    small[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1], 3] = 0
    return small


def in_picture(certain: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """`(32, 32)`: how well each place of a 128 picture with these keypoints is known from a thumbnail."""
    move = appearance.move_onto(keypoints, appearance.SIDE)  # picture -> thumbnail
    scale = RESOLUTION // 32
    shift = move[:, :2] @ np.full(2, (scale - 1) / 2) + move[:, 2]
    back = np.concatenate([move[:, :2] * scale, shift[:, None]], 1)
    return cv2.warpAffine(certain, back, (32, 32), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def keypoint_tensor(keypoints: np.ndarray) -> Tensor:
    """Keypoint maps `(n, 3, 128, 128)` in 0..1 as the product draws them."""
    maps = [np.asarray(keypoint_maps.draw(RESOLUTION, RESOLUTION, points)) for points in keypoints]
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).float().div(255)


def repeated(batch: Batch, count: int) -> Batch:
    """The batch with its first `count` examples once more at the end."""
    both = {name: torch.cat([value, value[:count]]) for name, value in vars(batch).items()}
    return replace(batch, **both)


def first(batch: Batch, count: int) -> Batch:
    """The first `count` examples."""
    return replace(batch, **{name: value[:count] for name, value in vars(batch).items()})
