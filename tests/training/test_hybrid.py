"""Pocket's main stage on made-up people: what is told and left out, that it learns, stops and goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from instantid_demo.faces import appearance
from instantid_demo.training import hybrid, pocket
from instantid_demo.training.drawing import HELD_OUT, Batch, Drawer, Drops, in_picture, repeated, weights, with_holes
from instantid_demo.training.hybrid import HybridRecipe, HybridTrainer
from tests.training.people import PEOPLE, POCKET, Judge, Second, made_up

pytestmark = pytest.mark.skipif(not (POCKET / "unet").is_dir(), reason="Pocket's weights are not in assets/pocket")

NOTHING = Drops(all=0, person=0, embedding=0, thumbnail=0, parts=0, words=0, map=0)


def drawer(drops: Drops = NOTHING) -> Drawer:
    return Drawer(*made_up(), pocket.load(POCKET)[2], 0.0, drops, 0)


def drawn(drops: Drops) -> Batch:
    return drawer(drops).of(np.array([0, 1, 2]))


def test_everything_is_told():
    batch = drawn(NOTHING)
    assert torch.allclose(batch.sequence[:, 0].norm(dim=-1), torch.ones(3), atol=1e-4)
    assert batch.sequence[:, 1:].abs().sum((1, 2)).min() > 0
    assert batch.likeness.tolist() == [1, 1, 1]
    assert batch.mapped.flatten().tolist() == [1, 1, 1]
    assert batch.known[:, 0, 12:20, 12:20].min() > 0.3


@pytest.mark.parametrize(
    ("drop", "embedding", "thumbnail", "words"),
    [
        ("all", False, False, False),
        ("person", False, False, True),
        ("embedding", False, True, True),
        ("thumbnail", True, False, True),
    ],
)
def test_what_is_left_out_is_zero_and_nobody_judges_it(drop, embedding, thumbnail, words):
    batch = drawn(replace(NOTHING, **{drop: 1.0}))
    assert bool(batch.sequence[:, 0].any()) == embedding
    assert bool(batch.sequence[:, 1:].any()) == thumbnail
    assert bool(batch.known.any()) == thumbnail
    assert bool((batch.ids[:, 3] != batch.ids[:, 10]).any()) == words
    assert batch.likeness.tolist() == [float(embedding)] * 3


def test_without_a_map_nobody_judges():
    batch = drawn(replace(NOTHING, map=1.0))
    assert not batch.mapped.any()
    assert not batch.likeness.any()


def test_thumbnails_lose_some_parts_and_never_all():
    small = np.ones((24, 24, 4), np.float32)
    left = [with_holes(small, np.random.default_rng(seed))[..., 3].mean() for seed in range(30)]
    assert max(left) < 0.97
    assert min(left) > 0


def test_the_known_part_lies_where_the_thumbnail_lies_in_the_picture():
    certain = np.zeros((24, 24), np.float32)
    certain[:, :12] = 1
    upright = in_picture(certain, appearance.KEYPOINTS * 128 - 0.5)
    assert upright[16, 8] > 0.9
    assert upright[16, 24] < 0.1
    small = in_picture(certain, appearance.KEYPOINTS * 64 + 31.5)  # the middle quarter of the picture
    assert small[16, 4] == 0
    assert small[16, 12] > 0.9


def test_spoilt_and_held_out_photographs_are_never_drawn():
    faces, labels = made_up()
    labels.drop[1] = 2
    labels.words["bald"][2] = 1
    chances = weights(faces, labels)
    assert chances[1] == 0
    assert chances[2] > 3 * np.median(chances[3:])
    assert not Drawer(faces, labels, pocket.load(POCKET)[2], 0.0, NOTHING, 0).chances[-HELD_OUT:].any()
    assert PEOPLE > HELD_OUT


def test_an_error_in_the_drawing_thread_is_heard():
    broken = drawer()
    broken.faces.keypoints.flags.writeable = True
    broken.chances = np.full(PEOPLE, np.nan)
    with pytest.raises(ValueError, match=r"(?i)nan"):
        next(broken.ahead(2))


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hybrid, "MobileFace", Second)
    monkeypatch.setattr(hybrid, "FaceFeatures", Judge)

    def make(**numbers) -> HybridTrainer:
        torch.manual_seed(0)
        networks, vae, tokenizer = pocket.load(POCKET)
        recipe = HybridRecipe(**{"batch": 3, "judged": 2, "twins": 1, "criticised": 2, **numbers})
        return HybridTrainer(
            networks, vae, Drawer(*made_up(), tokenizer, 0.0, NOTHING, 0), tmp_path, recipe, tmp_path / "run"
        )

    (tmp_path / "run").mkdir()
    return make


def test_it_learns_stops_and_goes_on(trainer, tmp_path: Path):
    first = trainer(samples=12)
    count = iter(range(100))
    first.run(stop=lambda: next(count) >= 2)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["samples"] == 6
    again = trainer(samples=12)
    again.run()
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["samples"] == 12
    kept = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["parts"]["unet"]
    assert all(torch.equal(value, kept[name]) for name, value in again.networks.unet.state_dict().items())
    assert len((tmp_path / "run" / "evaluation.jsonl").read_text().splitlines()) == 2
    assert list((tmp_path / "run").glob("samples-*.png"))


def test_weights_that_the_judge_liked_better_before_a_stop_are_kept(trainer, tmp_path: Path):
    (tmp_path / "run" / "evaluation.jsonl").write_text('{"samples": 3}\n{"judge 4": 0.4}\n{"judge 4": 2.0}\n')
    made = trainer()
    assert made.best == 2.0
    made.evaluate(6, count=2)
    assert not (tmp_path / "run" / "best.pt").exists()


def test_one_batch_is_learned(trainer):
    made = trainer(learning_rate=1e-3, decoder_every=0, adversarial_weight=0.0, variety_weight=0.0)
    batch = made.drawer.of(np.arange(3))
    seen = []
    for _ in range(6):
        torch.manual_seed(3)
        losses = made.judged(batch, later=False, critic=False)
        made.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        made.optimizer.step()
        seen.append(sum(loss.item() for loss in losses.values()))
    assert seen[-1] < 0.95 * seen[0]


def test_what_is_not_known_counts_little(trainer):
    made = trainer()
    batch = repeated(made.drawer.of(np.arange(3)), 1)
    clean = made.latents(batch.pictures)
    wrong = clean + 1
    picture = made.decoder(wrong)
    known = made.losses_of(batch, clean, wrong, picture, critic=False)
    batch.known.zero_()
    unknown = made.losses_of(batch, clean, wrong, picture, critic=False)
    for name in ("latents", "tone", "pixels"):
        assert unknown[name] < 0.5 * known[name]


def test_wider_latents_and_another_tokenizer_keep_what_was_learned():
    networks, vae, tokenizer = pocket.load(POCKET)
    channels = vae.config.latent_channels
    told = torch.randn(1, channels + 4, 16, 16)
    text = torch.randn(1, 77, 256)
    ask = {
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": (text, [torch.randn(1, 16, 256)]),
        "added_cond_kwargs": {"text_embeds": torch.randn(1, 128), "time_ids": torch.zeros(1, 6)},
    }
    with torch.no_grad():
        before = networks.unet(told[:, :channels], **ask).sample
        after = pocket.with_latents(networks, channels + 4).unet(told, **ask).sample
    assert torch.allclose(after[:, :channels], before, atol=1e-5)
    assert not after[:, channels:].any()

    other = pocket.train_tokenizer(["a photo of a man with sunglasses", "wombat"] * 3, 700)
    table = pocket.with_tokenizer(networks, tokenizer, other).text_encoder.get_input_embeddings().weight
    old = pocket.load(POCKET)[0].text_encoder.get_input_embeddings().weight
    assert len(table) == len(other)
    for piece in ("man</w>", "photo</w>", "a</w>", "<|endoftext|>"):
        assert torch.equal(table[other.get_vocab()[piece]], old[tokenizer.get_vocab()[piece]])


def test_the_autoencoder_widens_without_a_change():
    from instantid_demo.training.vae import VaeRecipe, widened

    old = AutoencoderTiny.from_pretrained(POCKET / "vae").float()
    wide = widened(old, VaeRecipe(latent_channels=old.config.latent_channels + 8))
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(
            wide.decode(wide.encode(picture).latents).sample, old.decode(old.encode(picture).latents).sample, atol=1e-4
        )
