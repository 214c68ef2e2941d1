"""InstantID on Pocket's own small networks: what acts where, and that nothing of a request stays behind."""

import numpy as np
import pytest
import torch
from PIL import Image

from instantid_demo.faces import keypoints, views
from instantid_demo.method import checkpoints, prompts
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.identity_net import ControlNet, IdentityNet
from instantid_demo.method.loading import load_controlnet, load_pipeline
from instantid_demo.request import View
from instantid_demo.settings import ROOT

POCKET = ROOT / "assets" / "pocket"
SIDE = 128


@pytest.fixture(scope="module")
def pipe():
    loaded = load_pipeline(POCKET, POCKET / "ControlNetModel", POCKET / "image_adapter.safetensors", device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def face(seed: int) -> torch.Tensor:
    vector = torch.randn(128, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


@pytest.fixture
def with_edges(pipe):
    """IdentityNet, and the extra ControlNet beside it."""
    extra = load_controlnet(checkpoints.require(POCKET / "control", kind=("controlnet",)), ControlNet)
    return type(pipe).of(pipe, controlnet=[pipe.controlnets[0], extra]).text_to_image()


def run(pipe, people=None, steps=2, guidance=1.0, width=SIDE, count=1, strength=None, **options):
    people = people or [IdentityCondition(face(1))]
    points = views.keypoints_for(View(), None, width, SIDE, framing="pocket")
    words = prompts.encode(pipe, "a photo of a person", "")
    drawn = keypoints.draw(width, SIDE, points)
    extra = {} if strength is None else {"controlnet_conditioning_scale": [strength]}
    with torch.no_grad(), pipe.conditioned(people, **options):
        return pipe(
            **words,
            **extra,
            image=drawn if strength is None else [drawn, drawn],
            width=width,
            height=SIDE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            num_images_per_prompt=count,
            generator=torch.Generator().manual_seed(5),
            output_type="latent",
        ).images


def state(pipe) -> tuple:
    processors = pipe.unet.attn_processors
    scales = [getattr(processor, "scale", None) for processor in processors.values()]
    return repr(pipe.unet), repr(pipe.controlnet), {n: id(p) for n, p in processors.items()}, scales


def test_another_face_is_another_picture_and_the_same_face_the_same(pipe) -> None:
    one, again, other = run(pipe), run(pipe), run(pipe, [IdentityCondition(face(2))])
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 0.1


def test_nothing_of_a_request_stays(pipe) -> None:
    before, plain = state(pipe), run(pipe)
    run(
        pipe, [IdentityCondition(face(3), adapter_scale=0.1)], identity_scale=0.2, every=2, uncond_noise=0.5, guidance=2
    )
    assert state(pipe) == before
    assert pipe.conditioning is None
    with pytest.raises(ZeroDivisionError), pipe.conditioned([IdentityCondition(face(1))]):
        raise ZeroDivisionError
    assert pipe.conditioning is None
    assert state(pipe) == before
    assert torch.equal(run(pipe), plain)


def test_identity_net_runs_only_where_it_acts(pipe, monkeypatch) -> None:
    runs = []
    stock = ControlNet.__mro__[1].forward
    monkeypatch.setattr(ControlNet.__mro__[1], "forward", lambda *a, **k: runs.append(1) or stock(*a, **k))

    def count(**options) -> int:
        runs.clear()
        run(pipe, steps=4, **options)
        return len(runs)

    assert count() == 4
    assert count(identity_scale=0.0) == 0
    assert count(window=(0.0, 0.5)) == 2
    assert count(every=2) == 2


def test_identity_net_rests_beside_another_control_net(pipe, with_edges) -> None:
    alone = run(with_edges, strength=1.0, identity_scale=0.0)
    assert not torch.equal(alone, run(pipe, identity_scale=0.0))
    assert torch.equal(run(with_edges, strength=0.0), run(pipe))


def test_a_reused_answer_is_not_changed_by_another_control_net(with_edges, monkeypatch) -> None:
    middles: list[torch.Tensor] = []
    forward = IdentityNet.forward

    def watched(*args, **kwargs):
        answer = forward(*args, **kwargs)
        middles.append(answer[1].clone())
        return answer

    monkeypatch.setattr(IdentityNet, "forward", watched)
    run(with_edges, steps=4, strength=1.0, every=4)
    assert len(middles) == 4
    assert all(torch.equal(middle, middles[0]) for middle in middles)


def test_reused_keys_change_nothing(pipe) -> None:
    assert torch.equal(run(pipe, guidance=3.0), run(pipe, guidance=3.0, reuse_keys=False))


def test_each_person_acts_in_the_own_region_only(pipe) -> None:
    """Attention mixes the regions a little further on: the change must be far larger inside than outside."""
    left, right = torch.zeros(SIDE, 2 * SIDE), torch.zeros(SIDE, 2 * SIDE)
    left[:, :SIDE], right[:, SIDE:] = 1, 1

    def people(second: int) -> list[IdentityCondition]:
        return [IdentityCondition(face(1), left), IdentityCondition(face(second), right)]

    change = (run(pipe, people(2), width=2 * SIDE) - run(pipe, people(3), width=2 * SIDE)).abs().mean((0, 1, 2))
    assert change[18:].mean() > 4 * change[:14].mean()


def test_several_pictures_of_several_photos(pipe) -> None:
    pictures = run(pipe, [IdentityCondition(torch.stack([face(1), face(2)]))], count=2, guidance=2.0)
    assert pictures.shape[0] == 2
    assert not torch.equal(pictures[0], pictures[1])


def test_inpainting_leaves_the_rest_alone(pipe) -> None:
    scene = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (64, 0, SIDE, SIDE))
    words = prompts.encode(pipe, "a photo", "")
    painter = pipe.inpaint()
    with torch.no_grad(), painter.conditioned([IdentityCondition(face(1))]):
        made = painter(
            **words,
            image=scene,
            mask_image=mask,
            control_image=keypoints.draw(SIDE, SIDE, views.keypoints_for(View(), None, SIDE, SIDE, framing="pocket")),
            strength=1.0,
            num_inference_steps=4,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images
        kept = painter.vae.encode(painter.image_processor.preprocess(scene)).latents
    assert (made - kept)[..., :7].abs().mean() < 0.05
    assert (made - kept)[..., 9:].abs().mean() > 0.2


def test_weights_and_long_prompts_reach_the_encoder(pipe) -> None:
    plain = prompts.encode(pipe, "a red hat", "")["prompt_embeds"]
    heavy = prompts.encode(pipe, "a (red:1.6) hat", "")["prompt_embeds"]
    assert (plain - heavy).abs().max() > 1e-3
    assert prompts.encode(pipe, "word " * 200, "")["prompt_embeds"].shape[1] > 77
    assert prompts.parse_weights("a (b:1.2) [c] ((d))")[1] == ("b", 1.2)
