"""The whole command on an engine that paints flat colours: a person is a colour, so every answer is known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from instantid_demo import sources
from instantid_demo.evaluation import cli, measure, report
from instantid_demo.faces.face import Face
from instantid_demo.request import GenerationRequest, RequestError, Result
from instantid_demo.settings import Settings

COLOURS = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60)]
POINTS = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.38, 0.72], [0.62, 0.72]], np.float32)


class Painter:
    """An engine whose faces are colours. Black pictures show no face."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.asked: list[GenerationRequest] = []

    def warm_up(self, model: str) -> None:
        pass

    def analyse(self, photo, model: str) -> list[Face]:
        picture = Image.open(photo) if isinstance(photo, Path) else photo
        if picture.width == 2 * picture.height:
            return self._halves(picture, model)
        colour = np.asarray(picture.convert("RGB"), np.float32).mean((0, 1))
        if colour.sum() < 30:
            return []
        size = np.array(picture.size, np.float32)
        box = np.array([0.2, 0.2, 0.8, 0.8], np.float32) * np.tile(size, 2)
        return [Face(box, 1.0, POINTS * size, colour - colour.mean(), picture)]

    def _halves(self, picture, model: str) -> list[Face]:
        found = []
        for left in (0, picture.height):
            for face in self.analyse(picture.crop((left, 0, left + picture.height, picture.height)), model):
                face.keypoints[:, 0] += left
                found.append(face)
        return found

    def _together(self, request: GenerationRequest) -> Result:
        made = Image.new("RGB", (request.width, request.height))
        for person in request.person:
            half = Image.open(person.face).resize((request.height, request.height))
            made.paste(half, (round(person.region.x0 * request.width), 0))
        return Result(
            pictures=(made,), seeds=(0,), likeness=(), seconds={"total": 1.0}, request=request, model_name="Painter"
        )

    def generate(self, request: GenerationRequest) -> Result:
        self.asked.append(request)
        if request.person:
            return self._together(request)
        if not self.analyse(request.face[0], request.model):
            raise RequestError("No face was found.")
        source = Image.open(request.face[0])
        made = source.resize((64, 64)).convert("L" if request.style == "black and white" else "RGB").convert("RGB")
        if "lost" in request.face[0].name:
            made = Image.new("RGB", (64, 64))
        ran = request.model_copy(update={"steps": 4, "guidance": 2.0, "scheduler": "euler"})
        return Result(
            pictures=(made,) * request.images,
            seeds=tuple(range(request.images)),
            likeness=(),
            seconds={"load": 5.0, "total": 6.5},
            request=ran,
            model_name="Painter",
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in zip(("a", "b", "c", "lost"), COLOURS, strict=True):
        Image.new("RGB", (100, 100), colour).save(tmp_path / f"{name}.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "nobody.png")
    return tmp_path


@pytest.fixture(autouse=True)
def painter(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SimpleNamespace(name="painter", label="Painter", family="pocket", recogniser="dlib")
    monkeypatch.setattr(sources, "resolve", lambda name, settings: source)
    monkeypatch.setattr(measure, "independent", lambda *given: None)
    monkeypatch.setattr("instantid_demo.engine.Engine", Painter)


def evaluated(folder: Path, **plan) -> measure.Evaluation:
    return measure.evaluate(Painter(Settings.from_flags([])), measure.portraits(folder), measure.Plan(**plan))


def test_the_contract_s_figures(folder):
    figures = evaluated(folder).figures
    assert figures["portraits"] == 4
    assert figures["face_found"] == 0.75
    assert figures["rank1"] == 0.75
    assert figures["matched_cosine"] == pytest.approx(1, abs=1e-3)
    assert figures["mismatched_cosine"] < 0.2
    assert figures["seconds_per_picture"] == 1.5
    assert figures["portraits_without_a_face"] == ["nobody.png"]
    assert figures["keypoint_error"] is not None
    assert figures["second_recogniser"] is None
    assert figures["disturbed"]["rank1"] == 0.75
    assert figures["ceiling"]["disturbed"]["rank1"] == 1.0
    assert figures["ceiling"]["second_picture"]["rank1"] == 1.0
    assert figures["people"][3] == {"portrait": "lost.png", "rank": None, "cosine": None, "seconds": 1.5}


def test_a_second_recogniser_judges_beside_its_floor_and_ceiling(folder, monkeypatch):
    class Colour:
        name = "colour"

        def embed(self, picture, keypoints):
            assert keypoints[0, 0] < keypoints[1, 0]
            colour = np.asarray(picture.convert("RGB"), np.float32).mean((0, 1))
            return colour - colour.mean()

    monkeypatch.setattr(measure, "independent", lambda *given: Colour())
    evaluation = evaluated(folder)
    second = evaluation.figures["second_recogniser"]
    assert second["rank1"] == 0.75
    assert second["thumbnail"]["rank1"] == second["mirrored"]["rank1"] == 1.0
    assert sum(group["people"] for group in second["rank1_by_skin"].values()) == 4
    assert evaluation.figures["looks"]["darker"] > 5  # "lost" is black
    table = report.table(evaluation.figures)
    assert "… of the portrait as a thumbnail of 24 pixels" in table
    assert "| Rank-1, judged by colour | 75.0 % | 100.0 % |" in table


def test_everything_that_full_adds(folder):
    evaluation = evaluated(folder, full=True)
    assert evaluation.figures["styles"]["black and white"]["obeyed"] == 1.0
    assert evaluation.figures["styles"]["jungle"]["obeyed"] == 0.0
    assert evaluation.figures["diversity"]["lab_distance_between_seeds"] == 0
    assert "Style promises kept" in report.table(evaluation.figures)


def test_full_turns_heads_and_puts_two_people_together(folder):
    figures = evaluated(folder, full=True).figures
    # The one whose pictures get lost is among the four; the others' colour stays at any angle.
    assert figures["views"]["yaw 40°"] == {
        "face_found": 0.75,
        "keypoint_error": pytest.approx(figures["views"]["yaw 40°"]["keypoint_error"]),
        "cosine": 1.0,
    }
    assert figures["views"]["yaw 60°"]["keypoint_error"] > figures["views"]["yaw 20°"]["keypoint_error"]
    assert figures["group"]["pairs"] == 2
    assert figures["group"]["kept"] == 1.0
    assert figures["group"]["cosine_own"] == pytest.approx(1, abs=1e-3)
    assert figures["group"]["cosine_other"] < 0.5


def test_a_face_in_the_wrong_half_is_not_kept(folder, monkeypatch):
    swap = Painter._together

    def swapped(self, request):
        one, other = request.person
        swapped = (one.model_copy(update={"face": other.face}), other.model_copy(update={"face": one.face}))
        return swap(self, request.model_copy(update={"person": swapped}))

    monkeypatch.setattr(Painter, "_together", swapped)
    assert evaluated(folder, full=True).figures["group"]["kept"] == 0.0


def test_the_page_holds_its_pictures_and_only_marked_ones(folder, tmp_path):
    evaluation, marked = evaluated(folder), []

    def mark(picture):
        marked.append(picture)
        return picture

    data, page = report.write(evaluation, tmp_path / "report", mark)
    text = page.read_text()
    assert json.loads(data.read_text())["rank1"] == 0.75
    assert len(marked) == 4
    assert text.count("data:image/jpeg;base64,") == 8
    assert "http://" not in text
    assert "https://" not in text
    assert "no face found" in text


def test_a_model_card_gets_the_table(folder, tmp_path):
    card = tmp_path / "card.md"
    card.write_text(f"before\n{report.CARD_BEGIN}\nold figures\n{report.CARD_END}\nafter\n")
    report.fill_card(card, evaluated(folder).figures)
    text = card.read_text()
    assert "| Rank-1 identification | 75.0 % | 100.0 % |" in text
    assert "old figures" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


def test_a_card_without_marks_is_refused(tmp_path):
    card = tmp_path / "card.md"
    card.write_text("nothing")
    with pytest.raises(RequestError, match="no place for the table"):
        report.fill_card(card, {})


def test_json_is_one_object_and_nothing_else(folder, capfd):
    assert cli.main(["--portraits", str(folder), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["face_found"] == 0.75


@pytest.mark.parametrize("given", ["missing", "one"])
def test_too_few_portraits_are_refused_in_a_sentence(given, tmp_path, capfd):
    (tmp_path / "one").mkdir()
    assert cli.main(["--portraits", str(tmp_path / given)]) == 2
    assert "portraits" in capfd.readouterr().err


def test_a_second_picture_is_mirrored_smaller_and_darker():
    picture = Image.new("RGB", (40, 20), (200, 200, 200))
    picture.paste((0, 0, 0), (0, 0, 20, 20))
    second = measure.second_picture(picture)
    assert second.size == (20, 10)
    assert second.getpixel((18, 5)) == (0, 0, 0)
    assert second.getpixel((2, 5)) == (140, 140, 140)


@pytest.mark.parametrize("entry", ["face=x", "nonsense=1", "style=neon", "identity_every=abc"])
def test_fields_that_do_not_belong_to_set_are_named(entry: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(2):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{number}.png")
    assert cli.main(["--portraits", str(tmp_path), "--set", entry]) == 2
    assert entry.partition("=")[0].replace("_", "-") in capsys.readouterr().err.replace("_", "-")
