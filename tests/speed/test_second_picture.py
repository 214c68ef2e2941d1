"""A second picture of the same person and words costs denoising and decoding, nothing else."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from instantid_demo.engine import Engine
from instantid_demo.faces import offline
from instantid_demo.jobs import Job
from instantid_demo.request import GenerationRequest, Result
from instantid_demo.settings import Settings

SIDE = 128


@pytest.fixture(scope="module")
def counted(portraits: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Counter[str], Result]]:
    """Calls by name, and the result, of three requests: the first, another seed, another prompt."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), model="pocket", device="cpu", backend="torch")
    engine = Engine(settings)
    calls: Counter[str] = Counter()
    detect = offline.OfflineAnalyser.detect

    def seen(analyser: Any, picture: Any, limit: int | None = None) -> Any:
        # Comparing the faces looks at the made picture: that one is new each time.
        calls["made picture" if picture.size == (SIDE, SIDE) else "photo"] += 1
        return detect(analyser, picture, limit)

    def count(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda *_: calls.update([name]))

    measured = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline.OfflineAnalyser, "detect", seen)
        engine.warm_up()
        assert engine._loaded is not None
        pipe = engine._loaded.text
        for name in ("text_encoder", "text_encoder_2", "unet", "controlnet", "vae.decoder"):
            count(name, pipe.vae.decoder if name == "vae.decoder" else getattr(pipe, name))
        count("resampler", pipe.resampler.proj_in)
        count("map", pipe.controlnet.controlnet_cond_embedding.conv_in)
        for seed, prompt in ((1, "in the snow"), (2, "in the snow"), (3, "at the sea")):
            calls.clear()
            request = GenerationRequest(face=(portraits[0],), prompt=prompt, seed=seed, width=SIDE, height=SIDE)
            measured.append((calls.copy(), engine.generate(request, job=Job(previews=False))))
            measured[-1] = (calls.copy(), measured[-1][1])
    return measured


def test_the_first_picture_does_everything_once(counted: list[tuple[Counter[str], Result]]) -> None:
    calls, result = counted[0]
    assert calls["photo"] == calls["resampler"] == calls["map"] == calls["vae.decoder"] == 1
    assert calls["text_encoder"] == calls["text_encoder_2"] >= 1
    assert calls["unet"] == calls["controlnet"] == result.request.steps


def test_another_seed_only_denoises_and_decodes(counted: list[tuple[Counter[str], Result]]) -> None:
    calls, result = counted[1]
    steps = result.request.steps
    assert calls == {"unet": steps, "controlnet": steps, "map": 1, "vae.decoder": 1, "made picture": 1}


def test_another_prompt_reads_the_words_again(counted: list[tuple[Counter[str], Result]]) -> None:
    calls, _ = counted[2]
    assert calls["text_encoder"] >= 1
    assert not calls["photo"]
    assert not calls["resampler"]
