"""What a training step takes: pictures, latents, words, maps, and thumbnails with parts left free; drawn by lot.

A thread draws ahead, so that the networks never wait.
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
from instantid_demo.training.pool import RESOLUTION, Pool

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
    parts: float = 0.3
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
    """Draws batches from a pool; iterating never ends. Held-out persons never appear."""

    def __init__(
        self, pool: Pool, faces: Faces, tokenizer: CLIPTokenizer, chances: np.ndarray, drops: Drops, seed: int
    ) -> None:
        """`chances`: `(m,)` of the pool's rows, not normalised; those of held-out persons are ignored."""
        self.pool, self.faces, self.drops = pool, faces, drops
        tokens = tokenizer([*pool.captions, ""], padding="max_length", truncation=True, max_length=77)
        ids = np.array(tokens["input_ids"])
        self.ids, self.no_words = ids[:-1], ids[-1]
        trained = np.where(pool.face < len(faces) - HELD_OUT, chances, 0)
        self.total = np.cumsum(trained / trained.sum())
        self.draw = np.random.default_rng(seed)

    def ahead(self, size: int, depth: int = 4) -> Iterator[Batch]:
        """Batches, drawn by a thread of its own."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(depth)

        def work() -> None:
            cv2.setNumThreads(1)
            try:
                while True:
                    rows = np.searchsorted(self.total, self.draw.random(size))
                    ready.put(self.of(np.minimum(rows, len(self.total) - 1)))
            except BaseException as error:  # handed over: nobody would hear of it in this thread
                ready.put(error)

        threading.Thread(target=work, daemon=True).start()
        while True:
            batch = ready.get()
            if isinstance(batch, BaseException):
                raise batch
            yield batch

    def of(self, rows: np.ndarray, drop: bool = True, grain: int | None = None) -> Batch:
        """The examples of the pool's `rows`; without `drop` everything is told, the thumbnail at `grain`."""
        pool = self.pool
        sequences, known, words, mapped, likeness = [], [], [], [], []
        for row in rows:
            face, keypoints = pool.face[row], pool.keypoints[row]
            told, sequence, certain = self._identity(face, bool(pool.mirror[row]), drop, grain)
            sequences.append(sequence)
            known.append(in_picture(certain, keypoints))
            lose_words, lose_map = self.draw.random(2) < ((self.drops.words, self.drops.map) if drop else (0, 0))
            lose_words = lose_words or told == "nothing"
            words.append(self.no_words if lose_words else self.ids[row])
            mapped.append(0.0 if lose_map else 1.0)
            likeness.append(told in ("both", "embedding") and not lose_map and pool.judged[row])
        pictures = torch.from_numpy(pool.pictures[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
        return Batch(
            pictures.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(np.stack(sequences)),
            keypoint_tensor(pool.keypoints[rows]),
            torch.tensor(mapped).view(-1, 1, 1, 1),
            torch.from_numpy(np.stack(words)).long(),
            torch.from_numpy(pool.keypoints[rows]),
            torch.from_numpy(pool.face[rows]),
            torch.from_numpy(np.stack(known))[:, None],
            torch.tensor(likeness, dtype=torch.float32),
        )

    def _identity(self, face: int, mirror: bool, drop: bool, grain: int | None) -> tuple[str, np.ndarray, np.ndarray]:
        """What is told of a person (both, embedding, thumbnail, nobody, nothing), its rows, and the known part."""
        draw, drops = self.draw, self.drops
        told, parts = "both", False
        if drop:
            limits = np.cumsum([drops.all, drops.person, drops.embedding, drops.thumbnail, drops.parts])
            case = int(np.searchsorted(limits, draw.random(), side="right"))
            told = ("nothing", "nobody", "thumbnail", "embedding", "both", "both")[case]
            parts = case == 4
        sequence = np.zeros((1 + appearance.ROWS, appearance.WIDTH), np.float32)
        certain = np.zeros((appearance.SIDE, appearance.SIDE), np.float32)
        if told in ("both", "embedding"):
            embedding = self.faces.embeddings[face, int(draw.integers(2))]
            noisy = embedding + (0.02 * draw.standard_normal(len(embedding)).astype(np.float32) if drop else 0)
            sequence[0] = noisy / np.linalg.norm(noisy)
        if told in ("both", "thumbnail"):
            other = drop and draw.random() < mirror_chance(self.faces.keypoints[face, 0])
            photo, keypoints = views(self.faces.pictures[face], self.faces.keypoints[face])[mirror != other]
            change = small_change(draw) if drop else None
            small = appearance.thumbnail(photo, keypoints, change)
            if drop:
                small = relit(small, draw)
            if parts:
                small = with_holes(small, draw)
            grain = grain or int(draw.choice(GRAINS, p=GRAIN_CHANCES))
            sequence[1:] = appearance.rows(small, grain)
            certain = small[..., 3] * (MIRRORED_WEIGHT if other else 1)
        return told, sequence, certain


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
    to_small = np.concatenate(
        [move[:, :2] * scale, (move[:, :2] @ np.full(2, (scale - 1) / 2) + move[:, 2])[:, None]], 1
    )
    return cv2.warpAffine(certain, to_small, (32, 32), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def keypoint_tensor(keypoints: np.ndarray) -> Tensor:
    """Keypoint maps `(n, 3, 128, 128)` in 0..1 as the product draws them."""
    maps = [np.asarray(keypoint_maps.draw(RESOLUTION, RESOLUTION, points)) for points in keypoints]
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).float().div(255)


def repeated(batch: Batch, count: int) -> Batch:
    """The batch with its first `count` examples once more at the end."""
    both = {name: torch.cat([value, value[:count]]) for name, value in vars(batch).items()}
    return replace(batch, **both)
