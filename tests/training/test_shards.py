"""Photographs in shards, tables and plain folders; faces found once; crops that keep the face."""

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instantid_demo.faces.face import Face
from instantid_demo.request import RequestError
from instantid_demo.training import examples, shards

POINTS = np.array([[20, 20], [40, 20], [30, 30], [22, 40], [38, 40]], np.float32)


class Looker:
    """Finds one face in every picture that is not black; its embedding is the mean colour."""

    name, dimension = "dlib", 3

    def __init__(self) -> None:
        self.looked = 0

    def detect(self, picture, limit=None):
        self.looked += 1
        colour = np.asarray(picture, np.float32).mean((0, 1))
        return [Face(np.zeros(4), 1.0, POINTS, colour, picture)] if colour.sum() else []

    def embed(self, picture, keypoints):
        raise NotImplementedError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "table"
    folder.mkdir()
    colours = {"a.png": (255, 0, 0), "b.png": (0, 255, 0), "c.png": (0, 0, 255), "none.png": (0, 0, 0)}
    for name, colour in colours.items():
        Image.new("RGB", (60, 80), colour).save(folder / name)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "caption", "identity"])
        writer.writerows(
            [["a.png", "first", "Ann"], ["b.png", "", "Ann"], ["c.png", "third", ""], ["none.png", "", ""]]
        )
    return folder


def test_a_table_names_captions_and_identities(table):
    found = shards.photographs(table)
    assert [(photo.key, photo.caption, photo.identity) for photo in found] == [
        ("a.png", "first", "Ann"),
        ("b.png", "", "Ann"),
        ("c.png", "third", "c.png"),
        ("none.png", "", "none.png"),
    ]


def test_shards_hold_the_same_photographs_readable_in_any_order(table, tmp_path):
    before = shards.photographs(table)
    files = shards.write_shards(before, tmp_path / "shards", per_shard=3)
    assert [file.name for file in files] == ["shard-00000.tar", "shard-00001.tar"]
    after = shards.photographs(tmp_path / "shards")
    assert [(photo.caption, photo.identity) for photo in after] == [(p.caption, p.identity) for p in before]
    for one, other in reversed(list(zip(before, after, strict=True))):
        assert one.read() == other.read()
    with tarfile.open(files[0]) as tar:
        assert tar.getnames()[:2] == ["00000000.png", "00000000.json"]
        assert json.loads(tar.extractfile("00000000.json").read()) == {"caption": "first", "identity": "Ann"}


def test_a_plain_folder_will_do(table):
    (table / "metadata.csv").unlink()
    assert [photo.key for photo in shards.photographs(table)] == ["a.png", "b.png", "c.png", "none.png"]


@pytest.mark.parametrize("broken", ["missing", "empty", "no column", "no file", "no tar"])
def test_what_cannot_be_read_is_refused_in_a_sentence(broken, tmp_path):
    if broken != "missing":
        tmp_path = tmp_path / "data"
        tmp_path.mkdir()
    contents = {"no column": ("metadata.csv", "name\nx"), "no file": ("metadata.csv", "file_name\nx.png")}
    contents["no tar"] = ("shard.tar", "not a tar")
    if broken in contents:
        name, text = contents[broken]
        (tmp_path / name).write_text(text)
    with pytest.raises(RequestError):
        shards.photographs(tmp_path / "nowhere" if broken == "missing" else tmp_path)


def test_faces_are_looked_for_once_and_people_averaged(table, tmp_path):
    photos, looker, cache = shards.photographs(table), Looker(), tmp_path / "kept" / "faces.npz"
    first = examples.find_faces(photos, looker, cache)
    assert first.rows.tolist() == [0, 1, 2]
    assert np.array_equal(first.embeddings[0], first.embeddings[1])
    assert first.embeddings[0] == pytest.approx(np.array([1, 1, 0]) * 255 / 2**0.5, rel=1e-5)
    assert first.embeddings[2].tolist() == [0, 0, 255]
    again = examples.find_faces(photos, looker, cache)
    assert looker.looked == 4
    assert np.array_equal(first.embeddings, again.embeddings)
    examples.find_faces(photos[:3], looker, cache)
    assert looker.looked == 7


def test_without_a_face_there_is_nothing_to_train_on(table, tmp_path):
    with pytest.raises(RequestError, match="None of the photographs"):
        examples.find_faces(shards.photographs(table)[3:], Looker(), tmp_path / "faces.npz")


@pytest.mark.parametrize("size", [(60, 200), (200, 60), (60, 60)])
def test_a_crop_keeps_the_face_and_its_keypoints_follow(size):
    picture = Image.new("RGB", size)
    centre = np.array(size) * 0.8 if size[0] != size[1] else np.array([30, 30])
    points = POINTS - POINTS.mean(0) + centre
    for x, y in points.round().astype(int):
        picture.paste((255, 255, 255), (x - 1, y - 1, x + 2, y + 2))
    for seed in range(5):
        crop, moved, sizes = examples.cut(picture, points, 128, np.random.default_rng(seed))
        assert crop.size == (128, 128)
        assert ((moved > -1) & (moved < 128)).all()
        assert sizes[:2] == (size[1], size[0])
        assert sizes[4:] == (128, 128)
        pixels = np.asarray(crop.convert("L"))
        for x, y in moved.round().astype(int).clip(0, 127):
            assert pixels[y, x] > 100


def test_a_batch_has_the_networks_shapes_and_ranges(table, tmp_path):
    photos = shards.photographs(table)
    faces = examples.find_faces(photos, Looker(), tmp_path / "faces.npz")
    made = examples.batch(photos, faces, [2, 1], 64, "a photo", np.random.default_rng(0))
    assert made.pixels.shape == made.maps.shape == (2, 3, 64, 64)
    assert made.captions == ["third", "a photo"]
    assert made.pixels.min() == -1
    assert made.pixels.max() == 1
    assert 0 < made.maps.max() <= 1
    assert made.sizes.shape == (2, 6)
