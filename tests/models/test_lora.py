"""LoRAs of every layout: what they add to which weight, that nothing is lost in silence, and that nothing stays."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn

from instantid_demo.backends import mapped
from instantid_demo.method.loading import load_pipeline
from instantid_demo.models import addons, lora, lora_deltas, lora_layout
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT, Settings

POCKET = ROOT / "assets" / "pocket"
QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "down_blocks.1.resnets.0.conv1"
TIME = "time_embedding.linear_1"
LAYERS = (QUERY, KEY, OUT, CONV, TIME)
RANK = 4
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def pipe() -> Any:
    if not (POCKET / "unet").is_dir():
        pytest.skip("Pocket's weights are not in assets/pocket")
    return load_pipeline(POCKET, POCKET / "ControlNetModel", POCKET / "image_adapter.safetensors", device="cpu")


@pytest.fixture(autouse=True)
def untouched(pipe: Any) -> Iterator[None]:
    """Every test leaves every weight as it was, bit for bit."""
    before = {name: value.clone() for name, value in weights(pipe).items()}
    yield
    assert all(torch.equal(value, before[name]) for name, value in weights(pipe).items())


def weights(pipe: Any) -> State:
    return {
        f"{part}.{name.replace('.base_layer', '')}": value
        for part, network in lora_layout.networks(pipe).items()
        for name, value in network.state_dict().items()
        if ".lora_" not in name
    }


def layer(pipe: Any, path: str, part: str = "unet") -> nn.Module:
    return dict(lora_layout.layers_of(getattr(pipe, part)))[path]


def acts_as(pipe: Any, path: str, part: str = "unet") -> Tensor:
    """The weight with which a layer works now, read off what it answers to every unit input."""
    module, weight = getattr(pipe, part).get_submodule(path), layer(pipe, path, part).weight
    with torch.no_grad():
        if weight.ndim == 2:
            zero = torch.zeros(1, weight.shape[1])
            return (module(torch.eye(weight.shape[1])) - module(zero)).T
        count, (high, wide) = weight.shape[1], weight.shape[2:]
        units = torch.eye(count * high * wide).reshape(-1, count, high, wide)
        # The middle answer of a padded convolution has seen the whole unit kernel.
        answers = module(units) - module(torch.zeros(1, count, high, wide))
        return answers[:, :, high // 2, wide // 2].T.reshape(weight.shape)


def factors(pipe: Any, paths: tuple[str, ...] = LAYERS, part: str = "unet", rank: int = RANK) -> dict[str, State]:
    draw, made = torch.Generator().manual_seed(3), {}
    for path in paths:
        shape = layer(pipe, path, part).weight.shape
        down = torch.randn(rank, *shape[1:], generator=draw) / 10
        up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=draw) / 10
        made[path] = {"down": down, "up": up}
    return made


def product(given: Mapping[str, Tensor]) -> Tensor:
    return (given["up"].flatten(1) @ given["down"].flatten(1)).reshape(-1, *given["down"].shape[1:])


def check(pipe: Any, file: Path, expected: Mapping[str, Tensor], weight: float = 1.0, part: str = "unet") -> list[str]:
    """That each layer gets what is expected at `weight`, and the notes."""
    before = {path: acts_as(pipe, path, part) for path in expected}
    with lora.applied(pipe, [(file, weight)]) as notes:
        for path, delta in expected.items():
            torch.testing.assert_close(acts_as(pipe, path, part) - before[path], weight * delta, atol=2e-4, rtol=1e-3)
            assert delta.abs().max() > 1e-2
    return notes


def kohya(stem: str, given: Mapping[str, Tensor], alpha: float | None = None) -> State:
    state = {f"{stem}.lora_down.weight": given["down"], f"{stem}.lora_up.weight": given["up"]}
    return state | ({} if alpha is None else {f"{stem}.alpha": torch.tensor(alpha)})


def peft(stem: str, given: Mapping[str, Tensor], alpha: float | None = None) -> State:
    state = {f"{stem}.lora_A.weight": given["down"], f"{stem}.lora_B.weight": given["up"]}
    return state | ({} if alpha is None else {f"{stem}.alpha": torch.tensor(alpha)})


def ldm(pipe: Any, path: str) -> str:
    block = ".".join(path.split(".")[:2])
    attends = any(name.startswith(f"{block}.attentions") for name, _ in pipe.unet.named_modules())
    return lora_layout.ldm_name(path, pipe.unet.config.layers_per_block, attends) or path


LAYOUTS: dict[str, Callable[[Any, str, State], State]] = {
    "peft": lambda pipe, path, given: peft(f"unet.{path}", given),
    "peft without a prefix": lambda pipe, path, given: peft(path, given),
    "peft's own": lambda pipe, path, given: peft(f"base_model.model.{path}", given),
    "peft's own with a prefix": lambda pipe, path, given: peft(f"base_model.model.unet.{path}", given),
    "peft with an adapter's name": lambda pipe, path, given: {
        key.replace(".weight", ".default.weight"): value for key, value in peft(f"unet.{path}", given).items()
    },
    "kohya": lambda pipe, path, given: kohya(f"lora_unet_{path.replace('.', '_')}", given),
    "kohya, sgm": lambda pipe, path, given: kohya(f"lora_unet_{ldm(pipe, path).replace('.', '_')}", given),
    "comfyui": lambda pipe, path, given: peft(f"diffusion_model.{ldm(pipe, path)}", given),
    "lycoris": lambda pipe, path, given: kohya(f"lycoris_{path.replace('.', '_')}", given),
    "old diffusers": lambda pipe, path, given: {
        f"unet.{_old(path)}.down.weight": given["down"],
        f"unet.{_old(path)}.up.weight": given["up"],
    },
}


def _old(path: str) -> str:
    head, dot, tail = path.rpartition(".attn")
    if not dot:
        return f"{path}.lora"
    number, _, projection = tail.partition(".")
    return f"{head}.attn{number}.processor.{projection.removesuffix('.0')}_lora"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_adds_its_product(pipe: Any, tmp_path: Path, layout: str) -> None:
    made, state, file = factors(pipe), {}, tmp_path / "style.safetensors"
    for path, given in made.items():
        state |= LAYOUTS[layout](pipe, path, given)
    save_file(state, file)
    expected = {path: product(given) for path, given in made.items()}
    assert check(pipe, file, expected) == []
    assert check(pipe, file, expected, weight=-0.5) == []


def test_the_original_names_are_diffusers_own_translation() -> None:
    """Every layer of a small SDXL network, through diffusers' converter of checkpoints."""
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 4),
        cross_attention_dim=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
        use_linear_projection=True,
        norm_num_groups=8,
    )
    paths = [path for path, _ in lora_layout.layers_of(unet)]
    attending = {path.partition(".attentions.")[0] for path in paths if ".attentions." in path}
    names = {path: lora_layout.ldm_name(path, 2, ".".join(path.split(".")[:2]) in attending) or path for path in paths}
    original = {
        f"model.diffusion_model.{name}.{kind}": torch.tensor(float(number))
        for number, name in enumerate(names.values())
        for kind in ("weight", "bias")
    }
    translated = convert_ldm_unet_checkpoint(original, dict(unet.config) | {"class_embed_type": None})
    assert len(paths) > 100
    assert {path: translated[f"{path}.weight"].item() for path in paths} == {
        path: float(number) for number, path in enumerate(paths)
    }


def test_ranks_and_alphas_may_differ_from_layer_to_layer(pipe: Any, tmp_path: Path) -> None:
    state, expected, file = {}, {}, tmp_path / "mixed.safetensors"
    for number, path in enumerate(LAYERS):
        rank, alpha = 2 + number, 1.0 + 2 * number
        given = factors(pipe, (path,), rank=rank)[path]
        state |= kohya(f"lora_unet_{path.replace('.', '_')}", given, alpha)
        expected[path] = product(given) * alpha / rank
    save_file(state, file)
    assert check(pipe, file, expected) == []


@pytest.mark.parametrize(
    ("part", "stem"),
    [
        ("text_encoder", "lora_te1_text_model_encoder_layers_{}_mlp_fc1"),
        ("text_encoder", "lora_te_text_model_encoder_layers_{}_mlp_fc1"),
        ("text_encoder", "text_encoder.text_model.encoder.layers.{}.mlp.fc1"),
        ("text_encoder_2", "lora_te2_text_model_encoder_layers_{}_mlp_fc1"),
        ("text_encoder_2", "text_encoder_2.text_model.encoder.layers.{}.mlp.fc1"),
    ],
)
def test_text_encoders_with_alphas_of_their_own(pipe: Any, tmp_path: Path, part: str, stem: str) -> None:
    prefix = "" if part == "text_encoder" else "text_model."
    state, expected, file = {}, {}, tmp_path / "words.safetensors"
    for number in (0, 1, 2):
        path = f"{prefix}encoder.layers.{number}.mlp.fc1"
        given = factors(pipe, (path,), part, rank=2 + number)[path]
        state |= kohya(stem.format(number), given, 1.0 + number)
        expected[path] = product(given) * (1.0 + number) / (2 + number)
    save_file(state, file)
    assert check(pipe, file, expected, part=part) == []


def test_peft_tells_its_alpha_in_or_beside_the_file(pipe: Any, tmp_path: Path) -> None:
    made = factors(pipe, (QUERY, KEY))
    state = {key: value for path, given in made.items() for key, value in peft(f"unet.{path}", given).items()}
    inside = tmp_path / "inside.safetensors"
    told = {"unet.r": RANK, "unet.lora_alpha": 8, "unet.alpha_pattern": {KEY: 2}}
    save_file(state, inside, {"lora_adapter_metadata": json.dumps(told)})
    check(pipe, inside, {QUERY: product(made[QUERY]) * 2, KEY: product(made[KEY]) / 2})
    beside = tmp_path / "adapter_model.safetensors"
    save_file({key.replace("unet.", "base_model.model."): value for key, value in state.items()}, beside)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 8, "use_rslora": True}))
    check(pipe, beside, {path: product(given) * 8 / RANK**0.5 for path, given in made.items()})


def decomposed(weight: Tensor, delta: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    others = [other for other in range(weight.ndim) if other != axis]
    moved = weight + delta
    return magnitude * moved / torch.linalg.vector_norm(moved, dim=others, keepdim=True)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
def test_dora_of_kohya_and_lycoris(pipe: Any, tmp_path: Path, axis: int, weight: float) -> None:
    made, state, expected, file = factors(pipe), {}, {}, tmp_path / "dora.safetensors"
    for path, given in made.items():
        own = layer(pipe, path).weight.detach()
        others = [other for other in range(own.ndim) if other != axis]
        magnitude = 1.3 * torch.linalg.vector_norm(own, dim=others, keepdim=True)
        stem = f"lora_unet_{path.replace('.', '_')}"
        state |= kohya(stem, given, 2.0) | {f"{stem}.dora_scale": magnitude}
        expected[path] = decomposed(own, product(given) * 2 / RANK, magnitude, axis) - own
    save_file(state, file)
    assert check(pipe, file, expected, weight) == []


@pytest.mark.parametrize("suffix", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
def test_dora_of_peft(pipe: Any, tmp_path: Path, suffix: str) -> None:
    made, state, expected, file = factors(pipe), {}, {}, tmp_path / "dora.safetensors"
    for path, given in made.items():
        own = layer(pipe, path).weight.detach()
        others = list(range(1, own.ndim))
        magnitude = 0.8 * torch.linalg.vector_norm(own, dim=others, keepdim=True)
        flat = magnitude.flatten() if own.ndim == 2 else magnitude.transpose(0, 1)
        state |= peft(f"unet.{path}", given) | {f"unet.{path}.{suffix}": flat.contiguous()}
        expected[path] = decomposed(own, product(given), magnitude, 0) - own
    save_file(state, file)
    assert check(pipe, file, expected) == []


def lycoris(pipe: Any, path: str, kind: str) -> tuple[State, Tensor]:
    """Tensors of a kind of LyCORIS for a layer by role, and the delta that its paper defines."""
    shape, draw = layer(pipe, path).weight.shape, torch.Generator().manual_seed(7)
    out, inside, kernel = shape[0], shape[1], shape[2:]

    def some(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw) / 4

    rest = inside * kernel.numel()
    if kind == "loha":
        parts = [some(out, RANK), some(RANK, rest), some(out, RANK), some(RANK, rest)]
        delta = (parts[0] @ parts[1]) * (parts[2] @ parts[3])
        return dict(zip(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), parts, strict=True)), delta
    if kind == "loha with a core":
        first, second = some(RANK, out), some(RANK, inside)
        third, fourth = some(RANK, out), some(RANK, inside)
        cores = [some(RANK, RANK, *kernel), some(RANK, RANK, *kernel)]
        delta = torch.ones(())
        for core, left, right in ((cores[0], first, second), (cores[1], third, fourth)):
            delta = delta * torch.einsum("ijkl,ip,jr->prkl", core, left, right)
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
        return dict(zip(names, (first, second, third, fourth, *cores), strict=True)), delta
    small = some(4, 8)
    if kind == "lokr":
        left, right = some(out // 4, RANK), some(RANK, rest // 8)
        names = ("lokr_w1", "lokr_w2_a", "lokr_w2_b")
        large = (left @ right).reshape(out // 4, inside // 8, *kernel)
        return dict(zip(names, (small, left, right), strict=True)), _kron(small, large)
    if kind == "lokr in full":
        large = some(out // 4, inside // 8, *kernel)
        return {"lokr_w1": small, "lokr_w2": large}, _kron(small, large) * RANK / 2  # alpha counts for factors only
    raise ValueError(kind)


def _kron(small: Tensor, large: Tensor) -> Tensor:
    rows = [torch.cat([number * large for number in row], 1) for row in small]
    return torch.cat(rows, 0)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("loha", LAYERS),
        ("loha with a core", (CONV,)),
        ("lokr", LAYERS),
        ("lokr in full", LAYERS),
    ],
)
@pytest.mark.parametrize("stem", ["lora_unet_", "lycoris_", "base_model.model."])
def test_lycoris_deltas_are_exact(pipe: Any, tmp_path: Path, kind: str, layers: tuple[str, ...], stem: str) -> None:
    state, expected, file = {}, {}, tmp_path / "lycoris.safetensors"
    for path in layers:
        tensors, delta = lycoris(pipe, path, kind)
        name = stem + (path if stem.endswith(".") else path.replace(".", "_"))
        state |= {f"{name}.{role}": tensor.contiguous() for role, tensor in tensors.items()}
        state[f"{name}.alpha"] = torch.tensor(2.0)
        expected[path] = delta.reshape(layer(pipe, path).weight.shape) * 2 / RANK
    save_file(state, file)
    assert check(pipe, file, expected) == []
    check(pipe, file, expected, weight=0.25)


def test_two_at_once_with_one_of_each_sort(pipe: Any, tmp_path: Path) -> None:
    """A plain one, a LoHa on the same layer, and the plain one again."""
    given = factors(pipe, (QUERY,))[QUERY]
    save_file(peft(f"unet.{QUERY}", given), tmp_path / "plain.safetensors")
    tensors, delta = lycoris(pipe, QUERY, "loha")
    save_file({f"{QUERY}.{role}": tensor for role, tensor in tensors.items()}, tmp_path / "loha.safetensors")
    plain, loha = tmp_path / "plain.safetensors", tmp_path / "loha.safetensors"
    before = acts_as(pipe, QUERY)
    with lora.applied(pipe, [(plain, 0.5), (loha, 1.0), (plain, 0.25)]):
        torch.testing.assert_close(acts_as(pipe, QUERY) - before, 0.75 * product(given) + delta, atol=2e-4, rtol=1e-3)
    with pytest.raises(ZeroDivisionError), lora.applied(pipe, [(loha, 1.0)]):
        raise ZeroDivisionError
    assert torch.equal(acts_as(pipe, QUERY), before)


def test_norms_biases_and_the_projection_act_where_they_have_a_place(pipe: Any, tmp_path: Path) -> None:
    norm, projection = "down_blocks.1.resnets.0.norm1", "text_projection"
    grow, bias = torch.full_like(layer(pipe, norm).weight, 0.5), torch.full_like(layer(pipe, norm).bias, 0.25)
    given = factors(pipe, (projection,), "text_encoder_2")[projection]
    stem = f"lora_unet_{norm.replace('.', '_')}"
    state = {f"{stem}.w_norm": grow, f"{stem}.b_norm": bias, "lora_unet_conv_in.diff_b": torch.ones(128)}
    state |= kohya("lora_te2_text_projection", given, 8.0)
    file = tmp_path / "more.safetensors"
    save_file(state, file)
    own, entrance = layer(pipe, norm), layer(pipe, "conv_in")
    before = (own.weight.clone(), own.bias.clone(), entrance.bias.clone(), entrance.weight.clone())
    with lora.applied(pipe, [(file, 0.5)]) as notes:
        torch.testing.assert_close(own.weight, before[0] + 0.25)
        torch.testing.assert_close(own.bias, before[1] + 0.125)
        torch.testing.assert_close(entrance.bias, before[2] + 0.5)
        assert torch.equal(entrance.weight, before[3])
        assert notes == []
    assert torch.equal(entrance.bias, before[2])
    check(pipe, file, {projection: product(given) * 8 / RANK}, part="text_encoder_2")


def good(pipe: Any) -> State:
    return {
        key: value
        for path, given in factors(pipe).items()
        for key, value in kohya(f"lora_unet_{path.replace('.', '_')}", given).items()
    }


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"lora_te2_text_projection.lora_down.weight": torch.ones(4, 9)}, "text_encoder_2.text_projection"),
        ({"lora_unet_norm_of_another.w_norm": torch.ones(4)}, "lora_unet_norm_of_another"),
        ({"lora_unet_add_embedding_linear_9.alpha": torch.tensor(4.0)}, "lora_unet_add_embedding_linear_9"),
        ({"mystery": torch.ones(4)}, "mystery"),
        ({"lora_unet_conv_out.lora_down.weight": torch.ones(4, 128, 3, 3)}, "unet.conv_out"),
        ({"lora_unet_conv_in.lora_down.weight": torch.ones(())}, "unet.conv_in"),
        ({"unet.conv_in.diff": torch.ones(128, 9, 3, 3)}, "unet.conv_in"),
        (
            {
                "lora_unet_conv_out.lora_down.weight": torch.ones(4, 5),
                "lora_unet_conv_out.lora_up.weight": torch.ones(8),
            },
            "unet.conv_out",
        ),
    ],
)
def test_keys_without_a_place_are_named_and_the_rest_acts(pipe: Any, tmp_path: Path, extra: State, named: str) -> None:
    file = tmp_path / "more.safetensors"
    save_file(good(pipe) | extra, file)
    (note,) = check(pipe, file, {path: product(given) for path, given in factors(pipe).items()})
    assert named in note
    assert "more.safetensors" in note
    with lora.applied(pipe, [(file, 1.0)]) as again:
        assert again == [note]


def _pairs(stem: str, count: int, inside: int, out: int, dotted: bool = False) -> State:
    state: State = {}
    for number in range(count):
        pair = {"down": torch.ones(RANK, inside), "up": torch.ones(out, RANK)}
        state |= (peft if dotted else kohya)(stem.format(number), pair)
    return state


FOREIGN = {
    "FLUX": _pairs("transformer.single_transformer_blocks.{}.attn.to_q", 3, 3072, 3072, dotted=True),
    "FLUX ": _pairs("lora_unet_double_blocks_{}_img_attn_qkv", 3, 3072, 9216),
    "SD 3": _pairs("transformer.transformer_blocks.{}.attn.add_q_proj", 3, 1536, 1536, dotted=True),
    "SD1.5": _pairs("lora_unet_down_blocks_1_attentions_{}_transformer_blocks_0_attn2_to_k", 2, 768, 640),
    "SDXL": _pairs("lora_unet_down_blocks_1_attentions_{}_transformer_blocks_0_attn2_to_k", 2, 2048, 640),
    "SD 2": _pairs("lora_unet_down_blocks_1_attentions_{}_transformer_blocks_0_attn2_to_k", 2, 1024, 640),
    "Wan": _pairs("diffusion_model.blocks.{}.self_attn.q", 3, 1536, 1536, dotted=True),
    "Qwen-Image": _pairs("transformer_blocks.{}.img_mlp.net.2", 3, 3072, 3072, dotted=True),
}


@pytest.mark.parametrize("architecture", FOREIGN)
def test_one_for_another_architecture_is_named_as_such(pipe: Any, tmp_path: Path, architecture: str) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file(FOREIGN[architecture], file)
    with pytest.raises(RequestError, match=f"foreign.safetensors.* for {architecture.strip()}"):
        lora.planned(pipe, file)


def test_what_the_maker_wrote_names_the_architecture(pipe: Any, tmp_path: Path) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file(_pairs("lora_unet_blocks_{}_x", 3, 8, 8), file, {"modelspec.architecture": "stable-diffusion-v1/lora"})
    with pytest.raises(RequestError, match=r"SD1\.5"):
        lora.planned(pipe, file)


def test_a_text_encoders_part_does_not_make_an_sd15_lora_fit(pipe: Any, tmp_path: Path) -> None:
    words = {}
    for number in range(3):
        path = f"encoder.layers.{number}.mlp.fc1"
        words |= kohya(
            f"lora_te_text_model_encoder_layers_{number}_mlp_fc1", factors(pipe, (path,), "text_encoder")[path]
        )
    file = tmp_path / "old.safetensors"
    save_file(FOREIGN["SD1.5"] | words, file)
    with pytest.raises(RequestError, match=r"SD1\.5"):
        lora.planned(pipe, file)


@pytest.mark.parametrize(
    "state",
    [
        {"unet.conv_in.lora_A.weight": torch.ones(()), "unet.conv_in.lora_B.weight": torch.ones(())},
        {"unet.conv_in.lora_A.weight": torch.ones(5), "unet.conv_in.lora_B.weight": torch.ones(5)},
        {"unet.conv_in.lora_A.weight": torch.ones(0, 8), "unet.conv_in.lora_B.weight": torch.ones(128, 0)},
        {"unet.conv_in.lora_A.weight": torch.ones(4, 72)},
        {"unet.conv_in.lokr_w1": torch.ones(3), "unet.conv_in.lokr_w2": torch.ones(())},
        {"unet.conv_in.hada_w1_a": torch.ones(128, 4)},
        {"unet.conv_in.oft_blocks": torch.ones(4, 4, 4)},
        {"clip_l": torch.ones(2, 8), "clip_g": torch.ones(2, 8)},
    ],
)
def test_what_makes_no_lora_is_refused_in_a_sentence(pipe: Any, tmp_path: Path, state: State) -> None:
    file = tmp_path / "odd.safetensors"
    save_file(state, file)
    with pytest.raises(RequestError), lora.applied(pipe, [(file, 1.0)]):
        pass
    assert not any(name.startswith("lora_odd") for names in pipe.get_list_adapters().values() for name in names)


@pytest.mark.parametrize(
    "tensors",
    [
        {"oft_blocks": torch.ones(4, 4, 4), "alpha": torch.tensor(1.0)},
        {"oft_diag": torch.ones(4, 4, 4), "alpha": torch.tensor(1.0), "rescale": torch.ones(4)},
        {"a1.weight": torch.ones(4, 4), "b1.weight": torch.ones(4, 4), "alpha": torch.tensor(4.0)},
        {"weight": torch.ones(4), "on_input": torch.tensor(False)},
    ],
)
def test_kinds_that_are_not_supported_are_named_as_such(pipe: Any, tmp_path: Path, tensors: State) -> None:
    file = tmp_path / "odd.safetensors"
    save_file({f"lora_unet_{QUERY.replace('.', '_')}.{name}": tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(RequestError, match="not supported here"):
        lora.planned(pipe, file)


@pytest.mark.parametrize("names", [("clip_l", "clip_g"), ("emb_params",)])
def test_an_embedding_is_named_as_such(pipe: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    save_file({name: torch.ones(2, 8) for name in names}, tmp_path / "odd.safetensors")
    with pytest.raises(RequestError, match="is an embedding, not a LoRA"):
        lora.planned(pipe, tmp_path / "odd.safetensors")


def test_a_header_that_lies_is_refused_in_a_sentence(pipe: Any, tmp_path: Path) -> None:
    def written(header: dict[str, Any]) -> Path:
        file, text = tmp_path / "damaged.safetensors", json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
        return file

    overlapping = {
        f"unet.conv_in.lora_{side}.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} for side in "AB"
    }
    short = {"unet.conv_in.lora_A.weight": {"dtype": "F32", "shape": [400, 4], "data_offsets": [0, 64]}}
    for header in (overlapping, short):
        with pytest.raises(RequestError, match=r"damaged\.safetensors"), lora.applied(pipe, [(written(header), 1.0)]):
            pass


@pytest.mark.parametrize("name", ["style.SAFETENSORS", "style.pt", "style.bin", "style.PT"])
def test_endings_of_every_spelling(pipe: Any, tmp_path: Path, name: str) -> None:
    made, file = factors(pipe), tmp_path / name
    state = {key: value for path, given in made.items() for key, value in peft(f"unet.{path}", given).items()}
    if name.endswith("SAFETENSORS"):
        save_file(state, file)
    else:
        torch.save({"state_dict": state}, file)
    settings = Settings(home=tmp_path)  # type: ignore[call-arg]
    assert check(pipe, addons.find(str(file), settings), {path: product(given) for path, given in made.items()}) == []


class Trap:
    """Leaves a mark where somebody runs it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.mark), "w"))


def test_a_pickle_with_code_in_it_is_not_opened(pipe: Any, tmp_path: Path) -> None:
    torch.save({"unet.conv_in.lora_A.weight": Trap(tmp_path / "ran")}, tmp_path / "trap.pt")
    with pytest.raises(RequestError, match=r"trap\.pt"):
        lora.planned(pipe, tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """Downloaded: a repository of three LoRAs, one of one; and a file of the user's own."""
    settings = Settings(home=tmp_path)  # type: ignore[call-arg]
    for name in (
        "some--styles/Ink.safetensors",
        "some--styles/v2/clay.safetensors",
        "some--styles/v2/clay.bin",
        "some--styles/paper.pt",
        "some--single/only.safetensors",
        "lcm/pytorch_lora_weights.safetensors",
        "loras/My Style-v1.safetensors",
    ):
        file = settings.models / name
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"x": torch.ones(1)}, file)
    for folder in ("some--styles", "some--single", "lcm"):
        (settings.models / folder / ".complete").touch()
    return settings


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("some/styles/Ink.safetensors", "some--styles/Ink.safetensors"),
        ("some/styles/ink", "some--styles/Ink.safetensors"),
        ("some/styles/v2/clay.safetensors", "some--styles/v2/clay.safetensors"),
        ("some/styles/clay.safetensors", "some--styles/v2/clay.safetensors"),
        ("some/styles/paper.pt", "some--styles/paper.pt"),
        ("some/single", "some--single/only.safetensors"),
        ("lcm", "lcm/pytorch_lora_weights.safetensors"),
        ("latent-consistency/lcm-lora-sdxl", "lcm/pytorch_lora_weights.safetensors"),
        ("my style v1", "loras/My Style-v1.safetensors"),
        ("My Style-v1.safetensors", "loras/My Style-v1.safetensors"),
    ],
)
def test_one_file_of_several_is_chosen_by_name(home: Settings, source: str, found: str) -> None:
    assert addons.find(source, home) == home.models / found


def test_a_repository_of_several_names_them(home: Settings) -> None:
    with pytest.raises(RequestError, match=r"Ink\.safetensors, paper\.pt, v2/clay\.safetensors.*some/styles/Ink"):
        addons.find("some/styles", home)
    with pytest.raises(RequestError, match=r"v2/clay"):
        addons.find("some/styles/nothing.safetensors", home)


@pytest.mark.parametrize(
    "source",
    ["", " ", "nothing", "nothing.safetensors", "~nobody/x.pt", "a" * 5000, "a" * 300 + ".safetensors", "x\0.pt", "..",
     "some/../loras/x", "/proc/self/mem", "hyper", "other/repository", "other/repository/file.safetensors", "a/b/c/d"],
)  # fmt: skip
def test_what_is_not_here_gets_a_sentence(home: Settings, source: str) -> None:
    with pytest.raises(RequestError) as caught:
        addons.find(source, home)
    assert len(str(caught.value)) < 400
    if source in ("hyper", "other/repository", "other/repository/file.safetensors"):
        assert f"download {'/'.join(source.split('/')[:2])}`" in str(caught.value)


def test_texts_name_loras_but_no_paths(home: Settings) -> None:
    file = home.models / "loras" / "My Style-v1.safetensors"
    assert addons.named("my_style_v1", home) == "my_style_v1"
    assert addons.named("folder/My Style-v1", home) == "My Style-v1"
    assert addons.named("lcm", home) == "lcm"
    assert addons.named("hyper", home) is None
    assert addons.named("nothing", home) is None
    assert addons.named(str(file), home) == file.name  # by its name among our own, wherever the path leads
    outside = home.home / "elsewhere.safetensors"
    save_file({"x": torch.ones(1)}, outside)
    assert addons.named(str(outside), home) is None
    hosted = home.model_copy(update={"hosted": True})
    assert addons.named("my_style_v1", hosted) is None
    assert addons.named("lcm", hosted) == "lcm"


def test_weights_that_wait_elsewhere_are_changed_and_come_back(pipe: Any, tmp_path: Path) -> None:
    """Sequential offloading keeps every weight out of its network between two calls."""
    tensors, delta = lycoris(pipe, KEY, "loha")
    given = factors(pipe, (QUERY,))[QUERY]
    loha = {f"lycoris_{KEY.replace('.', '_')}.{role}": tensor for role, tensor in tensors.items()}
    file = tmp_path / "both.safetensors"
    save_file(loha | peft(f"unet.{QUERY}", given), file)
    kept = weights(pipe)
    before = layer(pipe, KEY).weight.detach().clone()

    def waiting(module: Any) -> Tensor:
        assert module.weight.is_meta
        return module._hf_hook.weights_map["weight"]

    pipe.enable_sequential_cpu_offload(device="cpu")
    try:
        with lora.applied(pipe, [(file, 0.5)]) as notes:
            assert notes == []
            torch.testing.assert_close(waiting(layer(pipe, KEY)), before + 0.5 * delta)
            adapted = pipe.unet.get_submodule(QUERY)
            (name,) = adapted.active_adapters
            assert torch.equal(waiting(adapted.lora_A[name]), given["down"])
            assert torch.equal(waiting(adapted.lora_B[name]), given["up"])
        assert torch.equal(waiting(layer(pipe, KEY)), before)
    finally:
        pipe.remove_all_hooks()
    assert all(torch.equal(value, kept[name]) for name, value in weights(pipe).items())


def test_weights_in_a_file_and_half_precision_come_back(pipe: Any, tmp_path: Path) -> None:
    """As for OpenVINO, which lets large networks' weights wait on the disk."""
    network = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(8, 8, 3)).to(torch.bfloat16)
    mapped.mapped(network, tmp_path / "weights")
    before = [parameter.clone() for parameter in network.parameters()]
    where = [parameter.data_ptr() for parameter in network.parameters()]
    changes = [lora_deltas.Change(part, {"diff": torch.ones_like(part.weight)}, 1.0, 0.25) for part in network]
    with lora_deltas.added(changes):
        assert torch.equal(network[0].weight, (before[0].float() + 0.25).to(torch.bfloat16))
        assert network[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert [parameter.data_ptr() for parameter in network.parameters()] == where
    assert all(map(torch.equal, before, network.parameters()))


def test_many_layers_of_many_ranks_load_in_one_go(pipe: Any, tmp_path: Path) -> None:
    """peft looks for a layer's rank among expressions: one for each layer would take minutes for SDXL."""
    paths = [path for path, part in lora_layout.layers_of(pipe.unet) if isinstance(part, nn.Linear)]
    state = {}
    for number, path in enumerate(paths):
        state |= kohya(f"lora_unet_{path.replace('.', '_')}", factors(pipe, (path,), rank=1 + number % 3)[path], 2.0)
    file = tmp_path / "all.safetensors"
    save_file(state, file)
    with lora.applied(pipe, [(file, 1.0)]) as notes:
        assert notes == []
        (adapter,) = pipe.unet.get_submodule(paths[0]).active_adapters
        assert len(pipe.unet.peft_config[adapter].rank_pattern) == 3
        for number, path in enumerate(paths):
            module = pipe.unet.get_submodule(path)
            name = module.active_adapters[0]
            assert (module.r[name], module.scaling[name]) == (1 + number % 3, 2.0 / (1 + number % 3))
