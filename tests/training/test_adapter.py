"""The paper's recipe on tiny bases: what learns, what stays, going on after a stop, and the way into the product."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from instantid_demo.method import checkpoints, pipelines
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.identity_net import IdentityNet
from instantid_demo.method.image_adapter import load_image_adapter
from instantid_demo.method.prompts import encode
from instantid_demo.request import RequestError
from instantid_demo.training import adapter, adapter_run, checkpointing, dry_run
from instantid_demo.training.adapter import AdapterRecipe
from instantid_demo.training.adapter_model import AdapterModel
from tests.training.test_shards import Looker

RECIPE = replace(
    dry_run.small(AdapterRecipe(base="tiny"), 4), samples=0, gradient_checkpointing=False, learning_rate=1e-2
)
ARCHITECTURES = ("sdxl", "sd15")


def states(trainer: adapter.AdapterTrainer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, part in trainer.inner.trained().items()
        for key, value in part.state_dict().items()
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_identity_net_starts_as_the_unet_and_the_adapter_as_the_text_s_projections(architecture):
    unet = dry_run.tiny_base(architecture).unet
    model = AdapterModel.fresh(unet, 16, tokens=4, width=64)
    assert torch.equal(
        model.identity_net.down_blocks[0].resnets[0].conv1.weight, unet.down_blocks[0].resnets[0].conv1.weight
    )
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    assert torch.equal(layer.processor.to_k_ip[0].weight, layer.to_k.weight)
    assert not layer.to_k.weight.requires_grad
    assert layer.processor.to_k_ip[0].weight.requires_grad


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_the_three_parts_learn_and_all_of_them(architecture, tmp_path):
    trainer = dry_run.tiny_trainer(architecture, RECIPE, tmp_path)
    learning = {p for part in trainer.inner.trained().values() for p in part.parameters()}
    frozen = {name: p.clone() for name, p in trainer.inner.unet.named_parameters() if p not in learning}
    before = states(trainer)
    trainer.run(2)
    assert all(torch.equal(dict(trainer.inner.unet.named_parameters())[name], p) for name, p in frozen.items())
    after = states(trainer)
    assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == set(
        trainer.inner.trained()
    )


def test_half_precision_and_checkpointing_train_the_same_parts_in_float32(tmp_path):
    recipe = replace(RECIPE, mixed_precision="bf16", gradient_checkpointing=True, min_snr=5.0)
    trainer = dry_run.tiny_trainer("sdxl", recipe, tmp_path)
    before = states(trainer)
    assert np.isfinite(trainer.run(1))
    after = states(trainer)
    assert all(value.dtype == torch.float32 for value in after.values())
    assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == {
        *("resampler", "identity_net", "adapter")
    }


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = dry_run.tiny_trainer("sdxl", RECIPE, tmp_path / "whole")
    whole.run()
    first = dry_run.tiny_trainer("sdxl", RECIPE, tmp_path / "parts")
    first.run(2)
    second = dry_run.tiny_trainer("sdxl", RECIPE, tmp_path / "parts")
    assert second.resume() == 2
    second.run()
    ours, theirs = states(second), states(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    kept, wanted = second.average.state_dict()["kept"], whole.average.state_dict()["kept"]
    assert all(torch.equal(a, b) for name in wanted for a, b in zip(kept[name], wanted[name], strict=True))


def test_any_state_can_be_gone_on_from_and_old_ones_go(tmp_path):
    trainer = dry_run.tiny_trainer("sd15", RECIPE, tmp_path)
    trainer.run()
    names = sorted(file.name for file in (tmp_path / "states").iterdir())
    assert names == ["state-00000003.pt", "state-00000004.pt"]
    again = dry_run.tiny_trainer("sd15", RECIPE, tmp_path)
    assert again.resume(tmp_path / "states" / "state-00000003.pt") == 3
    with pytest.raises(RequestError, match="no training state"):
        again.resume(tmp_path / "missing.pt")


def test_a_state_of_another_model_is_refused_in_a_sentence(tmp_path):
    trainer = dry_run.tiny_trainer("sd15", RECIPE, tmp_path)
    trainer.run(1)
    other = dry_run.tiny_trainer("sdxl", RECIPE, tmp_path)
    with pytest.raises(RequestError, match="another base or recipe"):
        other.resume()


def test_a_kill_while_saving_leaves_the_previous_state(tmp_path, monkeypatch):
    part = torch.nn.Linear(2, 2)
    file = tmp_path / "state.pt"
    checkpointing.save_state(file, {"part": part}, 1.0, 10)

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointing.save_state(file, {"part": torch.nn.Linear(2, 2)}, 2.0, 20)
    restored = torch.nn.Linear(2, 2)
    assert checkpointing.load_state(file, {"part": restored}) == (1.0, 10)
    assert torch.equal(restored.weight, part.weight)


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_export_runs_in_the_product_s_own_pipeline(architecture, kind, tmp_path):
    trainer = dry_run.tiny_trainer(architecture, replace(RECIPE, export=kind), tmp_path)
    trainer.run(1)
    folder = tmp_path / "checkpoint"
    file = folder / f"ip-adapter.{kind}"
    assert checkpoints.require(folder / "ControlNetModel", kind="identity-net").architecture == architecture
    assert checkpoints.require(file, kind="image-adapter").embedding_dim == 16

    base = dry_run.tiny_base(architecture)
    load_image_adapter(base.unet, file)
    net = IdentityNet.from_pretrained(folder / "ControlNetModel", torch_dtype=torch.float32)
    family = pipelines.SDXLTextToImage if architecture == "sdxl" else pipelines.SD15TextToImage
    pipe = family.of(base, controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    face = torch.randn(16)
    with torch.no_grad(), pipe.conditioned([IdentityCondition(face)]) as told:
        picture = pipe(
            **encode(pipe, "a photo", ""), image=Image.new("RGB", (64, 64)), num_inference_steps=1, output_type="np"
        ).images
    assert picture.shape == (1, 64, 64, 3)
    assert np.isfinite(picture).all()

    trainer.average.swap()
    expected = trainer.inner.resampler.float()(face[None, None])
    assert torch.allclose(told.tokens[1, 0], expected[0], atol=5e-2)


def test_published_weights_can_be_trained_on(tmp_path):
    trainer = dry_run.tiny_trainer("sdxl", RECIPE, tmp_path)
    trainer.run(1)
    trainer.average.swap()
    read = AdapterModel.read(dry_run.tiny_base("sdxl").unet, tmp_path / "checkpoint")
    for name, part in read.trained().items():
        wanted = trainer.inner.trained()[name].state_dict()
        assert all(torch.allclose(value, wanted[key], atol=2e-3) for key, value in part.state_dict().items())
        assert all(p.requires_grad and p.dtype == torch.float32 for p in part.parameters())


def test_published_weights_for_another_base_are_refused(tmp_path):
    dry_run.tiny_trainer("sd15", RECIPE, tmp_path).run(1)
    with pytest.raises(RequestError, match="another base"):
        AdapterModel.read(dry_run.tiny_base("sdxl").unet, tmp_path / "checkpoint")


def test_full_size_sdxl_has_the_published_layout_and_gradients_everywhere():
    found, model = dry_run.estimate("sdxl", AdapterRecipe(base="sdxl", batch=1, resolution=256))
    state = dry_run_state(model)
    assert found.prediction == (1, 4, 32, 32)
    assert state["image_proj.latents"] == (1, 16, 1280)
    assert state["image_proj.proj_in.weight"] == (1280, 512)
    assert state["image_proj.proj_out.weight"] == (2048, 1280)
    assert state["image_proj.layers.3.1.1.weight"] == (5120, 1280)
    layers = {key for key in state if key.startswith("ip_adapter.")}
    assert layers == {f"ip_adapter.{2 * i + 1}.to_{kind}_ip.weight" for i in range(70) for kind in "kv"}
    assert state["ip_adapter.1.to_k_ip.weight"] == (640, 2048)
    assert state["ip_adapter.139.to_v_ip.weight"] == (1280, 2048)
    assert 1.2e9 < sum(p.numel() for p in model.identity_net.parameters()) < 1.3e9


def dry_run_state(model: AdapterModel) -> dict[str, tuple[int, ...]]:
    from instantid_demo.training.pocket import adapter_state

    return {key: tuple(value.shape) for key, value in adapter_state(model.resampler, model.unet).items()}


def test_words_and_identity_are_left_out_in_their_shares():
    recipe = AdapterRecipe(base="x", drop_text=0.1, drop_identity=0.2, drop_both=0.3)
    kept, captions = adapter.drop(torch.ones(4000, 3), ["words"] * 4000, recipe, torch.Generator().manual_seed(0))
    gone = kept.sum(1) == 0
    silent = torch.tensor([caption == "" for caption in captions])
    assert (gone & silent).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (gone & ~silent).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (~gone & silent).float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_every_photograph_comes_once_per_epoch_in_a_new_order(tmp_path):
    trainer = dry_run.tiny_trainer("sd15", RECIPE, tmp_path)
    seen: list[int] = []
    known = {tuple(row): index for index, row in enumerate(trainer.faces.embeddings.tolist())}
    for number in range(6):
        seen += [known[tuple(row)] for row in trainer.examples(number).embeddings.tolist()]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]


def test_a_whole_run_from_a_folder_of_photographs(tmp_path, monkeypatch):
    for number in range(3):
        Image.new("RGB", (60, 80), (90 * number, 80, 200)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(adapter_run, "find_analyser", lambda recipe, settings: Looker())
    monkeypatch.setattr(adapter_run, "load_base", lambda source: dry_run.tiny_base("sdxl"))
    recipe = replace(RECIPE, steps=2, samples=2)
    adapter_run.run(recipe, tmp_path, tmp_path / "out", max_steps=1)
    adapter_run.run(recipe, tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "checkpoint" / "ip-adapter.bin").is_file()
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert lines[-1]["face_found"] == 1.0
    assert -1 <= lines[-1]["likeness"] <= 1


def test_samples_become_a_grid(tmp_path):
    trainer = dry_run.tiny_trainer("sdxl", replace(RECIPE, samples=2, sample_steps=2), tmp_path)
    assert trainer.sample() == {}
    assert Image.open(tmp_path / "samples-0000000.png").size == (128, 192)


@pytest.mark.parametrize("numbers", [{"resampler_width": 100}, {"resolution": 77}, {"drop_both": 0.95}])
def test_a_recipe_that_cannot_work_is_refused(numbers):
    with pytest.raises(RequestError, match="recipe"):
        AdapterRecipe(base="x", **numbers)
