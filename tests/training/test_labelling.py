"""Labels from hand labels, networks and measures, on made-up photographs."""

import csv

import cv2
import numpy as np
import pytest

from instantid_demo.request import RequestError
from instantid_demo.training.labelling import classify, labels, measures, networks
from instantid_demo.training.labelling.classify import Judged

SIZE = 160
SKIN, HAIR, WALL = (200, 150, 120), (40, 30, 25), (60, 90, 200)


def mesh(mouth_open: float = 0.0) -> np.ndarray:
    """A face mesh of ellipses: the points that measures use, the others in the middle of the face."""
    points = np.full((468, 3), 80, np.float32)
    points[:, 1] = 85
    oval = measures._OVAL
    for index, angle in zip(oval, np.linspace(-np.pi / 2, 1.5 * np.pi, len(oval), endpoint=False), strict=True):
        points[index, :2] = 80 + 45 * np.cos(angle), 90 + 55 * np.sin(angle)
    for part, (x, y, wide, tall) in {
        measures._LIPS: (80, 118, 16, 6 + mouth_open / 2),
        measures._MOUTH: (80, 118, 12, 1 + mouth_open / 2),
        measures._CHEEKS[0]: (57, 95, 8, 8),
        measures._CHEEKS[1]: (103, 95, 8, 8),
        measures._EYES[0]: (60, 72, 8, 4),
        measures._EYES[1]: (100, 72, 8, 4),
        measures._UPPER_LIP: (80, 107, 10, 3),
        measures._CHIN: (80, 134, 10, 6),
        measures._FOREHEAD: (80, 50, 15, 8),
    }.items():
        for index, angle in zip(part, np.linspace(0, 2 * np.pi, len(part), endpoint=False), strict=True):
            points[index, :2] = x + wide * np.cos(angle), y + tall * np.sin(angle)
    for index, place in {
        33: (52, 72),
        263: (108, 72),
        61: (64, 118),
        291: (96, 118),
        152: (80, 145),
        10: (80, 35),
        13: (80, 118 - mouth_open / 2),
        14: (80, 118 + mouth_open / 2),
        234: (35, 90),
        454: (125, 90),
        1: (80, 95),
        168: (80, 70),
    }.items():
        points[index, :2] = place
    return points


def photograph() -> tuple[np.ndarray, np.ndarray]:
    """A head with dark hair before a blue wall, and its mask."""
    y, x = np.mgrid[:SIZE, :SIZE]
    head = ((x - 80) / 60) ** 2 + ((y - 85) / 75) ** 2 < 1
    face = ((x - 80) / 45) ** 2 + ((y - 90) / 55) ** 2 < 1
    picture = np.where(face[..., None], SKIN, np.where(head[..., None], HAIR, WALL)).astype(np.uint8)
    return picture, head.astype(np.uint8) * 255


def measured(**changes: float) -> dict[str, float]:
    picture, person = photograph()
    values = measures.measure(picture, mesh(**changes), person)
    return dict(zip(measures.NAMES, values.tolist(), strict=True))


def test_measures_find_the_regions_they_name():
    found = measured()
    assert found["skin_L"] > 60 > found["hair_L"]
    assert found["hair_L"] < 20
    assert found["ground_b"] < -30  # blue
    assert found["ground_share"] == pytest.approx(1 - np.pi * 60 * 75 / SIZE**2, abs=0.03)
    assert found["ground_sd"] < 1
    assert abs(found["mesh_turn"]) < 0.01
    assert abs(found["mesh_tilt"]) < 1


def test_an_open_mouth_measures_wider_and_a_blurred_face_softer():
    assert measured(mouth_open=12)["mouth_open"] > measured(mouth_open=2)["mouth_open"] + 0.1
    picture, person = photograph()
    grainy = np.clip(picture + np.random.default_rng(0).normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
    soft = cv2.GaussianBlur(grainy, (0, 0), 2)
    at = measures.NAMES.index("sharpness")
    assert measures.measure(grainy, mesh(), person)[at] > 2 * measures.measure(soft, mesh(), person)[at]


def test_thumbnails_follow_the_face_when_the_photograph_turns():
    picture, _ = photograph()
    picture[100:] = (180, 30, 30)
    turn = cv2.getRotationMatrix2D((80, 85), 25, 1)
    turned = cv2.warpAffine(picture, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    points = mesh()
    points[:, :2] = points[:, :2] @ turn[:, :2].T + turn[:, 2]
    straight = measures.thumbnail(picture, mesh()).astype(np.float32)
    followed = np.abs(measures.thumbnail(turned, points) - straight).mean()
    assert followed < 0.35 * np.abs(measures.thumbnail(turned, mesh()) - straight).mean()


def likeness(rows: np.ndarray, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and truth of photographs whose second feature tells."""
    features = np.random.default_rng(0).normal(size=(count, 6))
    return classify.kernel([(features, 1.0)], rows), (features[:, 1] > 0.4).astype(float)


def test_a_classifier_learns_what_shows_and_says_how_well_on_labels_held_out():
    rows = np.arange(0, 400, 2)
    kernel, truth = likeness(rows)
    judged = classify.judge(kernel, rows, truth[rows])
    assert judged.auc > 0.95
    assert judged.precision >= 0.9
    unseen = np.setdiff1d(np.arange(400), rows)
    said = judged.score[unseen] >= judged.threshold
    assert truth[unseen][said].mean() >= 0.85
    assert said.sum() > 30
    assert truth[unseen][judged.score[unseen] < judged.denial].mean() < 0.1


def test_labels_that_nothing_shows_give_nobody_the_word():
    rows = np.arange(200)
    kernel, _ = likeness(rows)
    lot = np.random.default_rng(5).integers(0, 2, 200).astype(float)
    judged = classify.judge(kernel, rows, lot)
    assert abs(judged.auc - 0.5) < 0.12
    assert (judged.score >= judged.threshold).sum() == 0


def test_too_few_labels_say_nothing_of_anybody():
    kernel, truth = likeness(np.arange(6))
    judged = classify.judge(kernel, np.arange(6), truth[:6])
    assert not ((judged.score >= judged.threshold) | (judged.score <= judged.denial)).any()


def test_unknown_features_count_as_the_mean():
    features = np.random.default_rng(0).normal(size=(50, 3))
    features[7] = np.nan
    assert np.isfinite(classify.kernel([(features, 1.0)], np.arange(10))).all()


def test_hand_labels_go_to_their_photographs_and_blanks_are_unsure(tmp_path):
    (tmp_path / "some.csv").write_text("file,hat,beard\nb.jpg,1,\nc.jpg,0,1\nz.jpg,1,1\n")
    read = classify.read_labels(["a.jpg", "b.jpg", "c.jpg"], tmp_path / "some.csv")
    assert read["hat"].tolist() == [-1, 1, 0]
    assert read["beard"].tolist() == [-1, -1, 1]


def test_the_committed_hand_labels_hold_names_and_answers_alone():
    with classify.HAND_LABELS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1000
    assert len({row["file"] for row in rows}) == len(rows)
    assert {answer for row in rows for word, answer in row.items() if word != "file"} <= {"", "0", "1"}


def judged_as(scores: list[float]) -> Judged:
    return Judged(np.array(scores, np.float32), 0.5, -0.5, 1, 1, 1)


def decided(count: int, man: list[bool] | None = None, **given: list[float]) -> dict[str, np.ndarray]:
    words = ("smile", "glasses", "sunglasses", "beard", "moustache", "bald", "grey", "blond", "brown", "hat", "scarf")
    nobody = judged_as([-1] * count)
    judged = dict.fromkeys((*words, "lipstick", "hand", "bw", "drop"), nobody)
    judged |= {word: judged_as(scores) for word, scores in given.items()}
    values = np.tile(np.array(list(measured().values()), np.float32), (count, 1))
    return labels.decide(judged, values, np.zeros((count, 7)), np.array(man or [True] * count))


def test_words_are_said_only_where_surely_yes():
    words = decided(3, smile=[1, 0, -1])
    assert words["smile"].tolist() == [1, -1, 0]
    assert words["serious"].tolist() == [0, -1, 1]  # the mouth is closed


def test_words_that_contradict_each_other_are_not_said_together():
    words = decided(2, [False, True], beard=[1, 1], hat=[1, 1], blond=[1, 1], glasses=[1, -1], sunglasses=[1, -1])
    assert words["beard"].tolist() == [-1, 1]
    assert words["blond"].tolist() == [-1, -1]
    assert words["glasses"].tolist() == [-1, 0]
    assert words["lipstick"][1] == -1


def test_dark_hair_is_measured_where_no_other_hair_or_hat_is_possible():
    assert decided(1)["dark"].tolist() == [1]
    assert decided(1, hat=[0])["dark"].tolist() == [-1]
    assert decided(1, grey=[1])["dark"].tolist() == [-1]


def test_faces_in_coloured_light_are_dropped_and_greyscale_ones_are_not():
    found = measured()
    column = {name: np.array([value, value, value], np.float32) for name, value in found.items()}
    column["skin_b"] = np.array((20, -20, -2), np.float32)
    column["chroma"] = np.array((20, 20, 1), np.float32)
    column["sharpness"] = np.array((5, 6, 7), np.float32)
    column["sharpness_ratio"] = column["sharpness"] / 40
    nobody = judged_as([-1, -1, -1])
    reasons = labels.dropped({"hand": nobody, "drop": nobody}, column, {"hand": np.zeros(3, np.int8)})
    assert [labels.DROPPED[reason] for reason in reasons] == ["blurred", "coloured light", ""]


def test_bands_of_activations_go_from_hair_to_chin():
    last, middle = np.zeros((1, 7, 7, 1024), np.float32), np.zeros((1, 14, 14, 512), np.float32)
    last[:, :2] = 1
    middle[:, 11:] = 2
    found = networks.regions(last, middle)
    assert found.shape == (1, 5632)
    assert found[0, :1024].min() == 1
    assert found[0, 1024:-512].max() == 0
    assert found[0, -512:].min() == 2


def test_without_npm_labelling_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match=r"install Node\.js"):
        networks.fetch(tmp_path / "networks")
