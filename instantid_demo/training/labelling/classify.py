"""From some hundred hand labels to all photographs: one ridge classifier for each word, judged on labels held out.

Its features are what helper networks see in bands from hair to chin, what can be measured (colours of hair, lips and
skin, opening of the mouth) and a small aligned thumbnail.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HAND_LABELS = Path(__file__).with_name("hand_labels.csv")
_FOLDS = 8
_PENALTY = 0.03


@dataclass(frozen=True)
class Judged:
    """What a classifier makes of all photographs, and how it did on labels that it had not seen.

    Attributes:
        score: `(n,)` float32; of photographs with a hand label, by a classifier that did not see that label.
        threshold: Scores above it get the word.
        denial: Scores below it surely do not deserve the word.
        auc: Share of pairs of a labelled yes and a labelled no that the held-out scores put in order.
        precision: Share of labelled yes among held-out scores above the threshold.
        recall: Share of labelled yes above the threshold.
    """

    score: np.ndarray
    threshold: float
    denial: float
    auc: float
    precision: float
    recall: float


def read_labels(files: list[str], path: Path = HAND_LABELS) -> dict[str, np.ndarray]:
    """Word -> `(n,)` int8 for photographs in the order of `files`: 1 yes, 0 no, -1 unsure or not looked at."""
    at = {name: index for index, name in enumerate(files)}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] in at]
    words = [word for word in rows[0] if word != "file"]
    labels = {word: np.full(len(files), -1, np.int8) for word in words}
    for row in rows:
        for word in words:
            if row[word]:
                labels[word][at[row["file"]]] = int(row[word])
    return labels


def kernel(parts: list[tuple[np.ndarray, float]], rows: np.ndarray) -> np.ndarray:
    """Likeness `(n, len(rows))` of all photographs to the photographs `rows`.

    Args:
        parts: Groups of features `(n, d)` with their weights; features are standardised, unknown ones count as mean.
        rows: Indices of labelled photographs.
    """
    total = np.zeros((len(parts[0][0]), len(rows)), np.float32)
    for values, weight in parts:
        values = values.astype(np.float32)
        mean, deviation = np.nanmean(values, 0), np.nanstd(values, 0) + 1e-4
        values = np.nan_to_num(np.clip((values - mean) / deviation, -4, 4))
        some = values[rows]
        squared = (values**2).sum(1)[:, None] + (some**2).sum(1)[None] - 2 * values @ some.T
        total += weight * np.maximum(squared, 0) / values.shape[1]
    return np.exp(-0.5 * total / sum(weight for _, weight in parts)).astype(np.float32)


def judge(likeness: np.ndarray, rows: np.ndarray, labels: np.ndarray, least_precision: float = 0.9) -> Judged:
    """Trains a classifier on hand labels and scores all photographs; too few labels say nothing of anybody.

    Args:
        likeness: `(n, len(rows))` of `kernel`.
        rows: `(m,)` indices of the labelled photographs.
        labels: `(m,)` 1 or 0.
        least_precision: Precision on held-out labels that the threshold must reach.
    """
    if min((labels == 1).sum(), (labels == 0).sum()) < _FOLDS:
        return Judged(np.zeros(len(likeness), np.float32), np.inf, -np.inf, 0.5, 0.0, 0.0)
    held_out = np.zeros(len(rows), np.float32)
    # Neighbours in the list of labels share folds with nobody in particular: a fixed shuffle.
    fold = np.random.default_rng(0).permutation(len(rows)) % _FOLDS
    for number in range(_FOLDS):
        known, asked = fold != number, fold == number
        held_out[asked] = likeness[rows[asked]][:, known] @ _weights(likeness[rows[known]][:, known], labels[known])
    score = likeness @ _weights(likeness[rows], labels)
    score[rows] = held_out
    yes, no = held_out[labels == 1], held_out[labels == 0]
    auc = float((yes[:, None] > no[None]).mean())
    order = np.argsort(-held_out)
    hits = np.cumsum(labels[order])
    precision = hits / np.arange(1, len(order) + 1)
    threshold = float(held_out.max() + 1)
    # Few yes were looked for among the likeliest: their precision elsewhere is higher than it seems here.
    aims = ((0.96, 0.6), (least_precision, 0.0)) if len(yes) > 80 else ((least_precision, 0.0),)
    for aim, least_recall in aims:
        # The last place down the list where the precision still holds; single lucky first places do not count.
        good = np.flatnonzero((precision >= aim) & (hits >= min(10, len(yes) // 2)))
        if len(good) and hits[good[-1]] >= least_recall * len(yes):
            threshold = float(held_out[order[good[-1]]])
            break
    denial = float(min(np.quantile(yes, 0.04), threshold))
    above = held_out >= threshold
    return Judged(
        score.astype(np.float32),
        threshold,
        denial,
        auc,
        float(labels[above].mean()) if above.any() else 0.0,
        float(above[labels == 1].mean()),
    )


def _weights(likeness: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ridge weights with both answers counting the same: a rare word would be denied to everybody otherwise."""
    share = labels.mean()
    balance = np.where(labels == 1, 0.5 / max(share, 1e-6), 0.5 / max(1 - share, 1e-6))
    system = likeness.astype(np.float64) + np.diag(_PENALTY * len(labels) / 100 / balance)
    return np.linalg.solve(system, np.where(labels == 1, 1.0, -1.0)).astype(np.float32)
