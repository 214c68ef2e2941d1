"""diffusers' own SDXL inpainting, on random networks of SDXL's shape with four latent channels, through `render`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.models import FACE, SIZES, build
from instantid_demo import framing, render, sources
from instantid_demo.faces import keypoints, views
from instantid_demo.faces.identity import Identity
from instantid_demo.jobs import Job
from instantid_demo.loaded import Loaded
from instantid_demo.method import prompts
from instantid_demo.method.pipelines import SDXLInpaint
from instantid_demo.prepare import Posed, Prepared, Words
from instantid_demo.presets import Recipe
from instantid_demo.request import GenerationRequest, Progress, View
from instantid_demo.scene import StartPicture
from instantid_demo.settings import Settings
from tests.engine import test_sdxl
from tests.inpainting import painted

sdxl = test_sdxl.settings
SIZE = (128, 96)


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_what_is_not_painted_stays(sdxl: Settings, portraits: list[Path], tmp_path: Path, strength: float) -> None:
    loaded = Loaded(sources.resolve("sdxl", sdxl), sdxl, lambda said: None)
    loaded._text = build(SIZES["smallest"])
    loaded.scheduler_config = loaded._text.scheduler.config
    Image.open(portraits[55]).resize((512, 384)).save(tmp_path / "start.png")
    request = GenerationRequest(
        init=tmp_path / "start.png", mask=painted(tmp_path / "mask.png", (512, 384)), strength=strength, images=2
    )
    start = StartPicture.of(request)
    assert start is not None
    scene = start.on_canvas(SIZE, 1)
    assert scene.kept is not None
    points = views.keypoints_for(View(), None, *SIZE)
    embedding = np.random.default_rng(0).normal(size=FACE).astype(np.float32)
    prepared = Prepared(
        request=request,
        recipe=Recipe(3, 5.0, "euler"),
        words=Words("", "", prompts.encode(loaded.text, "a person", "")),
        people=(Posed(Identity(embedding, "antelopev2", 1), points, framing.face_box(points), None),),
        keypoint_map=keypoints.draw_many(*SIZE, [points]),
        controls=(),
        seeds=(1, 2),
        width=SIZE[0],
        height=SIZE[1],
        strength=strength,
        init=scene.picture,
        mask=scene.mask,
        kept=scene.kept,
    )
    assert isinstance(loaded.pipeline(prepared.task), SDXLInpaint)
    told: list[Progress] = []
    pictures = [np.asarray(picture) for picture in render.render(loaded, prepared, Job(previews=False), told.append)]
    assert len(pictures) == 2
    assert [event.done for event in told if event.stage == "denoising"] == list(range(1, 7 if strength == 1 else 3))
    original = np.asarray(scene.picture).astype(int)
    drawn = np.asarray(scene.kept.drawn.resize(SIZE, Image.Resampling.BILINEAR))
    for picture in pictures:
        assert np.abs(picture - original)[drawn == 0].max() <= 12  # the copy was reduced from the saved size
        assert np.abs(picture - original)[drawn == 255].mean() > 20
    assert not np.array_equal(*pictures)
