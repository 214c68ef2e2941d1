"""Photos as people bring them: at any size, turned, small, blurred, cut off. The person stays the same."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors.numpy import save_file

from instantid_demo import prepare
from instantid_demo.engine import Engine
from instantid_demo.faces import remarks, turns
from instantid_demo.faces.identity import Identity
from instantid_demo.faces.offline import CHIP_KEYPOINTS, OfflineAnalyser, align
from instantid_demo.faces.photo import open_photo
from instantid_demo.people import People
from instantid_demo.presets import POCKET
from instantid_demo.request import GenerationRequest, RequestError, View
from instantid_demo.settings import ROOT, Settings
from instantid_demo.ui.words import tables

CENTRE = ROOT / "assets" / "pocket" / "face_centre.npy"
EXAMPLES = sorted((ROOT / "assets" / "examples").glob("*.jpg"))
WOMAN = ROOT / "assets" / "examples" / "woman.jpg"


@pytest.fixture
def people() -> People:
    return People(OfflineAnalyser.of(CENTRE))


def as_file(picture: Image.Image, folder: Path, name: str = "photo.jpg", **options) -> Path:
    picture.save(folder / name, **({"quality": 90} | options))
    return folder / name


@pytest.mark.parametrize("distance", [*range(40, 240, 4), *range(240, 1500, 70)])
def test_a_face_of_any_size_is_brought_to_the_chip(distance: int) -> None:
    """The chip shows the pattern that the photo has, wherever the keypoints are and however rounding falls."""
    side = distance * 3
    y, x = np.mgrid[:side, :side] / distance
    photo = np.stack([127 + 100 * np.sin(3 * x), 127 + 100 * np.cos(3 * y), 0 * x], -1).astype(np.uint8)
    shape = (CHIP_KEYPOINTS - 0.5) / (CHIP_KEYPOINTS[1, 0] - CHIP_KEYPOINTS[0, 0])
    for seed in range(3):
        shift = np.random.default_rng(distance + seed).normal(0, 0.02, (5, 2))
        # Symmetric shifts move single points and neither size nor place nor tilt of all of them.
        shift = shift - shift.mean(0)
        chip = align(photo, (shape + 1.5 + 0.1 * shift) * distance - 0.5)
        centre = chip[75, 75].astype(int)
        assert abs(centre[0] - (127 + 100 * np.sin(4.5))) < 12
        assert abs(centre[1] - (127 + 100 * np.cos(4.5))) < 12


@pytest.mark.parametrize("side", [1600, 3024, 4600])
def test_a_phone_photo_is_the_person_of_its_small_copy(people: People, portraits: list[Path], side: int) -> None:
    cosines = []
    for file in [*portraits[side % 7 :: 20], *EXAMPLES]:
        small, photo = people.largest(file), Image.open(file).convert("RGB")
        large = photo.resize((side, side * photo.height // photo.width), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        large.save(buffer, "JPEG", quality=85)
        cosines.append(float(people.largest(buffer.getvalue()).embedding @ small.embedding))
    # The detector gives whole pixels, so that a few are moved by one: the rest is the same to 0.98.
    assert min(cosines) > 0.96
    assert np.mean(np.array(cosines) >= 0.98) >= 0.75


def test_a_turned_photo_is_the_same_person(portraits: list[Path]) -> None:
    analyser, passes = OfflineAnalyser.of(CENTRE), []
    usual = analyser._pass
    analyser._pass = lambda *given: passes.append(1) or usual(*given)  # type: ignore[method-assign]
    for file in portraits[::12]:
        photo = open_photo(file)
        upright = max(analyser.detect(photo), key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
        for quarters in (1, 2, 3):
            lying = turns.turned_picture(photo, quarters)
            faces = analyser.detect(lying)
            assert turns.quarters_of(faces) == -quarters % 4
            face = max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
            assert face.embedding @ upright.embedding > 0.95
            back = turns.turned_face(face, -quarters, lying.size)
            assert np.abs(back.keypoints - upright.keypoints).max() < 2
            assert np.abs(back.box - upright.box).max() < 3
            assert abs(back.pose.roll - upright.pose.roll) < 2
    passes.clear()
    for file in portraits[::12]:
        analyser.detect(open_photo(file))
    assert len(passes) <= len(portraits[::12]) + 3


def test_points_and_boxes_go_with_the_picture() -> None:
    picture = Image.new("L", (7, 4))
    picture.putpixel((5, 1), 255)
    for quarters in turns.QUARTERS:
        ((x, y),) = turns.turned(np.array([[5, 1]]), quarters, picture.size)
        assert turns.turned_picture(picture, quarters).getpixel((round(x), round(y))) == 255
        size = picture.size if quarters % 2 == 0 else picture.size[::-1]
        assert turns.turned(np.array([[x, y]]), -quarters, size).tolist() == [[5, 1]]
        x0, y0, x1, y1 = turns.turned_box(np.array([0, 1, 5, 3]), quarters, picture.size)
        assert x1 > x0
        assert y1 > y0


def test_a_turned_photo_gives_an_upright_subject_and_says_so(people: People, tmp_path: Path) -> None:
    upright = people.subject([WOMAN], None, "average")
    assert upright.notes == ()
    lying = as_file(open_photo(WOMAN).transpose(Image.Transpose.ROTATE_90), tmp_path)
    turned = people.subject([lying], None, "average")
    assert turned.notes == (remarks.SENTENCES["turned"],)
    assert upright.face is not None
    assert turned.face is not None
    assert np.abs(turned.face.keypoints - upright.face.keypoints).max() < 2
    assert abs(turned.face.pose.roll) < 20
    both = people.subject([WOMAN, lying], None, "average")
    assert both.notes == ("Photo 2: the photo was turned upright.",)


def test_small_blurred_and_cut_photos_are_used_with_a_note(people: People, tmp_path: Path) -> None:
    woman = open_photo(WOMAN)
    small = as_file(woman.resize((100, 100 * woman.height // woman.width)), tmp_path, "small.png")
    radius = 6 * woman.width / 400
    blurred = as_file(woman.filter(ImageFilter.GaussianBlur(radius)), tmp_path, "blurred.jpg")
    whole = as_file(woman, tmp_path).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: 9 * len(whole) // 10])
    for file, remark in ((small, "small"), (blurred, "blurred"), (tmp_path / "cut.jpg", "cut")):
        subject = people.subject([file], None, "average")
        assert subject.notes == (remarks.SENTENCES[remark],)
        assert subject.identity.photos == 1


def test_ordinary_portraits_get_no_note(people: People, portraits: list[Path]) -> None:
    assert [file.name for file in portraits[::9] if people.subject([file], None, "average").notes] == []


def test_what_is_said_of_a_photo_is_translated() -> None:
    for remark in ("turned", "small", "blurred"):
        said = [table[f"photo.{remark}"] for table in tables().values()]
        assert tables()["en"][f"photo.{remark}"] == remarks.SENTENCES[remark]
        assert len(set(said)) == len(said)


def prepared(people: People, **fields) -> prepare.Prepared:
    request, settings = GenerationRequest(**fields), Settings()
    defaults = POCKET
    return prepare.prepare(
        request,
        model="pocket",
        family="pocket",
        defaults=defaults,
        recipe=defaults.recipes[request.quality],
        people=people,
        settings=settings,
        text=prepare.words(request, settings),
    )


def test_a_turned_pose_photo_is_turned_upright_and_a_start_picture_is_not(people: People, tmp_path: Path) -> None:
    lying = as_file(open_photo(WOMAN).transpose(Image.Transpose.ROTATE_90), tmp_path)
    posed = prepared(people, face=(WOMAN,), pose=lying)
    assert "The pose photo was turned upright." in posed.notes
    upright = prepared(people, face=(WOMAN,), pose=WOMAN)
    assert np.abs(posed.people[0].keypoints - upright.people[0].keypoints).max() < 2
    assert "The pose photo was turned upright." not in prepared(people, face=(WOMAN,), pose=lying, view=View()).notes
    # There the face stands as the picture has it, for the picture stays.
    started = prepared(people, face=(WOMAN,), init=lying).people[0].keypoints
    assert abs(started[1, 1] - started[0, 1]) > 2 * abs(started[1, 0] - started[0, 0])


def test_everybody_of_a_group_is_looked_after(people: People, tmp_path: Path) -> None:
    lying = as_file(open_photo(WOMAN).transpose(Image.Transpose.ROTATE_180), tmp_path)
    group = [{"face": WOMAN, "region": {"x0": 0, "y0": 0, "x1": 0.5, "y1": 1}}]
    group.append({"face": lying, "region": {"x0": 0.5, "y0": 0, "x1": 1, "y1": 1}})
    made = prepared(people, person=tuple(group))
    assert "Person 2: the photo was turned upright." in made.notes
    assert made.people[1].keypoints[3:, 1].mean() > made.people[1].keypoints[:2, 1].mean()


def test_faces_are_reported_in_the_files_own_pixels(tmp_path: Path) -> None:
    engine = Engine(Settings(home=tmp_path))
    woman = open_photo(WOMAN)
    large = as_file(woman.resize((12 * woman.width, 12 * woman.height)), tmp_path, quality=70)
    ((small,), (found,)) = (engine.report(file, "pocket")["faces"] for file in (WOMAN, large))
    assert large.stat().st_size > 0
    assert np.abs(np.array(found["box"]) / 12 - small["box"]).max() < 8
    assert np.abs(np.array(found["keypoints"]) / 12 - small["keypoints"]).max() < 4


def test_photos_are_only_read_if_they_are_files(people: People, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero"), tmp_path):
        with pytest.raises(RequestError, match=r"is not a file: choose a picture\.$"):
            people.faces(path)
        with pytest.raises(RequestError, match=r"is not a file: choose a picture\.$"):
            people.subject([path], None, "average")


@pytest.mark.parametrize("photos", ["²", "9" * 5000, "-1", "", "three", "٣"])
def test_a_card_may_claim_any_number_of_photos(photos: str, tmp_path: Path) -> None:
    about = {"format": "instantid-identity", "model": "dlib", "photos": photos}
    save_file({"embedding": np.ones(128, np.float32)}, tmp_path / "card.safetensors", metadata=about)
    assert Identity.load(tmp_path / "card.safetensors").photos == 1


def test_a_photo_that_browsers_cannot_show_is_shown_as_a_jpeg(tmp_path: Path) -> None:
    from instantid_demo.ui.photos import as_shown

    file = tmp_path / "woman.heic"
    file.write_bytes((Path(__file__).parent / "data" / "woman.heic").read_bytes())
    shown = Path(as_shown(str(file)))
    assert shown.suffix == ".jpg"
    with Image.open(shown) as picture:
        assert picture.format == "JPEG"
        assert not picture.getexif()
    assert np.abs(np.asarray(open_photo(shown), float) - np.asarray(open_photo(file), float)).mean() < 3
    deep = tmp_path / "depth.tif"
    Image.new("I;16", (64, 64), 20000).save(deep)
    damaged = tmp_path / "damaged.heic"
    damaged.write_bytes(file.read_bytes()[:900])
    # Left as they are: shown already, worth more than a JPEG, or for others to complain about.
    assert not any(isinstance(as_shown(str(kept)), str) for kept in (WOMAN, deep, damaged))
