"""OpenVINO's networks give PyTorch's numbers, come from disk the second time, and step aside where they must."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("openvino")

from benchmarks.measure import difference, run
from benchmarks.models import FACE, SIZES, build
from benchmarks.modes import MODES, Mode
from instantid_demo.backends.openvino import OpenVino
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.identity_net import IdentityNet

pytestmark = pytest.mark.openvino
SIZE = SIZES["smallest"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return build(SIZE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openvino")


@pytest.fixture(scope="module")
def backend(cache: Path) -> OpenVino:
    return OpenVino(cache)


def test_latents_are_the_originals_with_and_without_guidance(pipe: Any, backend: OpenVino) -> None:
    for options in ({}, {"guidance": 1.0}, {"strength": 0.0}, {"strength": 0.3}):
        original = run(pipe, SIZE, Mode("", True, "", savings=None, **options), 3).latents
        converted = run(pipe, SIZE, Mode("", True, "", backend="openvino", **options), 3, backend).latents
        assert difference(converted, original) < 1e-3, options
    assert type(pipe.controlnet) is IdentityNet
    assert "forward" not in pipe.unet.__dict__


def test_converted_networks_come_from_disk(pipe: Any, backend: OpenVino, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    mode = Mode("", True, "", backend="openvino")
    expected = run(pipe, SIZE, mode, 2, backend).latents
    monkeypatch.setattr(openvino, "convert_model", lambda *_, **__: pytest.fail("converted again"))
    assert torch.equal(run(pipe, SIZE, mode, 2, OpenVino(backend.cache)).latents, expected)


def test_other_weights_are_another_network(pipe: Any, backend: OpenVino) -> None:
    mode = Mode("", True, "", backend="openvino")
    before = run(pipe, SIZE, mode, 2, backend).latents
    weight = pipe.unet.conv_out.weight
    weight.data *= 2
    try:
        original = run(pipe, SIZE, MODES[0], 2).latents
        changed = run(pipe, SIZE, mode, 2, backend).latents
    finally:
        weight.data /= 2
    assert difference(changed, original) < 1e-3
    assert difference(changed, before) > 1e-2


@pytest.mark.parametrize(
    ("people", "fits"),
    [
        ([IdentityCondition(torch.zeros(FACE))], True),
        ([IdentityCondition(torch.zeros(FACE), mask=torch.ones(64, 64))], False),
        ([IdentityCondition(torch.zeros(FACE))] * 2, False),
    ],
)
def test_regions_and_several_people_stay_with_pytorch(pipe: Any, backend: OpenVino, people: list, fits: bool) -> None:
    with torch.no_grad(), pipe.conditioned(people):
        assert backend.fits(pipe) is fits
        with backend.applied(pipe):
            assert ("forward" in pipe.unet.__dict__) is fits
