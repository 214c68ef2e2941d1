"""The photo's looks beside the embedding: aligned, small, as free as asked, and nowhere unless asked."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from instantid_demo.faces import appearance
from instantid_demo.faces.identity import Identity
from instantid_demo.request import RequestError

SIDE = 200
POINTS = appearance.KEYPOINTS * SIDE - 0.5


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    draw = np.random.default_rng(0)
    return cv2.resize(draw.integers(0, 255, (12, 12, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def identity(thumbnail: np.ndarray | None, seed: int = 0) -> Identity:
    embedding = np.random.default_rng(seed).standard_normal(128).astype(np.float32)
    return Identity(embedding / np.linalg.norm(embedding), "dlib", thumbnail=thumbnail)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.7, 6.0, 20.0])
def test_a_thumbnail_does_not_depend_on_the_photo_s_size(photo, factor):
    small = appearance.thumbnail(photo, POINTS)
    size = round(SIDE * factor)
    other = cv2.resize(photo, (size, size), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    again = appearance.thumbnail(other, (POINTS + 0.5) * size / SIDE - 0.5)
    assert np.abs(small - again).mean() < 0.02


def test_a_turned_and_shifted_face_gives_the_same_thumbnail(photo):
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 25, 0.8)
    turn[:, 2] += 60
    moved = cv2.warpAffine(photo, turn, (320, 320), borderMode=cv2.BORDER_REFLECT_101)
    again = appearance.thumbnail(moved, POINTS @ turn[:, :2].T + turn[:, 2])
    inner = slice(4, 20), slice(4, 20)
    assert np.abs(appearance.thumbnail(photo, POINTS) - again)[inner].mean() < 0.03


def test_what_lies_outside_of_the_photo_is_not_known(photo):
    cut = appearance.thumbnail(photo[:, : SIDE // 2], POINTS)
    assert cut[:, :11, 3].min() > 0.95
    assert cut[:, 13:, 3].max() < 0.05
    half = appearance.rows(cut).reshape(4, 4, 128)
    assert not half[:, 3].any()
    assert half[:, 0].any()


def test_a_coarser_grain_says_less(photo):
    small = appearance.thumbnail(photo, POINTS)[..., :3]
    left = [np.abs(small - appearance.coarser(small, grain)).mean() for grain in (24, 16, 12, 8)]
    assert left[0] == 0
    assert left == sorted(left)
    assert appearance.grain(1) == appearance.SIDE
    assert appearance.grain(0) == appearance.COARSEST


@pytest.mark.parametrize("part", appearance.PARTS)
def test_a_free_part_leaves_nothing_of_the_photo_behind(photo, part):
    small = appearance.thumbnail(photo, POINTS)
    mask = appearance.part_masks()[part] >= 1
    assert mask.any()
    other = small.copy()
    other[mask, :3] = 1 - other[mask, :3]
    told, others = (appearance.rows(appearance.freed(picture, [part])) for picture in (small, other))
    np.testing.assert_array_equal(told, others)
    assert np.abs(appearance.rows(small) - appearance.rows(other)).max() > 0.1


def test_the_sequence_of_an_identity(photo):
    person = identity(appearance.thumbnail(photo, POINTS))
    np.testing.assert_array_equal(person.sequence(None), person.embedding)
    assert person.sequence(1.0).shape == (17, 128)
    assert not person.sequence(0.0)[1:].any()
    np.testing.assert_array_equal(person.sequence(0.7)[0], person.embedding)
    assert not identity(None).sequence(1.0)[1:].any()


def test_blending_mixes_both_parts_evenly(photo):
    one, two = identity(appearance.thumbnail(photo, POINTS)), identity(appearance.thumbnail(255 - photo, POINTS), 1)
    mixed = one.blend(two, 0.25)
    np.testing.assert_allclose(mixed.thumbnail, 0.75 * one.thumbnail + 0.25 * two.thumbnail, atol=1e-6)
    assert one.blend(identity(None, 1), 0.5).thumbnail is None


def test_a_card_holds_the_looks_only_if_asked(photo, tmp_path: Path):
    person = identity(appearance.thumbnail(photo, POINTS))
    person.save(tmp_path / "plain.safetensors")
    assert Identity.load(tmp_path / "plain.safetensors").thumbnail is None
    person.save(tmp_path / "full.safetensors", thumbnail=True)
    read = Identity.load(tmp_path / "full.safetensors")
    np.testing.assert_array_equal(read.thumbnail, person.thumbnail)
    np.testing.assert_array_equal(read.embedding, person.embedding)


def test_a_card_with_wrong_looks_is_refused(tmp_path: Path):
    identity(np.full((24, 24, 4), 7.0, np.float32)).save(tmp_path / "wrong.safetensors", thumbnail=True)
    with pytest.raises(RequestError, match="damaged"):
        Identity.load(tmp_path / "wrong.safetensors")
