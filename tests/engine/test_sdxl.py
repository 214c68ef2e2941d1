"""SDXL's way through the engine, with Pocket's small networks where its downloads would lie."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from instantid_demo import sources
from instantid_demo.engine import Engine
from instantid_demo.loaded import Loaded
from instantid_demo.request import GenerationRequest, Progress, RequestError
from instantid_demo.settings import ROOT, Settings

POCKET = ROOT / "assets" / "pocket"
PHOTO = ROOT / "assets" / "examples" / "woman.jpg"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with `sdxl` and `instantid` in it, as `download` leaves them."""
    if not (POCKET / "unet").is_dir():
        pytest.skip("Pocket's weights are not in assets/pocket")
    settings = Settings(home=tmp_path, device="cpu", dtype="float32", backend="torch", safety=False)  # type: ignore[call-arg]
    base, identity = settings.models / "sdxl", settings.models / "instantid"
    identity.mkdir(parents=True)
    shutil.copytree(POCKET / "ControlNetModel", identity / "ControlNetModel", copy_function=os.symlink)
    os.symlink(POCKET / "image_adapter.safetensors", identity / "ip-adapter.safetensors")
    apart = shutil.ignore_patterns("pocket.json", "words.json", "ControlNetModel", "control-*", "image_adapter*")
    shutil.copytree(POCKET, base, ignore=apart, copy_function=os.symlink)
    config = base / "unet" / "config.json"
    told = json.loads(config.read_text()) | {"sample_size": 128}  # SDXL's: no longer taken for a small model
    config.unlink()
    config.write_text(json.dumps(told))
    for folder in (base, identity):
        (folder / ".complete").touch()
    return settings


def test_it_is_chosen_loaded_and_draws(settings: Settings) -> None:
    assert sources.resolve("sdxl", settings).family == "sdxl"
    previews = []

    def told(progress: Progress) -> None:
        previews.append(progress.preview)

    request = GenerationRequest(
        model="sdxl", face=(PHOTO,), prompt="red hat", style="neon", steps=3, width=128, height=192
    )
    result = Engine(settings).generate(request, told=told)
    assert result.pictures[0].size == (128, 192)
    assert result.request.guidance == 5.0
    assert result.model_name != "Pocket preview"
    assert not any("Left out" in note for note in result.notes)
    assert any(preview is not None for preview in previews)


def test_fast_says_which_download_makes_it_faster(settings: Settings) -> None:
    request = GenerationRequest(model="sdxl", face=(PHOTO,), quality="fast", steps=2, width=128, height=128)
    assert any("download lightning" in note for note in Engine(settings).generate(request).notes)


def test_quick_decoding_says_what_it_needs(settings: Settings) -> None:
    loaded = Loaded(sources.resolve("sdxl", settings), settings, lambda said: None)
    request = GenerationRequest(quick_decode=True)
    assert loaded.recipe(request)[1] == []  # this small model's own autoencoder is a tiny one
    loaded.text.vae = AutoencoderKL()
    assert any("download taesdxl" in note for note in loaded.recipe(request)[1])


def test_an_extra_control_asks_for_its_download(settings: Settings) -> None:
    control = ({"kind": "canny", "image": PHOTO},)
    with pytest.raises(RequestError, match="download control-canny"):
        Engine(settings).generate(GenerationRequest(model="sdxl", face=(PHOTO,), steps=1, control=control))


def test_downloaded_autoencoders_take_their_places(settings: Settings) -> None:
    small = {"block_out_channels": (16, 16, 16, 16), "latent_channels": 8}
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4, latent_channels=8
    )
    half = AutoencoderKL(
        **small,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    for name, network in (("taesdxl", tiny), ("fp16-vae", half)):
        network.save_pretrained(settings.models / name)
        (settings.models / name / ".complete").touch()
    loaded = Loaded(sources.resolve("sdxl", settings), settings, lambda said: None)
    assert loaded.text.vae.config.decoder_block_out_channels != [16] * 4
    assert loaded.previewer(torch.zeros(8, 16, 16)).size == (256, 256)
    assert loaded.autoencoder(GenerationRequest()) is loaded.text.vae
    quick, usual = (
        Engine(settings).generate(
            GenerationRequest(
                model="sdxl", face=(PHOTO,), seed=1, steps=1, width=128, height=128, quick_decode=quick_decode
            )
        )
        for quick_decode in (True, False)
    )
    assert quick.pictures[0] != usual.pictures[0]
    assert not any("Quick decoding" in note for note in quick.notes)
    in_half = Loaded(
        sources.resolve("sdxl", settings), settings.model_copy(update={"dtype": "float16"}), lambda said: None
    )
    assert isinstance(in_half.text.vae, AutoencoderKL)
    assert in_half.text.vae.dtype == torch.float16


def test_without_the_picture_filter_nothing_is_drawn(settings: Settings) -> None:
    guarded = settings.model_copy(update={"safety": True, "offline": True})
    with pytest.raises(RequestError, match="download nsfw"):
        Engine(guarded).generate(GenerationRequest(model="sdxl", face=(PHOTO,), steps=1, width=128, height=128))
