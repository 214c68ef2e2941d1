"""Stage 1 of Pocket: a small autoencoder (diffusers `AutoencoderTiny`, factor 8) for 128x128 faces.

Losses: L1, L1 on edges, features of dlib's recogniser (so that a reconstruction stays the same person), a
hinge patch discriminator in the second half, and a pull of every latent channel towards mean 0 and standard
deviation 1, so that the diffusion model needs no further scaling (`scaling_factor` 1).
"""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from instantid_demo.faces.dlib_resnet import CHIP_SIZE, DlibResNet
from instantid_demo.faces.offline import CHIP_KEYPOINTS
from instantid_demo.training.checkpointing import load_state, save_state
from instantid_demo.training.precision import autocast
from instantid_demo.training.recognisers import SIDE, MobileFace, distance
from instantid_demo.training.rendered_styles import RENDERERS, background

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VaeRecipe:
    """Numbers of the autoencoder stage; the rate falls with the cosine over its `samples`."""

    samples: int = 30_000
    batch: int = 16
    learning_rate: float = 2e-3
    channels: int = 48
    latent_channels: int = 16
    feature_weight: float = 0.5
    second_weight: float = 0.5
    """Weight of the second teacher's features, where one is given."""
    adversarial_weight: float = 0.1
    adversarial_from: float = 0.25
    styled_share: float = 0.15
    """Share of the pictures that a style is drawn over."""
    latent_noise: float = 0.05
    seed: int = 0


def build(recipe: VaeRecipe) -> AutoencoderTiny:
    """A fresh autoencoder: `(n, 3, h, w)` in -1..1 <-> `(n, latent_channels, h/8, w/8)`."""
    widths = (recipe.channels,) * 4
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(0, 2, 3, 3),
        num_decoder_blocks=(3, 4, 2, 0),
        latent_channels=recipe.latent_channels,
        scaling_factor=1.0,
    )


def widened(vae: AutoencoderTiny, recipe: VaeRecipe) -> AutoencoderTiny:
    """An autoencoder of the recipe's latent channels that draws what `vae` of fewer channels draws, at first."""
    wide = build(recipe)
    own, kept = wide.state_dict(), vae.state_dict()
    for key, value in kept.items():
        if own[key].shape == value.shape:
            own[key] = value
        elif key.startswith("encoder"):  # the last convolution: its first channels are the old ones
            own[key][: len(value)] = value
        else:  # the decoder's first one does not look at the new channels yet
            own[key].zero_()[:, : value.shape[1]] = value
    wide.load_state_dict(own)
    return wide


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of a picture `(n, 3, h, w)` in -1..1 as real (high) or made (low)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        convolution = torch.nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            convolution(nn.Conv2d(3, width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            convolution(nn.Conv2d(width, 2 * width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            convolution(nn.Conv2d(2 * width, 4 * width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            convolution(nn.Conv2d(4 * width, 1, 3, 1, 1)),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Patch scores `(n, 1, h/8, w/8)`."""
        return self.layers(pictures)


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical differences of neighbouring pixels."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def feature_distance(judge: DlibResNet, made: Tensor, real: Tensor) -> Tensor:
    """Mean L1 distance of the recogniser's normalised activations at four depths; pictures in -1..1."""

    def activations(x: Tensor) -> list[Tensor]:
        chips = F.interpolate((x + 1) * 127.5, (CHIP_SIZE, CHIP_SIZE), mode="bilinear", antialias=False)
        return judge.features(chips.to(memory_format=torch.channels_last))

    with torch.no_grad():
        targets = activations(real)
    total = made.new_zeros(())
    found = activations(made)
    for depth in (0, 3, 7, 10):
        scale = targets[depth].float().abs().mean() + 1e-6
        total = total + F.l1_loss(found[depth].float(), targets[depth].float()) / scale
    return total / 4


def texture(pictures: Tensor) -> Tensor:
    """Mean step between neighbouring pixels in blocks of 8: `(n, 3, h, w)` -> `(2n, 3, h / 8, w / 8)`."""
    across = F.pad((pictures[..., 1:] - pictures[..., :-1]).abs(), (0, 1))
    down = F.pad((pictures[..., 1:, :] - pictures[..., :-1, :]).abs(), (0, 0, 0, 1))
    return F.avg_pool2d(torch.cat([across, down]), 8)


def second_distance(judge: MobileFace, made: Tensor, real: Tensor) -> Tensor:
    """Mean distance of the second teacher's activations; pictures in -1..1, not aligned."""
    chips = F.interpolate(torch.cat([made, real]).float(), (SIDE, SIDE), mode="bilinear", antialias=False)
    found, _ = judge(chips[: len(made)])
    with torch.no_grad():
        wanted, _ = judge(chips[len(made) :])
    return distance(found, wanted).mean()


def train(
    pictures: np.ndarray,
    recipe: VaeRecipe,
    out: Path,
    start: AutoencoderTiny | None = None,
    second: MobileFace | None = None,
) -> AutoencoderTiny:
    """Trains the autoencoder and saves it to `out`, resuming from `out/state.pt` where there is one.

    Args:
        pictures: `(n, h, w, 3)` uint8 RGB, `h = w` a little larger than 128: random 128 crops are taken.
        recipe: The numbers.
        out: Folder of the checkpoint and of `samples.png`.
        start: An autoencoder to go on from, of as many latent channels or fewer.
        second: A second teacher beside dlib's recogniser.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    draw = np.random.default_rng(recipe.seed)
    vae = build(recipe) if start is None else widened(start, recipe)
    vae = vae.to(memory_format=torch.channels_last)
    critic = PatchDiscriminator().to(memory_format=torch.channels_last)
    judge = DlibResNet.pretrained().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    critic_optimizer = torch.optim.AdamW(critic.parameters(), 4e-4, betas=(0.5, 0.99))
    parts = {"vae": vae, "critic": critic, "optimizer": optimizer, "critic_optimizer": critic_optimizer}
    spent, samples = load_state(out / "state.pt", parts)
    held_out = pictures[-64:]
    pictures = pictures[:-200]
    began, saved = time.monotonic() - spent, time.monotonic()
    while samples < recipe.samples:
        elapsed, progress = time.monotonic() - began, samples / recipe.samples
        rate = float(min(1.0, samples / 1000) * 0.5 * (1 + np.cos(np.pi * progress)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        chosen = pictures[draw.integers(len(pictures), size=recipe.batch)]
        real = crop(np.stack([maybe_styled(one, recipe.styled_share, draw) for one in chosen]), 128, draw)
        judged = progress > recipe.adversarial_from
        with autocast():
            latents = vae.encoder(real)
            spread = latents.float().transpose(0, 1).flatten(1)
            noisy = latents + recipe.latent_noise * torch.randn_like(latents)
            made = vae.decoder(noisy)
            features = feature_distance(judge, made, real)
        made = made.float()
        pixel = F.l1_loss(made, real)
        edge = sum(F.l1_loss(a, b) for a, b in zip(edges(made), edges(real), strict=True))
        coarse = F.l1_loss(F.avg_pool2d(made, 4), F.avg_pool2d(real, 4))
        normal = spread.mean(1).square().mean() + (spread.std(1) - 1).square().mean()
        grain = (texture(made) - texture(real)).abs().mean()
        loss = pixel + edge + coarse + recipe.feature_weight * features + 2 * grain + 0.1 * normal
        if second is not None:
            loss = loss + recipe.second_weight * second_distance(second, made, real)
        if judged:
            critic.requires_grad_(False)
            with autocast():
                loss = loss - recipe.adversarial_weight * critic(made).float().mean()
            critic.requires_grad_(True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if judged:
            with autocast():
                scores = critic(torch.cat([real, made.detach()])).float()
            critic_loss = F.relu(1 - scores[: len(real)]).mean() + F.relu(1 + scores[len(real) :]).mean()
            critic_optimizer.zero_grad(set_to_none=True)
            critic_loss.backward()
            critic_optimizer.step()
        samples += recipe.batch
        if samples % (recipe.batch * 50) == 0:
            log.info(
                "vae %6d samples %4.0f s  l1 %.4f  features %.3f  normal %.3f  grain %.2f  psnr %.2f",
                *(samples, elapsed, pixel.item(), features.item(), normal.item()),
                (texture(made).mean() / texture(real).mean()).item(),
                -10 * np.log10(F.mse_loss(made, real).item() / 4),
            )
        if time.monotonic() - saved > 120:
            save_state(out / "state.pt", parts, elapsed, samples)
            saved = time.monotonic()
    save_state(out / "state.pt", parts, time.monotonic() - began, samples)
    vae.eval().save_pretrained(out)
    report = {"samples": samples, "psnr": psnr(vae, held_out, draw), "recipe": asdict(recipe)}
    (out / "report.json").write_text(json.dumps(report, indent=1))
    log.info("vae done: %s", report)
    return vae


def maybe_styled(picture: np.ndarray, share: float, draw: np.random.Generator) -> np.ndarray:
    """Now and then a picture in a style, since the autoencoder must know these as well."""
    if draw.random() >= share:
        return picture
    size = len(picture)
    return RENDERERS[_pick_style(draw)](picture, background(CHIP_KEYPOINTS * size, size), draw)


def _pick_style(draw: np.random.Generator) -> str:
    return list(RENDERERS)[int(draw.integers(len(RENDERERS)))]


def crop(pictures: np.ndarray, size: int, draw: np.random.Generator) -> Tensor:
    """Random square crops, half of them mirrored: `(n, h, w, 3)` uint8 -> `(n, 3, size, size)` in -1..1."""
    batch = []
    for picture in pictures:
        top, left = draw.integers(picture.shape[0] - size + 1), draw.integers(picture.shape[1] - size + 1)
        piece = picture[top : top + size, left : left + size]
        batch.append(piece[:, ::-1] if draw.random() < 0.5 else piece)
    tensor = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def psnr(vae: AutoencoderTiny, pictures: np.ndarray, draw: np.random.Generator) -> float:
    """Mean reconstruction PSNR in dB over held-out pictures."""
    real = crop(pictures, 128, draw)
    made = vae.decode(vae.encode(real).latents).sample.clamp(-1, 1)
    return float((-10 * torch.log10((made - real).square().mean((1, 2, 3)) / 4)).mean())
