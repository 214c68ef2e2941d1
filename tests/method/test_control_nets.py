"""Extra ControlNets in every published layout, and one network for many kinds of maps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file

from instantid_demo.method import checkpoints, loading
from instantid_demo.method.identity_net import ControlNet, UnionNet
from instantid_demo.request import RequestError
from tests import layouts


@pytest.fixture(scope="module")
def unet() -> Any:
    return layouts.tiny_sdxl().unet


@pytest.fixture(scope="module")
def net(unet: Any) -> ControlNetModel:
    return layouts.tiny_control(unet)


def read(path: Path) -> Any:
    kinds = ("controlnet", "identity-net", "controlnet-union")
    return loading.load_controlnet(checkpoints.require(path, kind=kinds, architecture="sdxl"))


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.clone().contiguous() for key, value in state.items()}


@pytest.mark.parametrize("layout", ["folder", "fp16", "bin", "diffusers file", "original file", "bare original", "pth"])
def test_every_layout_gives_the_same_weights(net: ControlNetModel, tmp_path: Path, layout: str) -> None:
    place = tmp_path / "control-canny"
    original = contiguous(layouts.original_control(net))
    if layout in ("folder", "bin"):
        net.save_pretrained(place, safe_serialization=layout == "folder")
    elif layout == "fp16":
        half = ControlNetModel.from_config(net.config)
        half.load_state_dict(net.state_dict())
        half.half().save_pretrained(place, variant="fp16")
        assert same(read(place), half.float())
        return
    else:
        place = place.with_suffix(".pth" if layout == "pth" else ".safetensors")
        if layout == "pth":
            torch.save(original, place)
        elif layout == "diffusers file":
            save_file(contiguous(net.state_dict()), place)
        else:
            prefix = "control_model." if layout == "bare original" else ""
            save_file({key.removeprefix(prefix): value for key, value in original.items()}, place)
    assert same(read(place), net)
    assert torch.equal(answer(read(place)), answer(net.eval()))


def test_a_small_net_without_attention_loads_from_one_file(tmp_path: Path) -> None:
    small = ControlNetModel(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2D",
        cross_attention_dim=48,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1568,
        attention_head_dim=1,
        conditioning_embedding_out_channels=(16, 32),
    )
    save_file(contiguous(small.state_dict()), tmp_path / "depth.safetensors")
    assert same(read(tmp_path / "depth.safetensors"), small)


def test_a_repository_without_the_usual_file_is_one_sentence(net: ControlNetModel, tmp_path: Path) -> None:
    net.save_pretrained(tmp_path / "pose")
    (tmp_path / "pose" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "pose" / "OpenPoseXL2.safetensors")
    with pytest.raises(RequestError, match="could not be loaded"):
        read(tmp_path / "pose")


def test_a_control_lora_is_named(tmp_path: Path) -> None:
    save_file({"lora_controlnet": torch.zeros(0)}, tmp_path / "control-lora-canny-rank256.safetensors")
    with pytest.raises(RequestError, match="Control-LoRA"):
        checkpoints.inspect(tmp_path / "control-lora-canny-rank256.safetensors")


def test_a_sd15_net_is_not_taken_for_sdxl(tmp_path: Path) -> None:
    ControlNetModel(cross_attention_dim=768, block_out_channels=(32, 32, 32, 32)).save_pretrained(tmp_path / "canny")
    with pytest.raises(RequestError, match="is for SD1"):
        read(tmp_path / "canny")


# -- ControlNet-Union --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def union(unet: Any, tmp_path_factory: pytest.TempPathFactory) -> UnionNet:
    folder = tmp_path_factory.mktemp("nets") / "control-union"
    layouts.tiny_union(unet).save_pretrained(folder)
    return read(folder)


def answer(net: Any, scale: float = 1.0, count: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    added = {"text_embeds": torch.randn(count, 32, generator=draw), "time_ids": torch.ones(count, 6)}
    with torch.no_grad():
        return net(
            torch.randn(count, 4, 8, 8, generator=draw),
            5,
            torch.randn(count, 7, 48, generator=draw),
            controlnet_cond=torch.rand(count, 3, 64, 64, generator=draw),
            conditioning_scale=scale,
            added_cond_kwargs=added,
            return_dict=False,
        )[1]


def test_a_union_answers_for_the_kind_that_it_is_asked(union: UnionNet) -> None:
    assert isinstance(union, UnionNet)
    pose, edges = union.for_mode(0), union.for_mode(3)
    assert not torch.allclose(answer(pose), answer(edges))
    assert torch.equal(answer(pose), answer(union.for_mode(0)))
    assert next(pose.parameters()) is next(edges.parameters())


def test_it_gives_what_the_stock_network_gives(union: UnionNet) -> None:
    draw = torch.Generator().manual_seed(0)
    added = {"text_embeds": torch.randn(2, 32, generator=draw), "time_ids": torch.ones(2, 6)}
    chosen = torch.zeros(2, 6)
    chosen[:, 3] = 1
    with torch.no_grad():
        stock = super(UnionNet, union).forward(
            torch.randn(2, 4, 8, 8, generator=draw),
            5,
            torch.randn(2, 7, 48, generator=draw),
            [torch.rand(2, 3, 64, 64, generator=draw)],
            control_type=chosen,
            control_type_idx=[3],
            conditioning_scale=0.5,
            added_cond_kwargs=added,
            return_dict=False,
        )[1]
    assert torch.equal(answer(union.for_mode(3), 0.5), stock)


def test_at_strength_zero_it_rests(union: UnionNet) -> None:
    rested = answer(union.for_mode(1), 0.0)
    assert rested.shape == answer(union.for_mode(1)).shape
    assert not rested.any()


def test_who_hooks_into_one_kind_leaves_the_other_alone(union: UnionNet) -> None:
    pose, edges = union.for_mode(0), union.for_mode(3)
    calls: list[str] = []
    hook = pose.register_forward_pre_hook(lambda *given: calls.append("pose"))
    answer(edges)
    assert calls == []
    answer(pose)
    assert calls == ["pose"]
    hook.remove()


def test_a_union_without_its_config_says_so(unet: Any, tmp_path: Path) -> None:
    save_file(contiguous(layouts.tiny_union(unet).state_dict()), tmp_path / "union.safetensors")
    with pytest.raises(RequestError, match="ControlNet-Union without its config"):
        read(tmp_path / "union.safetensors")


def test_it_is_no_identity_net(unet: Any, tmp_path: Path) -> None:
    layouts.tiny_union(unet).save_pretrained(tmp_path / "union")
    with pytest.raises(RequestError, match="is a ControlNet-Union"):
        checkpoints.require(tmp_path / "union", kind="identity-net")
    assert isinstance(read(tmp_path / "union"), UnionNet)
    assert not isinstance(read(tmp_path / "union"), ControlNet)
