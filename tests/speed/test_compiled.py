"""Compiled parts compute the same, serve every prompt and size without compiling again, and can be undone."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from benchmarks.measure import difference, run
from benchmarks.models import FACE, SIZES, build
from benchmarks.modes import MODES, Mode
from instantid_demo.backends.compiled import compile_repeated, compiled_no_more, uncompiled
from instantid_demo.method import prompts, savings
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.savings import Savings

SIZE = SIZES["smallest"]


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    pipe = build(SIZE)
    nets = [pipe.unet, *pipe.controlnets]
    torch._dynamo.reset()
    for net in nets:
        # Not the C++ compiler, which takes a minute: what is compiled, and when again, is decided before it.
        compile_repeated(net, "eager")
    yield pipe
    for net in nets:
        compiled_no_more(net)
        assert [*uncompiled(net)] == [*net.modules()]


def compiled_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def picture(pipe: Any, prompt: str, width: int, height: int, guidance: float = 5.0) -> torch.Tensor:
    from PIL import Image

    with torch.no_grad(), pipe.conditioned([IdentityCondition(torch.ones(FACE))]), savings.applied(pipe):
        return pipe(
            **prompts.encode(pipe, prompt, "blurry"),
            image=Image.new("RGB", (width, height)),
            height=height,
            width=width,
            num_inference_steps=2,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images


def test_the_latents_are_the_originals(pipe: Any) -> None:
    before = compiled_graphs()
    compiled = run(pipe, SIZE, Mode("", True, ""), 3).latents
    assert compiled_graphs() > before
    assert difference(compiled, run(build(SIZE), SIZE, MODES[0], 3).latents) < 1e-4


def test_no_prompt_and_no_size_compiles_again(pipe: Any) -> None:
    picture(pipe, "a person", 64, 64)
    picture(pipe, "a person", 64, 128)
    known = compiled_graphs()
    assert known > 0
    for prompt, width, height in (("a painting of somebody in the snow", 64, 64), ("x", 192, 64), ("y", 128, 256)):
        picture(pipe, prompt, width, height)
    assert compiled_graphs() == known


def test_kernels_leave_compiled_parts_alone(pipe: Any) -> None:
    with pipe.conditioned([IdentityCondition(torch.ones(FACE))]), savings.applied(pipe, Savings()):
        block = pipe.unet.down_blocks[1].attentions[0].transformer_blocks[0]
        assert "forward" not in block.ff.net[2].__dict__
        assert "forward" in block.attn1.to_q.__dict__ or not savings.has_onednn()
