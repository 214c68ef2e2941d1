"""OpenVINO's networks give PyTorch's numbers, come from disk the second time, and step aside where they must."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.measure import difference, run
from benchmarks.models import FACE, SIZES, build
from benchmarks.modes import MODES, Mode
from instantid_demo import doctor
from instantid_demo.backends import choice, converted
from instantid_demo.backends import openvino as openvino_backend
from instantid_demo.backends.openvino import OpenVino, available, fingerprint, runtime, smaller
from instantid_demo.engine import Engine
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.identity_net import IdentityNet
from instantid_demo.models import download
from instantid_demo.request import GenerationRequest, Result
from instantid_demo.settings import ROOT, Settings

pytestmark = [pytest.mark.openvino, pytest.mark.skipif(not available(), reason="OpenVINO is not installed")]
SIZE = SIZES["smallest"]
PHOTO = ROOT / "assets" / "examples" / "elder.jpg"


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


@pytest.mark.parametrize("side", [96, 320, 72], ids=["larger", "much larger", "odd, so in PyTorch"])
def test_one_conversion_does_for_all_sizes(pipe: Any, backend: OpenVino, side: int) -> None:
    size = replace(SIZE, side=side)
    original = run(pipe, size, MODES[0], 2).latents
    assert difference(run(pipe, size, Mode("", True, "", backend="openvino"), 2, backend).latents, original) < 1e-3
    assert len(list(backend.cache.glob("unet-*.xml"))) == 1


def test_a_conversion_at_a_large_size_does_for_small_ones(pipe: Any, tmp_path: Path) -> None:
    backend = OpenVino(tmp_path)
    for side in (320, 64):
        size = replace(SIZE, side=side)
        original = run(pipe, size, MODES[0], 2).latents
        converted = run(pipe, size, Mode("", True, "", backend="openvino"), 2, backend).latents
        assert difference(converted, original) < 1e-3, side
    assert len(list(tmp_path.glob("*.xml"))) == 3  # UNet, IdentityNet, VAE


def test_large_pictures_are_converted_small() -> None:
    given = [torch.rand(2, 4, 64, 96), torch.rand(2), torch.rand(2, 8, 32, 48), torch.rand(2, 1, 16, 64)]
    assert [tuple(tensor.shape[2:]) for tensor in smaller(given)] == [(32, 32), (), (16, 16), (16, 64)]
    assert smaller(given[2:]) == given[2:]


def test_converted_networks_come_from_disk(pipe: Any, backend: OpenVino, monkeypatch: pytest.MonkeyPatch) -> None:
    mode = Mode("", True, "", backend="openvino")
    expected = run(pipe, SIZE, mode, 2, backend).latents
    monkeypatch.setattr(runtime(), "convert_model", lambda *_, **__: pytest.fail("converted again"))
    assert torch.equal(run(pipe, SIZE, mode, 2, OpenVino(backend.cache)).latents, expected)


def test_in_eight_bits_the_picture_stays_and_the_file_shrinks(
    pipe: Any, backend: OpenVino, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend, "SMALL", 1000)
    mode = Mode("", True, "", backend="openvino")
    whole = run(pipe, SIZE, mode, 2, backend).latents
    rounded = run(pipe, SIZE, replace(mode, precision="i8"), 2, OpenVino(tmp_path, "i8")).latents
    assert 1e-6 < difference(rounded, whole) < 2
    ((small,), (large,)) = (list(folder.glob("unet-*.bin")) for folder in (tmp_path, backend.cache))
    assert small.stat().st_size < 0.6 * large.stat().st_size
    assert small.with_suffix(".xml").read_text().count('element_type="i8"') > 0


def test_the_converter_tells_nobody_of_its_use() -> None:
    code = (
        "from instantid_demo.backends.openvino import runtime; runtime();"
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


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


def test_a_lora_counts_while_it_is_on(pipe: Any, backend: OpenVino) -> None:
    from peft import LoraConfig

    mode, original = Mode("", True, "", backend="openvino"), Mode("", True, "", savings=None)
    plain = fingerprint(pipe.unet)
    before = run(pipe, SIZE, mode, 2, backend).latents
    pipe.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False), "some")
    try:
        changed = run(pipe, SIZE, mode, 2, backend).latents
        assert difference(changed, run(pipe, SIZE, original, 2).latents) < 1e-3
        assert difference(changed, before) > 1e-2
        pipe.unet.disable_adapters()
        assert fingerprint(pipe.unet) == plain
        assert torch.equal(run(pipe, SIZE, mode, 2, backend).latents, before)
    finally:
        pipe.unet.delete_adapters("some")


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


def test_large_networks_wait_on_the_disk_and_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "LARGE", 1000)
    pipe, mode = build(SIZE), Mode("", True, "", backend="openvino")
    original = run(pipe, SIZE, MODES[0], 2).latents
    assert difference(run(pipe, SIZE, mode, 2, OpenVino(tmp_path)).latents, original) < 1e-3
    assert len(list(tmp_path.glob("*.weights"))) == 2
    assert difference(run(pipe, SIZE, MODES[0], 2).latents, original) < 1e-5


@pytest.mark.parametrize("sides", [(8, 8), (16, 12)])
def test_pictures_are_decoded_the_same_in_any_size(pipe: Any, backend: OpenVino, sides: tuple[int, int]) -> None:
    latents = torch.randn(1, 4, *sides, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = pipe.vae.decode(latents, return_dict=False)[0]
        decoded = backend.decode(pipe.vae, latents)
    assert decoded.shape == (1, 3, 8 * sides[0], 8 * sides[1])
    assert difference(decoded, expected) < 1e-3


def _picture(**settings: Any) -> tuple[np.ndarray, Result]:
    engine = Engine(Settings(model="pocket", **settings))  # type: ignore[call-arg]
    result = engine.generate(GenerationRequest(face=(PHOTO,), prompt="in the snow", seed=7))
    return np.asarray(result.pictures[0], np.float32), result


def test_the_engine_makes_the_same_picture_with_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, _ = _picture(backend="torch", home=cache)
    asked = []
    monkeypatch.setattr(
        OpenVino, "applied", lambda self, pipe, say, do=OpenVino.applied: asked.append(1) or do(self, pipe, say)
    )
    converted, result = _picture(backend="openvino", home=cache)
    assert asked
    assert np.abs(converted - original).max() <= 2
    assert not result.notes


def test_the_engine_does_without_it_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(OpenVino, "_compile", broken)
    converted, result = _picture(backend="openvino", home=tmp_path)
    assert any("OpenVINO failed" in note for note in result.notes)
    monkeypatch.undo()
    assert np.array_equal(converted, _picture(backend="torch", home=tmp_path)[0])


# -- what lies on the disk -----------------------------------------------------------------------------------------


def test_a_conversion_is_announced_shown_listed_and_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "TELL", 0.01)
    settings = Settings(model="pocket", backend="openvino", home=tmp_path)  # type: ignore[call-arg]
    said: list[str] = []
    request = GenerationRequest(face=(PHOTO,), prompt="in the snow", seed=7, steps=2)
    engine = Engine(settings)
    engine.generate(request, told=lambda progress: said.append(progress.message))
    announced = next(index for index, words in enumerate(said) if "minutes and" in words and "GB of disk" in words)
    started = next(index for index, words in enumerate(said) if words.startswith("Converting IdentityNet"))
    assert announced < started
    assert any(words.startswith("Converting the UNet") and "s so far" in words for words in said)
    assert not [file for pattern in converted.LEFTOVERS for file in tmp_path.rglob(pattern)]
    said.clear()
    engine.generate(request, told=lambda progress: said.append(progress.message))
    assert not any("Converting" in words for words in said)
    (name, size) = next(converted.kept(settings))
    assert name.startswith("pocket-")
    assert size > 0.001
    assert doctor.examine(settings)["converted_gb"].keys() == {name}
    download.delete(name, settings)
    assert not list(converted.kept(settings))


def test_converted_networks_go_with_their_model(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for folder in (settings.models / "sdxl", settings.models / "instantid"):
        (folder / "unet").mkdir(parents=True)
        (folder / ".complete").touch()
        place = converted.place(folder / "unet", settings)
        assert place == tmp_path / "openvino" / folder.name
        place.mkdir(parents=True)
        (place / "unet-1-bf16.bin").write_bytes(bytes(5_000_000))
    download.delete("sdxl", settings)
    assert [name for name, _ in converted.kept(settings)] == ["instantid"]


def _left_behind(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    names = ("unet-1-bf16.float32", "unet-1-bf16.float32.part", "unet-1-bf16.part.xml", "unet-1-bf16.part.bin",
             "unet-1.bfloat16.weights.part")  # fmt: skip
    files = [folder / name for name in names]
    for file in files:
        file.write_bytes(bytes(1000))
    return files


def test_what_an_ended_conversion_left_is_swept_before_room_is_counted(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend, "LARGE", 1000)
    settings = Settings(home=tmp_path)
    left, busy = _left_behind(tmp_path / "openvino" / "sdxl"), _left_behind(tmp_path / "openvino" / "other")
    (tmp_path / "openvino" / "unet-2-bf16.xml").touch()

    def usage(place: Path) -> Any:
        return shutil._ntuple_diskusage(0, 0, 0 if any(file.exists() for file in left) else 10**12)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with converted.converting(tmp_path / "openvino" / "other"):
        assert choice.choose(settings, pipe) is not None
    assert not any(file.exists() for file in left)
    assert all(file.exists() for file in busy)
    # What an earlier version left flat is in a folder now, so that it is listed.
    assert (tmp_path / "openvino" / "other" / "unet-2-bf16.xml").is_file()


def test_an_error_leaves_nothing_half_done(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: Any, part: Path, **options: Any) -> None:
        part.write_bytes(b"x")
        part.with_suffix(".bin").write_bytes(b"x")
        raise RuntimeError("no space left")

    monkeypatch.setattr(runtime(), "save_model", full)
    with pytest.raises(openvino_backend.BackendError):
        run(pipe, SIZE, Mode("", True, "", backend="openvino"), 1, OpenVino(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_it_can_be_declined(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "LARGE", 1000)
    settings = Settings(home=tmp_path)
    taken = choice.choose(settings, pipe)
    assert taken is not None
    assert taken.may_convert()
    converted.decline(settings, True)
    assert not taken.may_convert()
    assert choice.choose(settings, pipe) is None
    assert choice.choose(settings.model_copy(update={"backend": "openvino"}), pipe) is not None
    converted.decline(settings, False)
    assert choice.choose(settings, pipe) is not None


def test_too_little_room_is_said(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "LARGE", 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, 0))  # type: ignore[attr-defined]
    said: list[str] = []
    assert choice.choose(Settings(home=tmp_path), pipe, say=said.append) is None
    assert "GB of disk" in said[0]


def test_the_terminal_hears_no_tracer(tmp_path: Path) -> None:
    code = (
        "from instantid_demo import quiet; quiet.libraries();"
        "import warnings, torch; warnings.warn('Converting a tensor to a Python boolean', torch.jit.TracerWarning)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == ""
