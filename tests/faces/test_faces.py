"""Photos, keypoints, identities and views without any model download."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instantid_demo.faces import likeness, views
from instantid_demo.faces.face import Face, estimate_pose, largest
from instantid_demo.faces.identity import Identity
from instantid_demo.faces.offline import CHIP_KEYPOINTS, OfflineAnalyser, align, embed_chips
from instantid_demo.faces.photo import open_photo
from instantid_demo.request import Place, RequestError, View
from instantid_demo.settings import ROOT

CENTRE = ROOT / "assets" / "pocket" / "face_centre.npy"


@pytest.fixture(scope="module")
def analyser() -> OfflineAnalyser:
    return OfflineAnalyser.of(CENTRE)


def made_face(embedding: np.ndarray) -> Face:
    return Face(np.array([0, 0, 10, 10.0]), 1.0, CHIP_KEYPOINTS * 10, embedding, Image.new("RGB", (8, 8)))


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=128).astype(np.float32)
    return vector / np.linalg.norm(vector)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), "JPEG"),
        saved(Image.new("I;16", (40, 30), 40000), "PNG"),
        saved(Image.new("P", (40, 30)), "GIF"),
        saved(Image.new("LA", (40, 30)), "PNG"),
        saved(Image.new("RGBA", (40, 30), (9, 9, 9, 0)), "WEBP"),
        saved(Image.new("1", (40, 30)), "PNG"),
    ],
)
def test_every_kind_of_picture_becomes_rgb(content: bytes) -> None:
    picture = open_photo(content)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))


def test_pictures_are_turned_upright_and_transparency_is_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_photo(saved(Image.new("RGB", (40, 30)), "JPEG", exif=exif)).size == (30, 40)
    assert open_photo(saved(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), "PNG")).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am a text",
        saved(Image.new("RGB", (400, 300), "red"), "PNG")[:300],
        saved(Image.new("RGB", (4, 4)), "PNG"),
    ],
)
def test_what_is_no_usable_picture_is_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(RequestError, match=r"^[A-Z].*\.$"):
        open_photo(content)


def test_bombs_and_missing_files_are_refused(tmp_path: Path) -> None:
    bomb = saved(Image.new("1", (9000, 9000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(RequestError, match="pixels"):
        open_photo(bomb)
    with pytest.raises(RequestError, match="missing"):
        open_photo(tmp_path / "missing.jpg")


def test_portraits_are_found_once_each(analyser: OfflineAnalyser, portraits: list[Path]) -> None:
    for portrait in portraits[::10]:
        faces = analyser.detect(open_photo(portrait))
        assert len(faces) == 1
        eyes = faces[0].keypoints[1, 0] - faces[0].keypoints[0, 0]
        assert eyes > 20
        assert abs(np.linalg.norm(faces[0].embedding) - 1) < 1e-4


def test_a_close_crop_and_a_turned_photo_are_found(analyser: OfflineAnalyser, portraits: list[Path]) -> None:
    photo = open_photo(portraits[0])
    face = analyser.detect(photo)[0]
    x0, y0, x1, y1 = (int(value) for value in face.box)
    assert analyser.detect(photo.crop((x0, y0, x1, y1)))
    assert analyser.detect(photo.rotate(90, expand=True))


def test_the_same_person_is_told_from_others(analyser: OfflineAnalyser, portraits: list[Path]) -> None:
    people = [analyser.detect(open_photo(portrait))[0].embedding for portrait in portraits[::10]]
    again = []
    for portrait in portraits[::10]:
        photo = open_photo(portrait).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((200, 200))
        again.append(analyser.detect(photo)[0].embedding)
    cosines = np.stack(people) @ np.stack(again).T
    assert (cosines.argmax(1) == np.arange(len(people))).all()
    assert cosines.diagonal().min() > 0.6
    assert cosines[~np.eye(len(people), dtype=bool)].mean() < 0.2


def test_dlib_and_its_copy_agree(portraits: list[Path]) -> None:
    analyser = OfflineAnalyser()
    photo = np.asarray(open_photo(portraits[3]))
    points = analyser.locate(photo)[0]
    ours = analyser.normalised(embed_chips(align(photo, points)[None])[0])
    assert np.abs(ours - analyser.embed(photo, points)).max() < 1e-4


def test_identities_average_concatenate_and_flag_outliers() -> None:
    same = [made_face((unit(1) + 0.3 * unit(seed)).astype(np.float32)) for seed in (11, 12, 13)]
    whole = Identity.from_faces([*same, made_face(unit(99))], model="dlib")
    assert whole.outliers == (3,)
    assert whole.embedding.shape == (128,)
    assert Identity.from_faces(same, model="dlib", combine="concatenate").embedding.shape == (3, 128)


def test_blending_goes_from_one_to_the_other_on_the_sphere() -> None:
    one, two = Identity(unit(1), "dlib"), Identity(unit(2), "dlib")
    assert np.allclose(one.blend(two, 0).embedding, unit(1), atol=1e-6)
    assert np.allclose(one.blend(two, 1).embedding, unit(2), atol=1e-6)
    middle = one.blend(two, 0.5).embedding
    assert abs(np.linalg.norm(middle) - 1) < 1e-5
    assert abs(middle @ unit(1) - middle @ unit(2)) < 1e-5
    with pytest.raises(RequestError):
        one.blend(Identity(np.ones(512, np.float32), "antelopev2"), 0.5)


def test_identity_cards_hold_the_embedding_and_nothing_else(tmp_path: Path) -> None:
    card = tmp_path / "card.safetensors"
    Identity(unit(4), "dlib", photos=3).save(card)
    back = Identity.load(card)
    assert np.array_equal(back.embedding, unit(4))
    assert back.photos == 3
    assert card.stat().st_size < 2000
    assert b"Biometric" in card.read_bytes()
    card.write_bytes(b"no card")
    with pytest.raises(RequestError, match="not an identity card"):
        Identity.load(card)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (30, 0, 0), (-25, 10, 0), (0, -20, 0), (0, 0, 15)])
def test_views_and_the_pose_estimate_agree(yaw: float, pitch: float, roll: float) -> None:
    view = View(yaw=yaw, pitch=pitch, roll=roll)
    found = estimate_pose(views.keypoints_for(view, None, 512, 512, framing="sdxl"))
    assert abs(found.yaw - yaw) < 9
    assert abs(found.pitch - pitch) < 9
    # A head that is turned and nods also tilts its eye line a little.
    assert abs(found.roll - roll) < 6


def test_views_turn_the_way_they_say() -> None:
    assert len(views.NAMED_VIEWS) >= 11
    front = views.keypoints_for(View(), None, 128, 128, framing="pocket")
    right = views.keypoints_for(View(yaw=30), None, 128, 128, framing="pocket")
    up = views.keypoints_for(View(pitch=25), None, 128, 128, framing="pocket")
    assert right[2, 0] - right[:2, 0].mean() > 5 + front[2, 0] - front[:2, 0].mean()
    assert up[2, 1] - up[:2, 1].mean() < front[2, 1] - front[:2, 1].mean() - 3
    placed = views.keypoints_for(View(), Place(x=0.25, y=0.5, size=0.5), 200, 100, framing="sdxl")
    assert abs(placed[:, 0].mean() - 50) < 3


def test_likeness_in_words() -> None:
    one = Identity(unit(1), "dlib")
    assert likeness.compare(one, made_face(unit(1))).word == "strong"
    assert likeness.compare(one, made_face(unit(2))).word == "weak"
    assert likeness.compare(one, None).word == "no face found"
    assert likeness.compare(one, made_face(unit(1)), View(yaw=80)).word == "profile: not comparable"


def test_the_largest_face_and_of_equal_ones_the_later() -> None:
    assert largest([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 5, 5]]) == 1
