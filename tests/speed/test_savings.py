"""Exact savings give the original's picture, do their work less often, and leave no trace."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from torch import nn

from benchmarks.measure import difference, run
from benchmarks.models import FACE, SIZES, build
from benchmarks.modes import MODES, NO_SAVINGS, Mode
from instantid_demo.method import savings
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.savings import Remembered, Savings

SIZE = SIZES["smallest"]
NAMES = [field.name for field in fields(Savings)]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return build(SIZE)


@pytest.fixture(scope="module")
def reference(pipe: Any) -> torch.Tensor:
    return run(pipe, SIZE, MODES[0], 3).latents


@pytest.mark.parametrize("names", [[name] for name in NAMES] + [NAMES, []], ids=lambda names: "+".join(names) or "none")
def test_every_saving_alone_and_all_together_give_the_original_latents(
    pipe: Any, reference: torch.Tensor, names: list[str]
) -> None:
    mode = Mode("some", True, "", savings=Savings(**{**NO_SAVINGS, **dict.fromkeys(names, True)}))
    assert difference(run(pipe, SIZE, mode, 3).latents, reference) < 1e-4


def test_a_changed_picture_is_noticed(pipe: Any, reference: torch.Tensor) -> None:
    assert difference(run(pipe, SIZE, Mode("other", False, "", every=2), 3).latents, reference) > 1e-3


def test_deep_blocks_rest_in_between_and_leave_no_trace(pipe: Any, reference: torch.Tensor) -> None:
    calls = {"first": 0, "deep": 0, "last": 0}
    blocks = {"first": pipe.unet.down_blocks[0], "deep": pipe.unet.mid_block, "last": pipe.unet.up_blocks[-1]}

    def count(name: str, resnet: torch.nn.Module) -> Any:
        return resnet.register_forward_hook(lambda *_: calls.update({name: calls[name] + 1}))

    hooks = [count(name, block.resnets[0]) for name, block in blocks.items()]
    try:
        reused = run(pipe, SIZE, Mode("", False, "", deep_every=3), 4).latents
    finally:
        for hook in hooks:
            hook.remove()
    assert calls == {"first": 4, "deep": 2, "last": 4}
    whole = run(pipe, SIZE, Mode("", True, "", savings=Savings()), 4).latents
    assert 1e-4 < difference(reused, whole) < 3
    assert not any("forward" in part.__dict__ for part in pipe.unet.modules())


def test_remembered_keys_are_the_same_bits(pipe: Any) -> None:
    with_keys, without = (
        run(pipe, SIZE, Mode("", True, "", savings=Savings(**{**NO_SAVINGS, "keys": on})), 3).latents
        for on in (True, False)
    )
    assert torch.equal(with_keys, without)


@pytest.fixture
def counted(pipe: Any) -> Iterator[dict[str, int]]:
    """Calls of the key projections of the first layers and of the map's encoder."""
    counts: dict[str, int] = {}
    net = pipe.controlnets[0]
    blocks = {"unet": pipe.unet.down_blocks[1], "identity_net": net.down_blocks[1]}
    modules = {name: block.attentions[0].transformer_blocks[0].attn2.to_k for name, block in blocks.items()}
    modules["keypoint_map"] = net.controlnet_cond_embedding.conv_in
    hooks = [
        module.register_forward_hook(lambda *_, name=name: counts.update({name: counts.get(name, 0) + 1}))
        for name, module in modules.items()
    ]
    yield counts
    for hook in hooks:
        hook.remove()


def test_guidances_halves_one_after_the_other_give_the_original_latents(
    pipe: Any, reference: torch.Tensor, counted: dict[str, int]
) -> None:
    sizes = []
    hook = pipe.unet.conv_in.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    try:
        halved = run(pipe, SIZE, Mode("", True, "", halves=True), 3).latents
    finally:
        hook.remove()
    assert difference(halved, reference) < 1e-4
    assert sizes == [1] * 6
    assert (counted["unet"], counted["keypoint_map"]) == (2, 1)
    run(pipe, SIZE, Mode("", True, "", halves=True, guidance=1.0), 3)
    assert not any("forward" in part.__dict__ for net in (pipe.unet, *pipe.controlnets) for part in net.modules())


def test_keys_and_map_are_computed_once_per_request(pipe: Any, counted: dict[str, int]) -> None:
    mode = Mode("all", True, "")
    for request in (1, 2):
        run(pipe, SIZE, mode, 3)
        assert counted["unet"] == counted["keypoint_map"] == request
    run(pipe, SIZE, Mode("none", True, "", savings=Savings(**NO_SAVINGS)), 3)
    assert counted["unet"] == counted["keypoint_map"] == 2 + 3


def test_identity_net_rests_at_strength_0(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    forward = ControlNetModel.forward
    monkeypatch.setattr(ControlNetModel, "forward", lambda *a, **k: (runs.append(1), forward(*a, **k))[1])
    zero = run(pipe, SIZE, Mode("", True, "", strength=0.0), 3).latents
    assert not runs
    original = run(pipe, SIZE, Mode("", True, "", savings=None, strength=0.0), 3).latents
    assert len(runs) == 3
    assert difference(zero, original) < 1e-4


def test_no_trace_is_left_also_after_an_error(pipe: Any) -> None:
    modules = [module for net in (pipe.unet, *pipe.controlnets) for module in net.modules()]
    person = IdentityCondition(torch.zeros(FACE))

    def fail() -> None:
        with pipe.conditioned([person]), savings.applied(pipe):
            assert any("forward" in module.__dict__ for module in modules)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not any("forward" in module.__dict__ for module in modules)


def test_a_remembered_function_answers_by_content() -> None:
    calls = []
    function = Remembered(lambda given: (calls.append(1), given + 1)[1])
    tensor = torch.zeros(3)
    assert function(tensor).tolist() == function(torch.zeros(3)).tolist() == [1, 1, 1]
    assert len(calls) == 1
    assert function(torch.ones(3)).tolist() == [2, 2, 2]
    tensor += 5
    assert function(tensor).tolist() == [6, 6, 6]
    assert function(torch.zeros(3)).tolist() == [1, 1, 1]


def test_onednn_multiplies_as_pytorch_does() -> None:
    if not savings.has_onednn():
        pytest.skip("this PyTorch has no oneDNN")
    for bias in (True, False):
        linear = nn.Linear(24, 40, bias=bias)
        given = torch.randn(2, 5, 24)
        with torch.no_grad():
            assert torch.allclose(savings._onednn(linear)(given), linear(given), atol=1e-5)
        assert savings._onednn(linear)(given).requires_grad


def test_the_environment_switches_savings_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTANTID_WITHOUT", "keys, kernels,unknown")
    assert Savings.from_environment() == Savings(keys=False, kernels=False)


def test_a_known_face_needs_no_resampler(pipe: Any) -> None:
    calls = []
    hook = pipe.resampler.proj_in.register_forward_hook(lambda *_: calls.append(1))
    faces = [torch.full((FACE,), value) for value in (0.1, 0.2, 0.1)]
    tokens = []
    for face in faces:
        with torch.no_grad(), savings.remembered_tokens(pipe), pipe.conditioned([IdentityCondition(face)]) as request:
            tokens.append(request.tokens)
    with torch.no_grad(), pipe.conditioned([IdentityCondition(faces[0])]) as request:
        assert torch.equal(tokens[0], request.tokens)
    hook.remove()
    assert len(calls) == 3  # two faces, and once without remembering
    assert torch.equal(tokens[0], tokens[2])
    assert not torch.equal(tokens[0], tokens[1])
