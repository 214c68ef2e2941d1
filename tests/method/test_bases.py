"""Base models in every published layout load as what they are, without a network; others are refused by their name."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from instantid_demo.method import architectures, checkpoints, loading
from instantid_demo.request import RequestError
from tests import layouts

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
UNET = "model.diffusion_model."


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return layouts.tiny_sdxl()


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete base in the folder layout."""
    place = tmp_path_factory.mktemp("bases") / "tiny-sdxl"
    pipe.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def state(pipe: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone().contiguous() for key, value in layouts.one_file(pipe).items()}


Write = Callable[..., Path]


@pytest.fixture
def write(state: dict[str, torch.Tensor], tmp_path: Path) -> Write:
    """A single file without the parts named in `without`, with `extra` tensors and `told` as its metadata."""

    def made(
        name: str = "base.safetensors", without: tuple[str, ...] = (), told: dict[str, str] | None = None, **extra: Any
    ) -> Path:
        kept = {key: value for key, value in state.items() if not key.startswith(without or ("\0",))}
        save_file({**kept, **extra}, tmp_path / name, told)
        return tmp_path / name

    return made


def same(one: Any, other: Any, parts: tuple[str, ...] = PARTS) -> bool:
    pairs = [(getattr(one, part).state_dict(), getattr(other, part).state_dict()) for part in parts]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


def load(path: Path, *lenders: Path, half_vae: Path | None = None) -> Any:
    info = checkpoints.require(path, kind=("base-folder", "base-file"))
    return loading.load_base(info, torch.float32, lenders=lenders, half_vae=half_vae)


def test_one_file_gives_the_folders_weights(pipe: Any, folder: Path, write: Write) -> None:
    read = load(write(), folder)
    assert same(read, pipe)
    assert same(load(folder), pipe)
    assert read.tokenizer_2.pad_token_id == 0
    assert read.scheduler.config.prediction_type == "epsilon"
    assert not read.scheduler.config.rescale_betas_zero_snr


def test_a_ckpt_loads_as_well(pipe: Any, folder: Path, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / "old.ckpt")
    assert same(load(tmp_path / "old.ckpt", folder), pipe)


@pytest.mark.parametrize(
    ("architecture", "part", "kind", "count"),
    [
        ("sdxl", "unet", diffusers.UNet2DConditionModel, 2_567_463_684),
        ("sdxl", "vae", diffusers.AutoencoderKL, 83_653_863),
        ("sdxl", "text_encoder", CLIPTextModel, 123_060_480),
        ("sdxl", "text_encoder_2", CLIPTextModelWithProjection, 694_659_840),
        ("sd15", "unet", diffusers.UNet2DConditionModel, 859_520_964),
        ("sd15", "vae", diffusers.AutoencoderKL, 83_653_863),
        ("sd15", "text_encoder", CLIPTextModel, 123_060_480),
    ],
)
def test_the_shipped_configs_are_of_the_published_sizes(architecture: str, part: str, kind: Any, count: int) -> None:
    place = architectures.PUBLISHED / architecture / part
    with torch.device("meta"):
        if part.startswith("text"):
            net = kind(CLIPTextConfig.from_pretrained(place))
        else:
            net = kind.from_config(kind.load_config(place))
    assert sum(weight.numel() for weight in net.parameters()) == count


def test_the_shipped_tokenizer_is_clips() -> None:
    words = architectures.clip_tokenizer()
    assert len(words) == 49408
    assert words("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert words("Hello, World!").input_ids == words("hello, world!").input_ids
    filled = architectures.clip_tokenizer("!")("a", padding="max_length").input_ids
    assert (len(filled), filled[-1]) == (77, 0)


@pytest.mark.parametrize(
    ("name", "told", "extra", "prediction", "zero_snr"),
    [
        ("noob.safetensors", {}, ("v_pred", "ztsnr"), "v_prediction", True),
        ("noob.safetensors", {}, ("v_pred",), "v_prediction", False),
        ("a.safetensors", {"modelspec.prediction_type": "v"}, (), "v_prediction", False),
        ("a.safetensors", {"modelspec.prediction_type": "v_prediction"}, (), "v_prediction", False),
        ("a.safetensors", {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, (), "v_prediction", True),
        ("noobaiXL_vPred10.safetensors", {}, (), "v_prediction", False),
        ("noobai-XL-v-pred-1.safetensors", {}, (), "v_prediction", False),
        ("base_vpred.safetensors", {"modelspec.prediction_type": "epsilon"}, (), "epsilon", False),
        ("noobai_novpred.safetensors", {}, (), "epsilon", False),
        ("plain.safetensors", {}, (), "epsilon", False),
    ],
)
def test_a_file_predicts_what_it_was_trained_for(
    folder: Path,
    write: Write,
    name: str,
    told: dict[str, str],
    extra: tuple[str, ...],
    prediction: str,
    zero_snr: bool,
) -> None:
    file = write(name, told=told, **{key: torch.zeros(0) for key in extra})
    config = load(file, folder).scheduler.config
    assert config.prediction_type == prediction
    assert bool(config.rescale_betas_zero_snr) is zero_snr
    assert (config.timestep_spacing == "trailing") is zero_snr


def test_what_a_lender_predicts_is_not_lent(folder: Path, write: Write, tmp_path: Path, pipe: Any) -> None:
    other = layouts.tiny_sdxl(3)
    other.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    other.save_pretrained(tmp_path / "noob")
    assert load(write(), tmp_path / "noob").scheduler.config.prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("without", "lent"),
    [
        (("conditioner.",), ("text_encoder", "text_encoder_2")),
        (("conditioner.embedders.1.",), ("text_encoder_2",)),
        (("first_stage_model.",), ("vae",)),
        (("conditioner.", "first_stage_model."), ("text_encoder", "text_encoder_2", "vae")),
    ],
)
def test_missing_parts_are_lent(
    pipe: Any, folder: Path, write: Write, tmp_path: Path, without: tuple[str, ...], lent: tuple[str, ...]
) -> None:
    other = layouts.tiny_sdxl(5)
    other.save_pretrained(tmp_path / "other")
    read = load(write(without=without), tmp_path / "other")
    assert same(read, other, lent)
    assert same(read, pipe, tuple(part for part in PARTS if part not in lent))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_lender_may_hold_half_precision_alone(write: Write, tmp_path: Path, variant: str | None) -> None:
    other = layouts.tiny_sdxl(5).to(torch.float16)
    other.save_pretrained(tmp_path / "other", variant=variant)
    read = load(write(without=("conditioner.", "first_stage_model.")), tmp_path / "other")
    assert same(read, other.to(torch.float32), ("text_encoder", "text_encoder_2", "vae"))
    assert read.vae.dtype == read.text_encoder.dtype == torch.float32


def test_the_downloaded_vae_serves_before_a_lenders(folder: Path, write: Write, tmp_path: Path) -> None:
    other = layouts.tiny_sdxl(6)
    other.vae.save_pretrained(tmp_path / "fp16-vae")
    read = load(write(without=("first_stage_model.",)), folder, half_vae=tmp_path / "fp16-vae")
    assert same(read, other, ("vae",))


@pytest.mark.parametrize(
    ("without", "sentence"),
    [
        (("conditioner.",), "no text encoder in it.*download sdxl-base"),
        (("conditioner.embedders.1.",), "no second text encoder in it.*download sdxl-base"),
        (("first_stage_model.",), "no VAE in it.*download fp16-vae"),
    ],
)
def test_what_is_missing_and_nobody_lends_is_named(
    folder: Path, write: Write, tmp_path: Path, without: tuple[str, ...], sentence: str
) -> None:
    for part in PARTS:
        (tmp_path / "configs" / part).mkdir(parents=True)
        (tmp_path / "configs" / part / "config.json").write_bytes((folder / part / "config.json").read_bytes())
    shutil.copytree(folder / "scheduler", tmp_path / "configs" / "scheduler")
    with pytest.raises(RequestError, match=sentence):
        load(write(without=without), tmp_path / "configs")


def test_other_families_are_refused_by_their_name(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    entrance, deep = f"{UNET}input_blocks.0.0.weight", f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    v2 = f"{UNET}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    unet = {key: value for key, value in state.items() if key.startswith(UNET)}
    no_labels = {key: value for key, value in unet.items() if "label_emb" not in key}
    refiner = unet | {"conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": torch.zeros(4)}
    cases = {
        "inpainting model": {**state, entrance: torch.zeros(32, 9, 3, 3)},
        "refiner": refiner,
        "SD 2 model": {**no_labels, v2: torch.zeros(4, 1024)},
        "Playground": {**state, "edm_mean": torch.zeros(1)},
        "flux": {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(4)},
        "neither SDXL nor SD1.5": {**no_labels, deep: torch.zeros(4, 99)},
    }
    for words, tensors in cases.items():
        file = tmp_path / "x.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, file)
        with pytest.raises(RequestError, match=words):
            checkpoints.inspect(file)


def test_a_pruned_network_is_named(folder: Path, tmp_path: Path, write: Write) -> None:
    with pytest.raises(RequestError, match="cut-down or enlarged SDXL"):
        load(write())  # the sizes of no published network, and nobody here has them


@pytest.mark.parametrize(
    ("class_name", "taken"),
    [
        ("StableDiffusionXLPipeline", True),
        ("StableDiffusionXLCommonPipeline", True),
        ("StableDiffusionPipeline", True),
        ("FluxPipeline", False),
        ("StableDiffusion3Pipeline", False),
        ("KolorsPipeline", False),
        ("QwenImagePipeline", False),
    ],
)
def test_folders_of_other_families_are_refused(
    folder: Path, tmp_path: Path, class_name: str, taken: bool, pipe: Any
) -> None:
    pipe.save_pretrained(tmp_path / "base")
    index = tmp_path / "base" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionXLPipeline", class_name))
    if taken:
        assert checkpoints.inspect(tmp_path / "base").architecture == "sdxl"
    else:
        with pytest.raises(RequestError, match=class_name.removesuffix("Pipeline")):
            checkpoints.inspect(tmp_path / "base")


def test_an_inpainting_folder_is_refused_by_its_name(tmp_path: Path) -> None:
    layouts.tiny_sdxl(in_channels=9).save_pretrained(tmp_path / "inpaint")
    with pytest.raises(RequestError, match="inpainting model"):
        checkpoints.inspect(tmp_path / "inpaint")


def test_a_folder_without_a_schedule_gets_the_published_one(folder: Path, pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "scheduler" / "scheduler_config.json").unlink()
    read = load(tmp_path / "base")
    assert same(read, pipe)
    assert read.scheduler.config.beta_schedule == "scaled_linear"


@pytest.mark.parametrize("gone", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_an_incomplete_folder_is_one_sentence(pipe: Any, tmp_path: Path, gone: str) -> None:
    pipe.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / gone).unlink()
    with pytest.raises(RequestError, match=r"incomplete|could not be loaded|no unet/config.json"):
        load(tmp_path / "base")


def test_a_file_that_lacks_weights_is_one_sentence(folder: Path, write: Write) -> None:
    with pytest.raises(RequestError, match="could not be loaded"):
        load(write(without=(f"{UNET}middle_block.2.",)), folder)


def test_a_folder_with_one_base_file_is_that_file(write: Write, tmp_path: Path, folder: Path) -> None:
    file = write("model.safetensors")
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 4)}, tmp_path / "extra.safetensors")
    assert checkpoints.inspect(tmp_path).path == file
    write("other.safetensors")
    with pytest.raises(RequestError, match=r"model\.safetensors, other\.safetensors"):
        checkpoints.inspect(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dreamshaperXL_v21TurboDPMSDE", "turbo"),
        ("realvisxlV50_v50LightningBakedvae", "lightning"),
        ("juggernautXL_v9Rdphoto2Lightning", "lightning"),
        ("SG161222--RealVisXL_V5.0_Lightning", "lightning"),
        ("stabilityai/sdxl-turbo", "turbo"),
        ("epicrealismXL_vxviLastfameDMD2", "dmd"),
        ("lcm-sdxl-merge", "lcm"),
        ("leosamsHelloworldXL_hyper8steps", "hyper"),
        ("HyperRealismXL_v2", None),
        ("hyperrealism", None),
        ("juggernautXL_v9", None),
        ("sd_xl_base_1.0", None),
    ],
)
def test_few_step_merges_are_known_by_their_names(name: str, kind: str | None) -> None:
    assert checkpoints.few_step_of(name) == kind


def test_a_files_own_title_tells_as_well(write: Write) -> None:
    file = write("anything.safetensors", told={"modelspec.title": "Photo XL Lightning"})
    assert checkpoints.inspect(file).few_step == "lightning"


def test_a_hub_id_is_looked_up_on_this_machine_alone() -> None:
    with pytest.raises(RequestError, match="hf download owner/absent"):
        loading.locate("owner/absent", "base")
