"""Made-up training photographs: enough of them that some are held out, all of noise, with labels."""

import numpy as np
import torch
import torch.nn.functional as F

from instantid_demo.faces.appearance import KEYPOINTS
from instantid_demo.settings import ROOT
from instantid_demo.training.drawing import HELD_OUT
from instantid_demo.training.faces import SIZE, Faces
from instantid_demo.training.labelling import measures
from instantid_demo.training.labelling.labels import Labels

POCKET = ROOT / "assets" / "pocket"
PEOPLE = HELD_OUT + 4
WORDS = ("smile", "laugh", "sad", "serious", "glasses", "sunglasses", "beard", "moustache", "bald", "grey", "blond")
WORDS += ("brown", "dark", "hat", "scarf", "lipstick", "hand", "black and white", "frontal", "angry")


def made_up() -> tuple[Faces, Labels]:
    """Photographs of coarse noise, everybody upright in Pocket's framing."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 255, (PEOPLE, 10, 10, 3), np.uint8)
    pictures = coarse.repeat(SIZE // 10, 1).repeat(SIZE // 10, 2)
    embeddings = draw.normal(size=(PEOPLE, 2, 128)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    keypoints = np.broadcast_to(KEYPOINTS * SIZE - 0.5, (PEOPLE, 2, 5, 2)).astype(np.float32)
    centre = np.load(POCKET / "face_centre.npy")
    faces = Faces(pictures, keypoints, embeddings, centre, ["man"] * PEOPLE, ["20-29"] * PEOPLE)
    seen = np.zeros((PEOPLE, len(measures.NAMES)), np.float32)
    seen[:, measures.NAMES.index("skin_L")] = draw.uniform(20, 80, PEOPLE)
    words = {word: np.full(PEOPLE, -1, np.int8) for word in WORDS}
    words["smile"][:] = 1
    yes, no = np.ones(PEOPLE, bool), np.zeros(PEOPLE, bool)
    labels = Labels(
        words,
        seen,
        np.full(PEOPLE, 30, np.float32),
        np.full((PEOPLE, SIZE, SIZE), 255, np.uint8),
        yes,
        no,
        np.zeros(PEOPLE, np.uint8),
        np.ones(PEOPLE, np.float32),
    )
    return faces, labels


class Teacher:
    """Stands in for the helper networks, which are fetched at training time: colours in a coarse grid."""

    def __init__(self, *given: object) -> None: ...

    def stages(self, chips: torch.Tensor) -> list[torch.Tensor]:
        return [F.avg_pool2d(chips, size).permute(0, 2, 3, 1) for size in (4, 8)]


class Second(Teacher):
    def __call__(self, chips: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return self.stages(chips), F.normalize(F.avg_pool2d(chips, 16).flatten(1), dim=-1)


class Judge(Teacher):
    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        return F.normalize(F.avg_pool2d(chips, 28).flatten(1), dim=-1)
