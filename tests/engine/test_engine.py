"""The engine on Pocket: seeds, cancelling, failures, many users, and every field that must reach the picture."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instantid_demo import framing, presets, render, series
from instantid_demo.controls import maps
from instantid_demo.engine import Engine
from instantid_demo.faces.offline import CHIP_KEYPOINTS, OfflineAnalyser
from instantid_demo.faces.views import NAMED_VIEWS
from instantid_demo.jobs import Cancelled, Job
from instantid_demo.loaded import Loaded
from instantid_demo.request import GenerationRequest, Person, Progress, Region, RequestError, Result, View
from instantid_demo.settings import Settings


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    home = tmp_path_factory.mktemp("home")
    return Engine(Settings(home=home, outputs=home / "outputs", model="pocket", device="cpu"))


def ask(portraits: list[Path], **fields) -> GenerationRequest:
    return GenerationRequest(**{"face": (portraits[0],), "model": "pocket", "seed": 7, **fields})


def pixels(result: Result, index: int = 0) -> np.ndarray:
    return np.asarray(result.pictures[index]).astype(int)


def test_a_seed_gives_the_same_pixels_and_the_person_back(engine: Engine, portraits: list[Path]) -> None:
    one, again = engine.generate(ask(portraits)), engine.generate(ask(portraits))
    assert np.array_equal(pixels(one), pixels(again))
    assert one.seeds == (7,)
    assert one.likeness[0][0].value is not None
    assert one.likeness[0][0].value > 0.3
    assert one.request.steps
    assert one.request.width == 128


def test_pictures_of_one_request_count_their_seeds_up(engine: Engine, portraits: list[Path]) -> None:
    many = engine.generate(ask(portraits, images=3, seed=10))
    assert many.seeds == (10, 11, 12)
    alone = engine.generate(ask(portraits, seed=11))
    assert np.abs(pixels(many, 1) - pixels(alone)).max() <= 2


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a sepia portrait"},
        {"style": "film noir"},
        {"view": View(yaw=25)},
        {"steps": 3},
        {"guidance": 2.5},
        {"guidance": 2.5, "negative_prompt": "black and white"},
        {"scheduler": "euler_ancestral", "steps": 4},
        {"identity_strength": 0.2},
        {"adapter_strength": 0.2},
        {"identity_end": 0.4, "steps": 4},
        {"identity_every": 2, "steps": 4},
        {"deep_every": 2, "steps": 4},
        {"identity_noise": 0.8, "guidance": 2.5},
        {"guidance": 2.5, "guidance_rescale": 0.9},
        {"guidance": 2.5, "guidance_end": 0.3, "steps": 4},
        {"enhance_non_face": True},
        {"seed": 8},
        {"place": {"x": 0.6, "y": 0.5, "size": 0.8}},
    ],
    ids=lambda change: ",".join(change),
)
def test_every_wish_changes_the_picture(engine: Engine, portraits: list[Path], change: dict) -> None:
    usual = engine.generate(
        ask(portraits, **{k: v for k, v in change.items() if k in ("steps", "guidance")} if len(change) > 1 else {})
    )
    assert np.abs(pixels(engine.generate(ask(portraits, **change))) - pixels(usual)).mean() > 0.05


def test_blending_starts_at_one_person_and_ends_at_the_other(engine: Engine, portraits: list[Path]) -> None:
    other = (portraits[60],)
    ends = [engine.generate(ask(portraits, blend_with=other, blend=share)) for share in (0.0, 1.0)]
    assert np.array_equal(pixels(ends[0]), pixels(engine.generate(ask(portraits))))
    from instantid_demo.faces.offline import OfflineAnalyser

    analyser = OfflineAnalyser.of(engine.settings.pocket / "face_centre.npy")
    people = [engine.analyse(file, "pocket")[0].embedding for file in (portraits[0], portraits[60])]
    found = analyser.detect(ends[1].pictures[0])[0].embedding
    assert found @ people[1] > found @ people[0]


def test_several_photos_of_a_person(engine: Engine, portraits: list[Path]) -> None:
    result = engine.generate(ask(portraits, face=(portraits[0], portraits[0], portraits[70])))
    assert any("Photo 3" in note for note in result.notes)


def test_two_people_stand_where_they_were_put(engine: Engine, portraits: list[Path]) -> None:
    people = (
        Person(face=portraits[0], region=Region(x0=0, y0=0, x1=0.5, y1=1)),
        Person(face=portraits[60], region=Region(x0=0.5, y0=0, x1=1, y1=1)),
    )
    result = engine.generate(GenerationRequest(model="pocket", person=people, seed=1))
    assert result.pictures[0].size == (256, 128)
    assert len(result.likeness[0]) == 2


def test_image_to_image_and_inpaint_keep_what_they_should(
    engine: Engine, portraits: list[Path], tmp_path: Path
) -> None:
    from PIL import Image

    scene = tmp_path / "scene.png"
    Image.new("RGB", (128, 128), (30, 90, 200)).save(scene)
    mask = tmp_path / "mask.png"
    half = Image.new("L", (128, 128))
    half.paste(255, (0, 0, 64, 128))
    half.save(mask)
    slight = engine.generate(ask(portraits, init=scene, strength=0.25, steps=8))
    strong = engine.generate(ask(portraits, init=scene, strength=1.0, steps=8))
    flat = np.array((30, 90, 200))
    assert np.abs(pixels(slight) - flat).mean() < np.abs(pixels(strong) - flat).mean()
    painted = engine.generate(ask(portraits, init=scene, mask=mask, strength=1.0, steps=8))
    assert np.abs(pixels(painted)[:, 80:] - flat).mean() < 25 < np.abs(pixels(painted)[:, :48] - flat).mean()


def test_progress_comes_in_order_and_ends_with_the_result(engine: Engine, portraits: list[Path]) -> None:
    events = list(engine.run(ask(portraits, steps=6)))
    assert isinstance(events[-1], Result)
    steps = [event.done for event in events if isinstance(event, Progress) and event.stage == "denoising"]
    assert steps == sorted(steps)
    assert steps[-1] == 6
    assert any(isinstance(event, Progress) and event.preview is not None for event in events)


def test_cancelling_ends_one_job_and_leaves_the_engine_as_it_was(engine: Engine, portraits: list[Path]) -> None:
    usual = pixels(engine.generate(ask(portraits)))
    job = Job()
    seen = []

    def stop(progress: Progress) -> None:
        if progress.stage == "denoising":
            seen.append(progress)
            job.cancel()

    with pytest.raises(Cancelled):
        engine.generate(ask(portraits, steps=60, identity_strength=0.1), job=job, told=stop)
    assert 1 <= len(seen) < 5
    assert np.array_equal(pixels(engine.generate(ask(portraits))), usual)


def test_failures_are_told_and_leave_the_engine_as_it_was(
    engine: Engine, portraits: list[Path], tmp_path: Path
) -> None:
    usual = pixels(engine.generate(ask(portraits)))
    (tmp_path / "text.jpg").write_text("no picture")
    for request, words in (
        (GenerationRequest(model="pocket"), "photo"),
        (ask(portraits, face=(tmp_path / "none.jpg",)), "none.jpg"),
        (ask(portraits, face=(tmp_path / "text.jpg",)), "text.jpg"),
        (ask(portraits, face_index=5), "face"),
        (ask(portraits, style="no such style"), "style"),
        (ask(portraits, model=str(tmp_path)), "model"),
    ):
        with pytest.raises(RequestError, match=words):
            engine.generate(request)
    assert np.array_equal(pixels(engine.generate(ask(portraits))), usual)


def test_short_memory_makes_the_same_picture_in_smaller_pieces(
    engine: Engine, portraits: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(portraits, guidance=2.5, images=2)
    usual = engine.generate(request)
    denoise = render.denoise

    def at_most_one_row(loaded: Loaded, pipe: Any, *more: Any) -> Any:
        def refuse(module: Any, args: tuple) -> None:
            if len(args[0]) > 1:
                raise torch.OutOfMemoryError("out of memory")

        hook = pipe.unet.conv_in.register_forward_pre_hook(refuse)
        try:
            return denoise(loaded, pipe, *more)
        finally:
            hook.remove()

    monkeypatch.setattr(render, "denoise", at_most_one_row)
    lean = Engine(engine.settings)
    result = lean.generate(request)
    assert any("Memory was short" in note for note in result.notes)
    assert np.abs(pixels(result, 1) - pixels(usual, 1)).max() <= 2


def test_too_little_memory_is_told_and_the_next_request_works(
    engine: Engine, portraits: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(render, "denoise", refuse)
        with pytest.raises(RequestError, match="not enough memory"):
            engine.generate(ask(portraits))
    assert engine.generate(ask(portraits)).pictures


def test_edges_of_a_photo_are_followed(engine: Engine, portraits: list[Path]) -> None:
    posed = {"pose": portraits[3], "prompt": "a photo of a person"}
    control = {"kind": "canny", "image": portraits[3], "strength": 1.0}
    plain, followed = (pixels(engine.generate(ask(portraits, **posed, control=used))) for used in ((), (control,)))
    photo = framing.cover(Image.open(portraits[3]).convert("RGB"), *plain.shape[1::-1])[0]
    assert likeness_of_edges(followed, np.asarray(photo)) > likeness_of_edges(plain, np.asarray(photo)) + 0.05


@pytest.mark.parametrize("kind", ["depth", "pose"])
def test_a_map_alone_places_the_head(engine: Engine, portraits: list[Path], tmp_path: Path, kind: str) -> None:
    people, errors = OfflineAnalyser(), []
    for x in (0.43, 0.57):
        wanted = np.float32((CHIP_KEYPOINTS - 0.5) * 130 + (128 * x, 64))
        drawn = {"depth": maps.head_depth, "pose": maps.skeleton}[kind]((128, 128), wanted)
        drawn.save(tmp_path / "map.png")
        control = {"kind": kind, "image": tmp_path / "map.png", "is_map": True, "strength": 1.0}
        made = engine.generate(ask(portraits, identity_strength=0, control=(control,))).pictures[0]
        found = people.locate(np.asarray(made))
        assert len(found) == 1
        errors.append(np.linalg.norm(found[0] - wanted, axis=1).mean() / np.linalg.norm(wanted[1] - wanted[0]))
    assert np.mean(errors) < 0.15  # without a map: 0.21


def likeness_of_edges(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of how strongly light changes at each place."""
    strengths = []
    for picture in (one, other):
        grey = np.asarray(Image.fromarray(picture.astype(np.uint8)).convert("L").resize((64, 64)), np.float32)
        down, across = np.gradient(grey)
        strengths.append(np.hypot(down, across).ravel())
    return float(np.corrcoef(*strengths)[0, 1])


def test_a_head_turned_further_than_the_model_manages_is_said(engine: Engine, portraits: list[Path]) -> None:
    most = presets.pocket(engine.settings.pocket).turns
    assert set(most) == {"yaw", "pitch", "roll"}
    for axis, angle in most.items():
        near, far = (engine.generate(ask(portraits, view={axis: sign})) for sign in (angle, -angle - 5))
        assert not any("turns heads" in note for note in near.notes)
        assert any(f"{axis} {angle:g}°" in note for note in far.notes)


def test_two_users_at_once_each_get_their_own(engine: Engine, portraits: list[Path]) -> None:
    alone = [pixels(engine.generate(ask(portraits, seed=seed))) for seed in (1, 2)]
    results: dict[int, Result] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: results.update({seed: engine.generate(ask(portraits, seed=seed))}))
        for seed in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(pixels(results[1]), alone[0])
    assert np.array_equal(pixels(results[2]), alone[1])


def test_a_turnaround_is_one_sheet(engine: Engine, portraits: list[Path]) -> None:
    requests = series.turnaround(ask(portraits), dict(list(NAMED_VIEWS.items())[:4]))
    results = [event for event in series.run(engine, requests) if isinstance(event, Result)]
    sheet = series.sheet(results, columns=2)
    assert len(results) == 4
    assert sheet.pictures[0].width > 256
