"""The figures themselves, on embeddings whose answers are known."""

import numpy as np
import pytest

from instantid_demo.evaluation import scores

AXES = np.eye(4, dtype=np.float32)


def test_perfect_queries_are_found_and_nearest():
    found = scores.compare([3 * axis for axis in AXES], AXES)
    assert found.summary() == {
        "face_found": 1.0,
        "rank1": 1.0,
        "matched_cosine": 1.0,
        "mismatched_cosine": 0.0,
        "separation": 1.0,
    }


def test_a_swapped_pair_and_a_missing_face_count_as_misses():
    found = scores.compare([AXES[1], AXES[0], AXES[2], None], AXES)
    assert found.ranks == (1, 1, 0, None)
    assert found.rank1 == 0.25
    assert found.found == 0.75
    assert len(found.matched) == 3
    assert len(found.mismatched) == 9


def test_the_rank_counts_those_who_are_nearer():
    query = np.array([0.5, 0.9, 0.7, 0.1])
    assert scores.compare([query, None, None, None], AXES).ranks[0] == 2


def test_without_any_face_there_are_no_means():
    found = scores.compare([None, None], AXES[:2])
    assert found.summary()["matched_cosine"] is None
    assert found.rank1 == 0


def test_queries_and_references_must_pair_up():
    with pytest.raises(ValueError, match="3 queries"):
        scores.compare([None] * 3, AXES)


def test_keypoint_error_is_in_eye_distances():
    wanted = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)
    assert scores.keypoint_error(wanted + np.array([4, 0]), wanted) == pytest.approx(0.1)


def test_keypoint_error_of_a_profile_does_not_explode():
    wanted = np.array([[50, 40], [50, 40], [70, 60], [55, 80], [55, 80]], np.float32)
    assert scores.keypoint_error(wanted + np.array([2, 0]), wanted) == pytest.approx(0.1, rel=0.02)


def test_look_alikes_are_counted_once_per_pair():
    close = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0]])
    assert scores.look_alikes(close) == {"pairs": 1, "closest": pytest.approx(0.9939, abs=1e-4)}


def test_distribution_of_nothing_is_empty():
    assert scores.distribution(np.zeros(0)) == {}
    assert scores.distribution(np.arange(101.0))["p95"] == 95
