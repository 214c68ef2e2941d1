"""The labels of all training photographs: what captions may say of them, and which ones training leaves out."""

import csv
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instantid_demo.training.labelling import classify, measures, networks

log = logging.getLogger(__name__)

_WEIGHTS = (("features", 1.0), ("measures", 0.3), ("thumbnails", 0.1), ("expressions", 0.1))
_ANGRY, _SAD = 0, 4
DROPPED = ("", "painted or costumed", "coloured light", "hidden face", "blurred")
"""Reasons of `drop.npy`, by number."""


@dataclass(frozen=True)
class Labels:
    """Labels of `n` photographs.

    Attributes:
        words: Word -> `(n,)` int8: 1 yes, 0 surely not, -1 do not say. Words: smile, laugh, sad, angry, serious,
            glasses, sunglasses, beard, moustache, bald, grey, blond, brown, dark (hair), hat, scarf, lipstick,
            hand (before the face), black and white, frontal.
        measures: `(n, len(measures.NAMES))` float32.
        age: `(n,)` float32 years as a network sees them.
        person: `(n, 160, 160)` uint8, 255 on the person.
        cut_out: `(n,)` bool: the person mask holds the whole face, so that something can stand behind it.
        free: `(n,)` bool: the head is whole enough to be shown smaller.
        drop: `(n,)` uint8, index into `DROPPED`.
        sharpness: `(n,)` float32, rank in 0..1; 0 the softest.
    """

    words: dict[str, np.ndarray]
    measures: np.ndarray
    age: np.ndarray
    person: np.ndarray
    cut_out: np.ndarray
    free: np.ndarray
    drop: np.ndarray
    sharpness: np.ndarray

    def measured(self, name: str) -> np.ndarray:
        """One column of `measures`."""
        return self.measures[:, measures.NAMES.index(name)]


def prepare(source: Path, pictures: np.ndarray, out: Path) -> Labels:
    """Makes the labels of all photographs in `out`, or reads them there.

    Args:
        source: Folder of the photographs, with `labels.csv`.
        pictures: `(n, 160, 160, 3)` uint8 in the order of `labels.csv`.
        out: Folder for the labels; the helper networks are fetched into it.

    Raises:
        RequestError: The helper networks cannot be fetched.
    """
    if not (out / "report.json").exists():
        with (source / "labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        networks.look(pictures, networks.fetch(out / "networks"), out)
        write(pictures, [row["file"] for row in rows], [row["sex"] for row in rows], out)
    return load(out)


def load(folder: Path) -> Labels:
    """What `write` wrote.

    Raises:
        FileNotFoundError: The labels were not made.
    """
    words = np.load(folder / "words.npy")
    names = json.loads((folder / "words.json").read_text())
    return Labels(
        {name: words[:, column] for column, name in enumerate(names)},
        np.load(folder / "measures.npy"),
        np.load(folder / "age_sex.npy")[:, 0],
        np.load(folder / "person.npy", mmap_mode="r"),
        np.load(folder / "cut_out.npy"),
        np.load(folder / "free.npy"),
        np.load(folder / "drop.npy"),
        np.load(folder / "sharpness.npy"),
    )


def write(pictures: np.ndarray, files: list[str], sex: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """Turns what the networks saw (`networks.look`) into words; writes `words.npy` and the rest beside it.

    Args:
        pictures: `(n, 160, 160, 3)` uint8.
        files: Names of the photographs, as the hand labels name them.
        sex: man or woman for each.
        folder: Where `networks.look` wrote.

    Returns:
        Word -> how its classifier did on held-out hand labels.
    """
    person, mesh = np.load(folder / "person.npy", mmap_mode="r"), np.load(folder / "mesh.npy", mmap_mode="r")
    seen = [_measured(picture, points, mask) for picture, points, mask in zip(pictures, mesh, person, strict=True)]
    measured, thumbnails = (np.stack(column) for column in zip(*seen, strict=True))
    np.save(folder / "measures.npy", measured)
    expression = (np.load(folder / "emotion.npy") + np.load(folder / "emotion_close.npy")) / 2
    groups = {
        "features": np.load(folder / "features.npy", mmap_mode="r"),
        "measures": measured,
        "thumbnails": thumbnails,
        "expressions": np.log(expression + 1e-3),
    }
    judged = _judged(groups, classify.read_labels(files))
    words = decide(judged, measured, expression, np.array(sex) == "man")
    column = {name: measured[:, index] for index, name in enumerate(measures.NAMES)}
    inside = np.array([_face_share(mask, points) for mask, points in zip(person, mesh, strict=True)])
    np.save(folder / "words.npy", np.stack(list(words.values()), 1))
    (folder / "words.json").write_text(json.dumps(list(words)))
    np.save(folder / "cut_out.npy", inside > 0.9)
    np.save(folder / "free.npy", (inside > 0.9) & (np.nan_to_num(column["hair_share"]) > 0.05) & _hair_on_top(column))
    np.save(folder / "drop.npy", dropped(judged, column, words))
    np.save(folder / "sharpness.npy", sharpness(column))
    report = {
        word: {
            "auc": one.auc,
            "precision": one.precision,
            "recall": one.recall,
            "photos": int((words[word] == 1).sum()),
        }
        for word, one in judged.items()
        if word in words
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    return report


def decide(
    judged: dict[str, classify.Judged], measured: np.ndarray, expression: np.ndarray, man: np.ndarray
) -> dict[str, np.ndarray]:
    """Words of `Labels.words`: the confident classifiers' yes and no, and what follows from several of them."""
    column = {name: measured[:, index] for index, name in enumerate(measures.NAMES)}
    words = {word: _answers(one) for word, one in judged.items() if word not in ("drop", "bw")}
    for word in ("beard", "moustache"):
        words[word][~man] = np.where(words[word][~man] == 1, -1, 0)
    words["lipstick"][man] = -1
    words["glasses"][words["sunglasses"] == 1] = -1
    covered = (words["hat"] == 1) | (words["scarf"] == 1)
    for word in ("bald", "grey", "blond", "brown"):
        words[word][covered & (words[word] == 1)] = -1

    smile, opened = words["smile"], column["mouth_open"]
    words["laugh"] = _between((smile == 1) & (opened > 0.13), (smile == 0) | (opened < 0.08))
    words["serious"] = _between((smile == 0) & (opened < 0.06), smile == 1)
    words["sad"] = _between((expression[:, _SAD] > 0.7) & (smile == 0), smile == 1)
    words["angry"] = _between((expression[:, _ANGRY] > 0.7) & (smile == 0), smile == 1)
    words["black and white"] = _between(column["chroma"] < 3, column["chroma"] > 6)
    covered = (words["hat"] != 0) | (words["scarf"] != 0)
    plain = (words["grey"] == 0) & (words["blond"] == 0) & (words["bald"] != 1) & (words["brown"] != 1) & ~covered
    known = column["hair_share"] > 0.03
    words["dark"] = _between(plain & known & (column["hair_L"] < 33), plain & known & (column["hair_L"] > 50))
    turned = np.abs(column["mesh_turn"])
    words["frontal"] = _between((turned < 0.07) & (np.abs(column["mesh_tilt"]) < 7), turned > 0.15)
    return words


def dropped(
    judged: dict[str, classify.Judged], column: dict[str, np.ndarray], words: dict[str, np.ndarray]
) -> np.ndarray:
    """Why a photograph should not be learned from, `(n,)` index into `DROPPED`."""
    reason = np.zeros(len(column["chroma"]), np.uint8)
    coloured = column["chroma"] >= 6
    # Cheeks of people of every colour are reddish yellow: blue, green, violet or glowing red ones are lit so.
    odd = (column["skin_b"] < -1) | (column["skin_a"] < -3) | (column["skin_a"] > 42) | (column["skin_b"] > 58)
    reason[sharpness(column) < 0.015] = 4
    reason[(words["hand"] == 1) & (judged["hand"].score > judged["hand"].threshold)] = 3
    reason[judged["drop"].score > judged["drop"].threshold] = 1
    reason[coloured & odd] = 2
    return reason


def sharpness(column: dict[str, np.ndarray]) -> np.ndarray:
    """Rank `(n,)` 0..1 of the face's sharpness: contours count in part against the contrast that the light makes."""
    edges = np.nan_to_num(np.log(column["sharpness"]) + 0.5 * np.log(column["sharpness_ratio"]), nan=-100)
    return (np.argsort(np.argsort(edges)) / max(len(edges) - 1, 1)).astype(np.float32)


def _measured(picture: np.ndarray, mesh: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = mesh.astype(np.float32)
    return measures.measure(picture, points, person), measures.thumbnail(picture, points)


def _judged(groups: dict[str, np.ndarray], hand: dict[str, np.ndarray]) -> dict[str, classify.Judged]:
    rows = np.flatnonzero(np.any([answers >= 0 for answers in hand.values()], 0))
    likeness = classify.kernel([(groups[name], weight) for name, weight in _WEIGHTS], rows)
    judged = {}
    for word, answers in hand.items():
        known = answers[rows] >= 0
        judged[word] = classify.judge(likeness[:, known], rows[known], answers[rows[known]].astype(float))
        # A person who looked is right.
        judged[word].score[answers == 1] = np.inf
        judged[word].score[answers == 0] = -np.inf
        one = judged[word]
        log.info("%s: AUC %.3f, precision %.2f at recall %.2f", word, one.auc, one.precision, one.recall)
    return judged


def _answers(one: classify.Judged) -> np.ndarray:
    return _between(one.score >= one.threshold, one.score <= one.denial)


def _between(yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    return np.where(yes, 1, np.where(no, 0, -1)).astype(np.int8)


def _face_share(person: np.ndarray, mesh: np.ndarray) -> float:
    """Share of the mesh's points that lie on the person."""
    x, y = np.clip(np.round(mesh[:, :2].astype(np.float32)), 0, len(person) - 1).astype(int).T
    return float((person[y, x] > 128).mean())


def _hair_on_top(column: dict[str, np.ndarray]) -> np.ndarray:
    """The upper border does not cut through the forehead: what is above it is not of the forehead's lightness."""
    top = np.nan_to_num(column["top_L"], nan=-100)
    return np.abs(top - column["forehead_L"]) > 12
