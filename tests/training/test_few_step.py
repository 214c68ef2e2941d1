"""The few-step LoRA: it alone learns, comes nearer to the teacher, and works in the product as any LoRA does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from instantid_demo.engine import Engine
from instantid_demo.request import GenerationRequest, Lora
from instantid_demo.settings import ROOT, Settings
from instantid_demo.training import few_step, hybrid, pocket
from instantid_demo.training.drawing import Drawer, Drops
from instantid_demo.training.few_step import FewStepRecipe, FewStepTrainer
from tests.training.people import POCKET, Judge, Second, made_up

PHOTO = ROOT / "assets" / "examples" / "woman.jpg"

pytestmark = pytest.mark.skipif(not (POCKET / "unet").is_dir(), reason="Pocket's weights are not in assets/pocket")


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FewStepTrainer:
    """On Pocket, with made-up people: the teacher needs no photographs."""
    monkeypatch.setattr(hybrid, "MobileFace", Second)
    monkeypatch.setattr(hybrid, "FaceFeatures", Judge)
    networks, vae, tokenizer = pocket.load(POCKET)
    # Likeness to made-up people would pull elsewhere.
    judges = dict.fromkeys(("likeness_weight", "second_weight", "look_weight", "second_look_weight"), 0.0)
    recipe = FewStepRecipe(batch=2, rank=8, judged=2, learning_rate=3e-3, **judges)
    return FewStepTrainer(networks, vae, Drawer(*made_up(), tokenizer, 0.0, Drops(), 0), tmp_path, recipe, tmp_path)


def test_the_lora_alone_learns_and_serves_in_the_product(trainer: FewStepTrainer, tmp_path: Path) -> None:
    unet = trainer.networks.unet
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    batch = trainer.drawer.of(np.arange(2))
    lot = np.random.default_rng(0)
    seen = []
    for _ in range(10):
        torch.manual_seed(5)
        losses = trainer.losses(batch, lot, False)
        total = torch.stack(list(losses.values())).sum()
        trainer.optimizer.zero_grad()
        total.backward()
        trainer.optimizer.step()
        seen.append(losses["latents"].item())
    assert seen[-1] < 0.95 * seen[0], "from the same noise the only step must come nearer to the teacher's picture"
    changed = {name for name, value in unet.state_dict().items() if not torch.equal(before[name], value)}
    assert changed
    assert all(".lora_" in name for name in changed)

    few_step.save(unet, tmp_path)
    assert set(unet.state_dict()) == {name.replace(".base_layer", "") for name in before if ".lora_" not in name}
    engine = Engine(Settings(home=tmp_path / "home", device="cpu", model="pocket", backend="torch"))  # type: ignore[call-arg]
    engine.warm_up()
    assert engine._loaded is not None
    pipe = engine._loaded.text
    own = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    ask = GenerationRequest(face=(PHOTO,), seed=1, steps=1)
    plain = engine.generate(ask).pictures[0]
    with_lora = engine.generate(ask.model_copy(update={"lora": (Lora(source=str(tmp_path / few_step.FILE)),)}))
    assert with_lora.pictures[0].tobytes() != plain.tobytes()
    assert engine.generate(ask).pictures[0].tobytes() == plain.tobytes()
    now = {name.replace(".base_layer", ""): value for name, value in pipe.unet.state_dict().items()}
    assert all(torch.equal(value, now[name]) for name, value in own.items())
