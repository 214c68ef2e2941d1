"""Start pictures through the engine to the file: what is not painted stays, and small changes are drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instantid_demo import framing, prepare, presets, saving, series, sources
from instantid_demo.engine import Engine
from instantid_demo.people import People, recogniser
from instantid_demo.provenance import watermark
from instantid_demo.request import GenerationRequest, Progress, RequestError, Result
from instantid_demo.settings import Settings
from tests.engine import test_sdxl
from tests.inpainting import compared, painted, psnr

sdxl = test_sdxl.settings


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    home = tmp_path_factory.mktemp("home")
    return Engine(Settings(home=home, outputs=home / "outputs", model="pocket", device="cpu"))


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return painted(tmp_path / "mask.png", (400, 400))


def ask(portraits: list[Path], **fields) -> GenerationRequest:
    start = {"face": (portraits[0],), "model": "pocket", "seed": 7, "init": portraits[55], "strength": 1.0}
    return GenerationRequest(**{**start, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"format": "jpeg"},
        {"format": "webp"},
        {"upscale": 4},
        {"images": 3},
        {"face_detail": True, "place": {"x": 0.45, "y": 0.45, "size": 0.4}},
        {"enhance_non_face": True},
        {"quick_decode": True},
        {"width": 192, "height": 128},
        {"quality": "draft", "strength": 0.3},
    ],
    ids=lambda fields: ",".join(fields) or "usual",
)
def test_what_is_not_painted_stays_as_it_was(
    engine: Engine, portraits: list[Path], mask: Path, tmp_path: Path, fields: dict
) -> None:
    result = engine.generate(ask(portraits, mask=mask, **fields))
    files = saving.save(result, tmp_path / "made", engine.settings)
    assert len(files) == fields.get("images", 1)
    for file in files:
        outside, inside = compared(file, portraits[55])
        assert outside >= 40
        assert inside < 30
        assert watermark.detect(Image.open(file)).found


@pytest.mark.parametrize("extra", [{}, {"format": "jpeg"}, {"images": 2}], ids=str)
def test_what_is_not_painted_stays_as_it_was_with_sdxl(
    sdxl: Settings,
    portraits: list[Path],
    mask: Path,
    tmp_path: Path,
    extra: dict,
) -> None:
    request = ask(portraits, model="sdxl", mask=mask, steps=3, width=256, height=320, **extra)
    for file in saving.save(Engine(sdxl).generate(request), tmp_path / "made", sdxl):
        outside, inside = compared(file, portraits[55])
        assert outside >= 40
        assert inside < 30


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (1200, 500)])
@pytest.mark.parametrize("half", [False, True])
def test_a_mask_lies_on_its_own_start_picture(
    engine: Engine, portraits: list[Path], tmp_path: Path, size: tuple[int, int], half: bool
) -> None:
    start = tmp_path / "start.png"
    Image.open(portraits[55]).convert("RGB").resize(size).save(start)
    mask = painted(tmp_path / "mask.png", (size[0] // 2, size[1] // 2) if half else size)
    result = engine.generate(ask(portraits, init=start, mask=mask, width=128, height=128))
    outside, inside = compared(saving.save(result, tmp_path / "made.png", engine.settings)[0], start)
    assert outside >= 40
    assert inside < 30


def test_a_hole_in_the_start_picture_is_the_mask(engine: Engine, portraits: list[Path], tmp_path: Path) -> None:
    start = Image.open(portraits[55]).convert("RGBA")
    hole = Image.open(painted(tmp_path / "mask.png", start.size))
    start.putalpha(hole.point(lambda value: 255 - value))
    start.save(tmp_path / "start.png")
    result = engine.generate(ask(portraits, init=tmp_path / "start.png"))
    outside, inside = compared(saving.save(result, tmp_path / "made.png", engine.settings)[0], portraits[55])
    assert outside >= 40
    assert inside < 30
    assert any("hole" in note for note in result.notes)


def test_a_mask_of_another_shape_or_an_empty_one_is_said_in_one_sentence(
    engine: Engine, portraits: list[Path], tmp_path: Path
) -> None:
    other, empty, aside = tmp_path / "other.png", tmp_path / "empty.png", tmp_path / "aside.png"
    Image.new("L", (400, 300), 255).save(other)
    Image.new("L", (400, 400)).save(empty)
    edge = Image.new("L", (400, 400))
    edge.paste(255, (0, 0, 400, 40))
    edge.save(aside)
    for mask, words, fields in (
        (other, "400×300, but the start picture 400×400", {}),
        (empty, "Nothing is painted", {}),
        (aside, "At 256×128 the painted part", {"width": 256, "height": 128}),
    ):
        with pytest.raises(RequestError, match=words):
            engine.generate(ask(portraits, mask=mask, **fields))


def test_a_mask_painted_all_over_changes_all_and_says_so(engine: Engine, portraits: list[Path], tmp_path: Path) -> None:
    Image.new("L", (400, 400), 255).save(tmp_path / "full.png")
    full = engine.generate(ask(portraits, mask=tmp_path / "full.png"))
    plain = engine.generate(ask(portraits))
    assert np.array_equal(np.asarray(full.pictures[0]), np.asarray(plain.pictures[0]))
    assert any("covers the whole" in note for note in full.notes)


def test_a_blurred_picture_stays_blurred(engine: Engine, portraits: list[Path], mask: Path, tmp_path: Path) -> None:
    result = engine.generate(ask(portraits, mask=mask))
    grey = result.model_copy(update={"pictures": (Image.new("RGB", (128, 128), "grey"),), "blocked": (True,)})
    file = saving.save(grey, tmp_path / "made.png", engine.settings)[0]
    assert np.abs(np.asarray(Image.open(file).convert("RGB")).astype(int) - 128).max() < 20


def test_a_sheet_of_inpainted_pictures_is_no_start_picture(
    engine: Engine, portraits: list[Path], mask: Path, tmp_path: Path
) -> None:
    results = [engine.generate(ask(portraits, mask=mask, seed=seed)) for seed in (1, 2)]
    sheet = series.sheet(results, columns=2)
    made = Image.open(saving.save(sheet, tmp_path / "sheet.png", engine.settings)[0]).convert("RGB")
    assert psnr(np.asarray(made), np.asarray(sheet.pictures[0].resize(made.size))) > 30


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("steps", "strength"), [(1, 0.6), (1, 0.05), (4, 0.2), (5, 0.15), (3, 0.33)])
def test_a_change_of_less_than_a_step_draws_one(
    engine: Engine, portraits: list[Path], mask: Path, masked: bool, steps: int, strength: float
) -> None:
    drawn = []

    def told(progress: Progress) -> None:
        if progress.stage == "denoising":
            drawn.append((progress.done, progress.total))

    request = ask(portraits, steps=steps, strength=strength, mask=mask if masked else None)
    result = engine.generate(request, told=told)
    assert drawn == [(1, 1)]
    assert len(result.pictures) == 1
    many = "one step" if steps == 1 else f"{steps} steps"
    assert f"A change of {strength:g} is too small for {many}: one smaller step was drawn." in result.notes
    start = framing.cover(Image.open(portraits[55]).convert("RGB"), *result.pictures[0].size)[0]
    assert np.asarray(result.pictures[0]).tobytes() != np.asarray(start).tobytes()


def test_a_smaller_change_stays_nearer_to_the_start_picture(engine: Engine, portraits: list[Path]) -> None:
    start = framing.cover(Image.open(portraits[55]).convert("RGB"), 128, 128)[0]
    near, far = (
        psnr(np.asarray(engine.generate(ask(portraits, steps=1, strength=strength)).pictures[0]), np.asarray(start))
        for strength in (0.1, 1.0)
    )
    assert near > far + 3


@pytest.mark.parametrize(
    "scheduler", ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "lcm", "tcd", "unipc"]
)
def test_one_step_is_drawn_with_every_scheduler(engine: Engine, portraits: list[Path], scheduler: str) -> None:
    assert engine.generate(ask(portraits, steps=2, strength=0.1, scheduler=scheduler)).pictures


def test_draft_has_a_second_pass_for_small_faces(engine: Engine, portraits: list[Path], tmp_path: Path) -> None:
    scene = Image.new("RGB", (256, 256), (90, 110, 130))
    scene.paste(Image.open(portraits[55]).convert("RGB").resize((72, 72)), (90, 90))
    scene.save(tmp_path / "scene.png")
    slight = {"init": tmp_path / "scene.png", "steps": 1, "strength": 0.05, "width": 256, "height": 256}
    plain, again = (engine.generate(ask(portraits, **slight, face_detail=detail)) for detail in (False, True))
    assert not any("nothing to do" in note for note in again.notes)
    assert again.pictures[0] != plain.pictures[0]


def test_an_empty_window_means_never(engine: Engine, portraits: list[Path]) -> None:
    def made(**fields) -> Result:
        return engine.generate(ask(portraits, init=None, **fields))

    never = made(identity_strength=0.0)
    for share in (0.0, 0.5, 1.0):
        result = made(identity_start=share, identity_end=share)
        assert result.pictures[0] == never.pictures[0]
        assert any("IdentityNet did nothing" in note for note in result.notes)
    plain = made(guidance=1.0, scheduler="ddim")
    assert made(guidance=3.0, guidance_start=0.4, guidance_end=0.4, scheduler="ddim").pictures[0] == plain.pictures[0]
    control = {"kind": "canny", "image": portraits[3], "start": 0.3, "end": 0.3}
    result = made(control=(control,))
    assert result.pictures[0] == made().pictures[0]
    assert any("canny control did nothing" in note for note in result.notes)


@pytest.mark.parametrize(
    "fields",
    [
        {"identity_start": 0.6, "identity_end": 0.5},
        {"guidance_start": 0.6, "guidance_end": 0.5},
        {"control": ({"kind": "canny", "image": "x.png", "start": 0.6, "end": 0.5},)},
    ],
)
def test_a_window_that_ends_before_it_starts_is_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match="A window starts before it ends"):
        GenerationRequest(**fields)


def test_an_empty_result_is_no_success(engine: Engine, portraits: list[Path], tmp_path: Path) -> None:
    result = engine.generate(ask(portraits, init=None))
    with pytest.raises(ValueError, match="pictures"):
        Result(**{**dict(result), "pictures": ()})
    with pytest.raises(RequestError, match="No picture was made"):
        saving.save(result.model_copy(update={"pictures": ()}), tmp_path / "x.png", engine.settings)


@pytest.mark.parametrize("view", [None, {"yaw": 20}])
@pytest.mark.parametrize(("box", "size"), [((20, 20, 140, 160), (400, 400)), ((600, 100, 780, 300), (800, 400))])
def test_the_person_stands_where_something_is_painted(
    portraits: list[Path], tmp_path: Path, view: dict | None, box: tuple[int, ...], size: tuple[int, int]
) -> None:
    Image.new("RGB", size, "teal").save(tmp_path / "start.png")
    mask = Image.new("L", size)
    mask.paste(255, box)
    mask.save(tmp_path / "mask.png")
    for point in keypoints(ask(portraits, init=tmp_path / "start.png", mask=tmp_path / "mask.png", view=view)):
        assert box[0] < point[0] * size[0] < box[2]
        assert box[1] < point[1] * size[1] < box[3]


def test_of_the_start_pictures_faces_the_painted_one_is_replaced(portraits: list[Path], tmp_path: Path) -> None:
    pair = Image.new("RGB", (800, 400))
    for left, portrait, side in ((0, portraits[4], 400), (440, portraits[55], 300)):
        pair.paste(Image.open(portrait).convert("RGB").resize((side, side)), (left, 50 * (left > 0)))
    pair.save(tmp_path / "pair.png")
    mask = Image.new("L", pair.size)
    mask.paste(255, (440, 50, 740, 350))
    mask.save(tmp_path / "mask.png")
    chosen = {"init": tmp_path / "pair.png", "face": (portraits[0],)}
    assert (keypoints(ask(portraits, **chosen))[:, 0] < 0.5).all()
    assert (keypoints(ask(portraits, **chosen, mask=tmp_path / "mask.png"))[:, 0] > 0.55).all()


def keypoints(request: GenerationRequest) -> np.ndarray:
    """The only person's, in fractions of the canvas."""
    settings = Settings(model="pocket", device="cpu")
    source = sources.resolve("pocket", settings)
    defaults = presets.of(source.family, source.folder)
    prepared = prepare.prepare(
        request,
        model=source.name,
        family=source.family,
        defaults=defaults,
        recipe=defaults.recipes["quality"],
        people=People(recogniser(source, settings), 8),
        settings=settings,
        text=prepare.words(request, settings),
    )
    return prepared.people[0].keypoints / (prepared.width, prepared.height)
