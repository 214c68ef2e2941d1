"""The few-step LoRA: it alone learns, comes nearer to the teacher, and works in the product as any LoRA does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from instantid_demo.engine import Engine
from instantid_demo.request import GenerationRequest, Lora
from instantid_demo.settings import ROOT, Settings
from instantid_demo.training import few_step, pocket
from instantid_demo.training.faces import Faces
from instantid_demo.training.few_step import FewStepRecipe, FewStepTrainer
from instantid_demo.training.joint import HELD_OUT
from instantid_demo.training.judges import KeypointReader
from instantid_demo.training.pool import VARIANTS, Pool

POCKET = ROOT / "assets" / "pocket"
PHOTO = ROOT / "assets" / "examples" / "woman.jpg"
PEOPLE = HELD_OUT + 2

pytestmark = pytest.mark.skipif(not (POCKET / "unet").is_dir(), reason="Pocket's weights are not in assets/pocket")


@pytest.fixture
def trainer(tmp_path: Path) -> FewStepTrainer:
    """On Pocket, with made-up people and pictures of noise: the teacher needs no photographs."""
    networks, vae, tokenizer = pocket.load(POCKET)
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(PEOPLE, 2, 128)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    centre = np.load(POCKET / "face_centre.npy")
    faces = Faces(np.zeros(0), np.zeros(0), embeddings, centre, ["man"] * PEOPLE, ["20-29"] * PEOPLE)
    count = PEOPLE * VARIANTS
    points = np.array([(43, 39), (85, 39), (64, 62), (48, 85), (80, 85)], np.float32)
    pool = Pool(
        draw.integers(0, 255, (count, 128, 128, 3), np.uint8),
        np.zeros((count, 8, 16, 16), np.float16),
        np.repeat(points[None], count, 0),
        np.arange(count) // VARIANTS,
        np.zeros(count, bool),
        np.ones(count, bool),
        ["a photo of a man"] * count,
    )
    # Likeness to made-up people would pull elsewhere.
    judges = dict.fromkeys(("likeness_weight", "confusion_weight", "look_weight", "keypoint_weight"), 0.0)
    recipe = FewStepRecipe(batch=2, rank=8, judged=2, learning_rate=3e-3, **judges)
    reader = KeypointReader().eval().requires_grad_(False)
    return FewStepTrainer(networks, vae, tokenizer, faces, pool, reader, recipe, tmp_path)


def test_the_lora_alone_learns_and_serves_in_the_product(trainer: FewStepTrainer, tmp_path: Path) -> None:
    unet = trainer.networks.unet
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    batch = trainer.batches(2)
    seen = []
    for _ in range(10):
        torch.manual_seed(5)
        losses = trainer.losses(batch, True)
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
