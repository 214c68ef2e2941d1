"""Stage 2 of Pocket: base, IdentityNet, Resampler and adapter from scratch, together; then an extra ControlNet.

The paper trains the last three on a frozen base. Pocket has no base to freeze: everything learns at once, and
dropping identity, words or keypoints now and then keeps each useful without the others (and gives guidance).
Diffusion loss on v at all noise levels, many of them pure noise, since few sampling steps start there; on top,
the picture that every prediction stands for is decoded and judged: same person, keypoints in place, the look.
Networks with a `control_net` train that alone, all others frozen.
"""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, ControlNetModel, EulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from instantid_demo.faces import keypoints as keypoint_maps
from instantid_demo.training import control_maps
from instantid_demo.training.checkpointing import load_state, save_state
from instantid_demo.training.faces import Faces
from instantid_demo.training.judges import Critic, KeypointReader, Recogniser, align_tensor, keypoint_error
from instantid_demo.training.optimizers import Average, MuonAndAdamW
from instantid_demo.training.pocket import SCHEDULER, Networks, encode_text
from instantid_demo.training.pool import PHOTO_VARIANTS, RESOLUTION, STYLED_VARIANTS, VARIANTS, Pool
from instantid_demo.training.precision import autocast

log = logging.getLogger(__name__)

LATER_STEPS = (749, 499, 249)
"""Where sampling in two or four trailing steps goes on after the first, pure noise."""

HELD_OUT = 200
"""The last persons are never trained on; the evaluation during training draws them."""


@dataclass(frozen=True)
class JointRecipe:
    """Numbers of this stage. `minutes` is wall-clock time, the rate falling to zero over the last `cooldown` of it."""

    minutes: float = 100.0
    cooldown: float = 0.3
    batch: int = 32
    learning_rate: float = 1e-3
    pure_noise: float = 0.35
    drop_identity: float = 0.07
    drop_text: float = 0.07
    drop_map: float = 0.07
    judged: int = 12
    judged_from: int = 12_000
    likeness_weight: float = 0.4
    confusion_weight: float = 0.05
    look_weight: float = 0.15
    keypoint_weight: float = 0.5
    tone_weight: float = 0.0
    """Weight of colour and brightness in blocks of 8 pixels, of every picture: recogniser and critic alone let them
    drift to extremes, and styles are mostly tone."""
    texture_weight: float = 0.0
    """Weight of how much detail there is in blocks of 8 pixels, wherever it lies: pixelwise losses alone blur."""
    adversarial_weight: float = 0.0
    noise_diffusion_weight: float = 1.0
    """Weight of the diffusion loss at pure noise, where the mean of all pictures is its blurred optimum."""
    noise_look_weight: float = 0.4
    """Weight of the look at pure noise, relative to that at no noise."""
    own_share: float = 0.0
    """Share of batches that start from the networks' own first estimate, noised again as few-step sampling does it:
    later steps then learn to finish what the first one really leaves behind."""
    styled_share: float = STYLED_VARIANTS / VARIANTS
    """Share of styled pictures in a batch."""
    embedding_noise: float = 0.02
    seed: int = 0


@dataclass
class Batch:
    """One batch, all tensors with `n` rows."""

    latents: Tensor
    embedding: Tensor
    maps: Tensor
    ids: Tensor
    keypoints: Tensor
    person: Tensor
    judged: Tensor
    rows: np.ndarray


class Batches:
    """Draws training batches from the pool; held-out persons never appear."""

    def __init__(self, pool: Pool, faces: Faces, tokenizer: CLIPTokenizer, seed: int, styled_share: float) -> None:
        self.pool, self.faces = pool, faces
        self.ids = tokenizer(pool.captions, padding="max_length", truncation=True, max_length=77, return_tensors="np")[
            "input_ids"
        ]
        self.chances = [(1 - styled_share) / PHOTO_VARIANTS] * PHOTO_VARIANTS
        self.chances += [styled_share / STYLED_VARIANTS] * STYLED_VARIANTS
        self.draw = np.random.default_rng(seed)

    def __call__(self, size: int) -> Batch:
        face = self.draw.integers(len(self.faces) - HELD_OUT, size=size)
        return self.of(face * VARIANTS + self.draw.choice(VARIANTS, size=size, p=self.chances))

    def of(self, rows: np.ndarray) -> Batch:
        """The batch of the pool's `rows`."""
        pool = self.pool
        views = self.draw.integers(2, size=len(rows))
        return Batch(
            torch.from_numpy(pool.latents[rows].astype(np.float32)).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(self.faces.embeddings[pool.face[rows], views]),
            keypoint_tensor(pool.keypoints[rows]),
            torch.from_numpy(self.ids[rows]).long(),
            torch.from_numpy(pool.keypoints[rows]),
            torch.from_numpy(pool.face[rows]),
            torch.from_numpy(pool.judged[rows]),
            rows,
        )

    def pictures(self, rows: np.ndarray) -> Tensor:
        """Real pictures `(n, 3, 128, 128)` in -1..1."""
        return torch.from_numpy(self.pool.pictures[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1

    def controls(self, rows: np.ndarray) -> Tensor:
        """Their maps `(n, 3, 128, 128)` in 0..1 for the extra ControlNet, each of a kind drawn by lot."""
        pool = self.pool
        drawn = [control_maps.any_kind(pool.pictures[row], pool.keypoints[row], self.draw) for row in rows]
        return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255


def keypoint_tensor(keypoints: np.ndarray) -> Tensor:
    """Keypoint maps `(n, 3, 128, 128)` in 0..1 as the product draws them."""
    maps = [np.asarray(keypoint_maps.draw(RESOLUTION, RESOLUTION, points)) for points in keypoints]
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).float().div(255)


@dataclass
class Conditions:
    """What the networks are told, ready for any number of denoising steps."""

    text: Tensor
    pooled: Tensor
    tokens: Tensor
    maps: Tensor
    mapped: Tensor
    time_ids: Tensor
    controls: Tensor | None = None
    """Maps `(n, 3, 128, 128)` in 0..1 for the extra ControlNet."""


def predict(
    unet: UNet2DConditionModel,
    identity_net: ControlNetModel,
    noisy: Tensor,
    timestep: Tensor,
    told: Conditions,
    control_net: ControlNetModel | None = None,
) -> Tensor:
    """The prediction `(n, c, h, w)` of UNet and IdentityNet together, and of an extra ControlNet if there is one."""
    added = {"text_embeds": told.pooled, "time_ids": told.time_ids}
    down, middle = identity_net(noisy, timestep, told.tokens, told.maps, added_cond_kwargs=added, return_dict=False)
    down, middle = [residual * told.mapped for residual in down], middle * told.mapped
    if control_net is not None and told.controls is not None:
        more, more_middle = control_net(
            noisy, timestep, told.text, told.controls, added_cond_kwargs=added, return_dict=False
        )
        down, middle = [a + b for a, b in zip(down, more, strict=True)], middle + more_middle
    return unet(
        noisy,
        timestep,
        (told.text, [told.tokens]),
        added_cond_kwargs=added,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]


def levels() -> tuple[Tensor, Tensor]:
    """Signal and noise share (alpha, sigma) of every timestep, each `(1000,)`."""
    alphas = EulerDiscreteScheduler(**SCHEDULER).alphas_cumprod.clone()
    alphas[-1] = 0.0  # the scheduler keeps a tiny rest there for its own sigmas
    return alphas.sqrt(), (1 - alphas).sqrt()


class Trainer:
    """Holds what a step needs; `run` trains until the time is up."""

    def __init__(
        self,
        networks: Networks,
        vae: AutoencoderTiny,
        tokenizer: CLIPTokenizer,
        faces: Faces,
        pool: Pool,
        reader: KeypointReader,
        recipe: JointRecipe,
        out: Path,
    ) -> None:
        self.networks, self.recipe, self.out = networks, recipe, out
        self.trained = self.learners()
        for network in networks.all().values():
            network.requires_grad_(False)
        for part in self.trained.values():
            part.requires_grad_(True)
        self.batches = Batches(pool, faces, tokenizer, recipe.seed, recipe.styled_share)
        self.decoder = vae.decoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.recogniser = Recogniser(faces.centre, faces.embeddings.mean(1))
        self.reader = reader
        for network in networks.all().values():
            network.to(memory_format=torch.channels_last)
        self.optimizer = MuonAndAdamW(self.trained.values(), recipe.learning_rate)
        self.average = Average(self.trained)
        self.alpha, self.sigma = levels()
        self.empty = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
        self.critic = Critic()
        self.pair: tuple[Tensor, Tensor] | None = None
        self.seen: dict[str, float] = {}

    def learners(self) -> dict[str, nn.Module]:
        """What learns, by name, made ready for it; all else stays as it is."""
        networks = self.networks
        return networks.all() if networks.control_net is None else {"control_net": networks.control_net}

    def conditions(self, batch: Batch, drop: bool) -> tuple[Conditions, Tensor]:
        """What the networks are told about a batch, and which rows keep identity and keypoints."""
        recipe, size = self.recipe, len(batch.rows)
        dropped = (
            torch.rand(3, size) < torch.tensor([[recipe.drop_identity], [recipe.drop_text], [recipe.drop_map]])
        ) & drop
        embedding = batch.embedding + (recipe.embedding_noise * torch.randn_like(batch.embedding) if drop else 0)
        # An embedding of zeros stands for "nobody", as in the reference (unconditional tokens = Resampler(0)).
        embedding = F.normalize(embedding, dim=-1) * ~dropped[0][:, None]
        tokens = self.networks.resampler(embedding[:, None])
        ids = torch.where(dropped[1][:, None], self.empty, batch.ids)
        text, pooled = encode_text(self.networks, ids)
        # Sizes say nothing about Pocket's pictures; varying them keeps wide group pictures from being a surprise.
        sizes = torch.tensor([128.0, 128.0, 0.0, 0.0, 128.0, 128.0]).repeat(size, 1)
        if drop:
            other = torch.rand(size) < 0.4
            sizes[other] = torch.randint(8, 65, (int(other.sum()), 6)) * 8.0 * torch.tensor([1.0, 1, 0, 0, 1, 1])
        told = Conditions(text, pooled, tokens, batch.maps, (~dropped[2]).float().view(-1, 1, 1, 1), sizes)
        if self.networks.control_net is None:
            return told, ~(dropped[0] | dropped[2])
        told.controls = self.batches.controls(batch.rows)
        return told, ~dropped[0]  # the extra map says where the face is as well

    def predict(self, noisy: Tensor, timestep: Tensor, told: Conditions) -> Tensor:
        """See `predict`."""
        return predict(self.networks.unet, self.networks.identity_net, noisy, timestep, told, self.networks.control_net)

    def losses(self, batch: Batch, judge: bool) -> dict[str, Tensor]:
        """All weighted losses of one batch."""
        recipe = self.recipe
        clean, noise = batch.latents, torch.randn_like(batch.latents)
        own = judge and torch.rand(()).item() < recipe.own_share
        if own:
            timestep = torch.tensor(LATER_STEPS)[torch.randint(len(LATER_STEPS), (len(clean),))]
        else:
            timestep = torch.randint(0, 999, (len(clean),))
            timestep[torch.rand(len(clean)) < recipe.pure_noise] = 999
        alpha, sigma = (level[timestep].view(-1, 1, 1, 1) for level in (self.alpha, self.sigma))
        with autocast():
            told, whole = self.conditions(batch, drop=True)
            if own:
                with torch.no_grad():
                    # At pure noise the estimate of the clean latents is the negative prediction.
                    start = -self.predict(noise, torch.full_like(timestep, 999), told).float()
            else:
                start = clean
            noisy = (alpha * start + sigma * noise).contiguous(memory_format=torch.channels_last)
            predicted = self.predict(noisy, timestep, told).float()
        if own:  # no v is right for these latents, only the clean ones are
            error = (alpha * noisy - sigma * predicted - clean).square().mean((1, 2, 3))
            weight = torch.full_like(error, recipe.noise_diffusion_weight)
        else:
            error = (predicted - (alpha * noise - sigma * clean)).square().mean((1, 2, 3))
            weight = torch.where(timestep == 999, recipe.noise_diffusion_weight, 1.0)
        losses = {"diffusion": (weight * error).mean()}
        chosen = torch.nonzero(whole)[: recipe.judged, 0]
        if judge and len(chosen):
            estimate = alpha * noisy - sigma * predicted
            with autocast():
                made = self.decoder(estimate.contiguous(memory_format=torch.channels_last)).float()
            real = self.batches.pictures(batch.rows)
            losses["tone"] = recipe.tone_weight * (F.avg_pool2d(made, 8) - F.avg_pool2d(real, 8)).abs().mean()
            losses["texture"] = recipe.texture_weight * (texture(made) - texture(real)).abs().mean()
            losses |= self.judge(made[chosen], real[chosen], batch, chosen, self.alpha[timestep[chosen]])
        return losses

    def judge(self, made: Tensor, real: Tensor, batch: Batch, chosen: Tensor, signal: Tensor) -> dict[str, Tensor]:
        """Losses of the decoded pictures of rows `chosen`; the look may count less where little was seen.

        A recogniser cannot tell who is in a line drawing: there likeness does not count, but look and keypoints do.
        """
        recipe = self.recipe
        told = batch.judged[chosen].float()
        told = told / told.sum().clamp(min=1)
        keypoints = batch.keypoints[chosen]
        with autocast():
            verdict = self.recogniser(made, real, keypoints, batch.person[chosen])
            found = self.reader(made)
            adversarial = self.critic.judge(made) if recipe.adversarial_weight else made.new_zeros(())
        self.pair = (real, made.detach())
        self.seen["cosine"] = (told * verdict.cosine).sum().item()
        self.seen["keypoints"] = (error := keypoint_error(found, keypoints)).mean().item()
        return {
            "likeness": recipe.likeness_weight * (told * verdict.likeness).sum(),
            "confusion": recipe.confusion_weight * (told * verdict.confusion).sum(),
            "look": recipe.look_weight
            * (verdict.look * (recipe.noise_look_weight + (1 - recipe.noise_look_weight) * signal)).mean(),
            "adversarial": recipe.adversarial_weight * adversarial.float(),
            "keypoints": recipe.keypoint_weight * error.clamp(max=0.5).mean(),
        }

    def run(self) -> None:
        """Trains until the recipe's minutes are over, resuming where an earlier run was stopped."""
        recipe = self.recipe
        parts = {
            **self.trained,
            "optimizer": self.optimizer,
            "average": self.average,
            "critic": self.critic.nets,
            "critic_optimizer": self.critic.optimizer,
        }
        spent, samples = load_state(self.out / "state.pt", parts)
        torch.manual_seed(recipe.seed + samples)
        self.batches.draw = np.random.default_rng(recipe.seed + samples)
        began = time.monotonic() - spent
        saved = logged = evaluated = time.monotonic()
        logged_at, limit = samples, 60 * recipe.minutes
        while (elapsed := time.monotonic() - began) < limit:
            rate = min(1.0, (samples + 1) / (100 * recipe.batch), (limit - elapsed) / (recipe.cooldown * limit))
            self.optimizer.scale_rate(rate)
            losses = self.losses(self.batches(recipe.batch), samples >= recipe.judged_from)
            self.optimizer.zero_grad()
            total = torch.stack(list(losses.values())).sum()
            total.backward()
            nn.utils.clip_grad_norm_(self.networks.parameters(), 2.0)
            self.optimizer.step()
            self.average.update()
            if recipe.adversarial_weight and self.pair:
                self.seen["critic"] = self.critic.learn(*self.pair)
            samples += recipe.batch
            for name, value in losses.items():
                self.seen[f"~{name}"] = 0.95 * self.seen.get(f"~{name}", value.item()) + 0.05 * value.item()
            now = time.monotonic()
            if now - logged > 30:
                speed = (samples - logged_at) / (now - logged)
                figures = "  ".join(f"{name} {value:.3f}" for name, value in self.seen.items())
                log.info("%7d samples %5.1f min %4.1f/s  %s", samples, elapsed / 60, speed, figures)
                logged, logged_at = now, samples
            if now - saved > 240:
                save_state(self.out / "state.pt", parts, elapsed, samples)
                saved = time.monotonic()
            if now - evaluated > 480:
                self.evaluate(samples)
                evaluated = time.monotonic()
        save_state(self.out / "state.pt", parts, elapsed, samples)
        self.evaluate(samples)

    @torch.no_grad()
    def evaluate(self, samples: int, count: int = 96, steps: int = 4) -> dict[str, float]:
        """Draws held-out persons with the averaged weights: likeness, rank among all held out, keypoints, a picture."""
        first = len(self.batches.faces) - HELD_OUT
        rows = (first + np.arange(count)) * VARIANTS
        batch = self.batches.of(rows)
        batch.embedding = torch.from_numpy(self.batches.faces.embeddings[first : first + count, 0])
        self.average.swap()
        report: dict[str, float] = {"samples": samples}
        shown = [self.batches.pictures(rows[:24])]
        for number in (1, steps):
            with autocast():
                told, _ = self.conditions(batch, drop=False)
                noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
                latents = sample(self.networks, told, number, noise, self.alpha, self.sigma)
                made = self.decoder(latents).float()
                verdict = self.recogniser(made, made, batch.keypoints, batch.person)
            made = made.float()
            rank = (verdict_rank(self.recogniser, made, batch) == 0).float().mean().item()
            error = keypoint_error(self.reader(made), batch.keypoints).mean().item()
            report |= {
                f"cosine_{number}": verdict.cosine.mean().item(),
                f"rank1_{number}": rank,
                f"keypoints_{number}": error,
            }
            shown.append(made[:24].float())
        self.average.swap()
        save_grid(shown, self.out / f"samples-{samples:07d}.png")
        with (self.out / "evaluation.jsonl").open("a") as file:
            file.write(json.dumps(report) + "\n")
        log.info("held out: %s", {name: round(value, 3) for name, value in report.items()})
        return report


def texture(pictures: Tensor) -> Tensor:
    """Mean step between neighbouring pixels in blocks of 8: `(n, 3, h, w)` -> `(2n, 3, h / 8, w / 8)`."""
    across = F.pad((pictures[..., 1:] - pictures[..., :-1]).abs(), (0, 1))
    down = F.pad((pictures[..., 1:, :] - pictures[..., :-1, :]).abs(), (0, 0, 0, 1))
    return F.avg_pool2d(torch.cat([across, down]), 8)


def verdict_rank(recogniser: Recogniser, made: Tensor, batch: Batch) -> Tensor:
    """How many held-out persons look more like each made picture than its own person does, `(n,)`."""
    chips = (align_tensor(made, batch.keypoints) + 1) * 127.5
    embedding = F.normalize(recogniser.net(chips).float() - recogniser.centre, dim=-1)
    persons = recogniser.persons[-HELD_OUT:]
    cosines = embedding @ persons.T
    own = (embedding * recogniser.persons[batch.person]).sum(-1, keepdim=True)
    return (cosines > own + 1e-6).sum(-1)


def sample(networks: Networks, told: Conditions, steps: int, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Deterministic sampling (DDIM) of `noise` over `steps` evenly trailing timesteps; latents `(n, 8, 16, 16)`."""
    timesteps = torch.arange(1000, 0, -1000 / steps).round().long() - 1
    x = noise.contiguous(memory_format=torch.channels_last)
    for index, timestep in enumerate(timesteps):
        predicted = predict(
            networks.unet, networks.identity_net, x, timestep.expand(len(x)), told, networks.control_net
        ).float()
        clean = alpha[timestep] * x - sigma[timestep] * predicted
        noise = sigma[timestep] * x + alpha[timestep] * predicted
        if index + 1 == steps:
            return clean
        x = alpha[timesteps[index + 1]] * clean + sigma[timesteps[index + 1]] * noise
    return x


def save_grid(columns: list[Tensor], file: Path) -> None:
    """Pictures `(n, 3, h, w)` in -1..1, one block row per list entry, 12 pictures a row."""
    rows = []
    for start in range(0, len(columns[0]), 12):
        for pictures in columns:
            line = torch.cat(list(pictures[start : start + 12].clamp(-1, 1)), 2)
            rows.append(line.add(1).mul(127.5).byte().permute(1, 2, 0).numpy())
    Image.fromarray(np.concatenate(rows)).save(file)


def describe(recipe: JointRecipe) -> dict:
    """The recipe as plain values, for the report."""
    return asdict(recipe)
