"""From embeddings and keypoints to figures: cosines, ranks, keypoint errors. NumPy only, no networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOOK_ALIKE = 0.6
"""Two references above this cosine count as look-alikes in the report."""


@dataclass(frozen=True)
class Scores:
    """How `n` queries (one per person, in the references' order) compare with `n` references.

    Attributes:
        found: Share of queries with a face.
        matched: `(m,)` cosines of the `m` found queries with their own person.
        mismatched: `(m * (n - 1),)` cosines with everybody else.
        ranks: Per person how many others are nearer to the query than its own reference; None without a face.
    """

    found: float
    matched: np.ndarray
    mismatched: np.ndarray
    ranks: tuple[int | None, ...]

    @property
    def rank1(self) -> float:
        """Share of all queries whose own reference is the nearest; a query without a face counts as missed."""
        return sum(rank == 0 for rank in self.ranks) / max(len(self.ranks), 1)

    def summary(self) -> dict[str, float | None]:
        """The figures of the report, JSON-ready; a mean of nothing is None."""
        matched, mismatched = _mean(self.matched), _mean(self.mismatched)
        apart = None if matched is None or mismatched is None else round(matched - mismatched, 4)
        return {
            "face_found": round(self.found, 4),
            "rank1": round(self.rank1, 4),
            "matched_cosine": matched,
            "mismatched_cosine": mismatched,
            "separation": apart,
        }


def compare(queries: Sequence[np.ndarray | None], references: np.ndarray) -> Scores:
    """Scores of query embeddings `(d,)`, None where no face was found, against references `(n, d)`."""
    if len(queries) != len(references):
        raise ValueError(f"{len(queries)} queries for {len(references)} references")
    known = unit(references)
    matched: list[float] = []
    mismatched: list[np.ndarray] = []
    ranks: list[int | None] = []
    for index, query in enumerate(queries):
        if query is None:
            ranks.append(None)
            continue
        cosines = known @ unit(query)
        others = np.delete(cosines, index)
        matched.append(float(cosines[index]))
        mismatched.append(others)
        ranks.append(int((others > cosines[index]).sum()))
    return Scores(
        len(matched) / max(len(queries), 1),
        np.array(matched),
        np.concatenate(mismatched) if mismatched else np.zeros(0),
        tuple(ranks),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(..., d)` at length 1; a vector of zeros stays one."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def keypoint_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean distance of keypoints `(5, 2)` in units of the wanted face's eye distance.

    In profile both eyes are at one place: the larger of eye distance and half the eyes-to-mouth distance is the unit.
    """
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    eyes = np.linalg.norm(wanted[0] - wanted[1])
    height = np.linalg.norm(wanted[:2].mean(0) - wanted[3:].mean(0))
    return float(np.linalg.norm(found - wanted, axis=1).mean() / max(eyes, height / 2, 1e-6))


def look_alikes(references: np.ndarray) -> dict[str, float | int]:
    """How close different references `(n, d)` are to each other: that bounds rank-1."""
    known = unit(references)
    rows, columns = np.triu_indices(len(known), 1)
    cosines = (known @ known.T)[rows, columns]
    if not len(cosines):
        return {"pairs": 0, "closest": 0.0}
    return {"pairs": int((cosines > LOOK_ALIKE).sum()), "closest": round(float(cosines.max()), 4)}


def distribution(values: np.ndarray) -> dict[str, float]:
    """Percentiles 5, 25, 50, 75 and 95, minimum, maximum and standard deviation of some values; empty for none."""
    if not len(values):
        return {}
    parts = {f"p{share:02d}": float(np.percentile(values, share)) for share in (5, 25, 50, 75, 95)}
    parts |= {"min": float(values.min()), "max": float(values.max()), "std": float(values.std())}
    return {name: round(value, 4) for name, value in parts.items()}


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
