"""What one request knows about its people: identity tokens, scales and regions. It lives as long as the request."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class IdentityCondition:
    """One person of a request."""

    embedding: Tensor
    """(d,) raw face embedding, or (k, d): k photos of the person as one sequence for the Resampler."""
    mask: Tensor | None = None
    """(H, W) in 0..1, soft edges welcome, at the size of the picture: where this person's identity acts."""
    adapter_scale: float = 0.8
    """Strength of the image adapter for this person."""
    residual_mask: Tensor | None = None
    """(H, W) in 0..1: where IdentityNet's residuals of this person act; None: `mask`."""


@dataclass
class Regions:
    """Masks of k people and of the whole request, resized once per grid.

    The people's masks are averaged over each cell of an attention grid. `control` follows the reference
    instead: the nearest pixel for attention. Residuals use bilinear interpolation for both, as the reference.
    """

    people: Tensor | None = None
    """(k, H, W) or None."""
    residuals: Tensor | None = None
    """(k, H, W) or None."""
    control: Tensor | None = None
    """(1, H, W) or None."""
    _resized: dict[tuple, Tensor | None] = field(default_factory=dict, repr=False)

    def attention(self, queries: int, like: Tensor) -> Tensor | None:
        """The masks on the grid of an attention layer: (k or 1, queries, 1), or None without masks."""
        known = self.control if self.people is None else self.people
        if known is None:
            return None
        height, width = known.shape[-2:]
        # A grid's sides are the picture's, divided and rounded up: the only divisor of `queries` this close.
        ideal = (queries * height / width) ** 0.5
        rows = min((n for n in range(1, queries + 1) if queries % n == 0), key=lambda n: abs(n - ideal))
        mask = self._at((rows, queries // rows), self.people, "area", "nearest", like)
        return None if mask is None else mask.flatten(1)[..., None]

    def residual(self, size: tuple[int, int], like: Tensor) -> Tensor | None:
        """The masks on the grid of a residual: (k or 1, h, w), or None without masks."""
        return self._at(size, self.residuals, "bilinear", "bilinear", like)

    def _at(self, size: tuple[int, int], people: Tensor | None, mode: str, control_mode: str, like: Tensor):
        key = (size, mode, like.dtype, like.device)
        if key not in self._resized:
            resized = [
                F.interpolate(mask[:, None], size, mode=how)[:, 0]
                for mask, how in ((people, mode), (self.control, control_mode))
                if mask is not None
            ]
            both = resized[0] * resized[-1] if len(resized) > 1 else next(iter(resized), None)
            self._resized[key] = None if both is None else both.to(like)
        return self._resized[key]


@dataclass
class Conditioning:
    """State of one request, entered and left with `InstantID.conditioned`; shapes: B rows, k people, T tokens each."""

    tokens: Tensor
    """(2, k, T, D): the Resampler's answer to no face (row 0) and to the faces (row 1)."""
    adapter_scales: Sequence[float]
    """k strengths of the image adapter."""
    regions: Regions = field(default_factory=Regions)
    identity_scale: float = 0.8
    window: tuple[float, float] = (0.0, 1.0)
    every: int = 1
    """IdentityNet runs in every k-th of its steps; its residuals are used again in between."""
    reuse_keys: bool = True
    """Compute keys and values of text and tokens once per request: exact, they do not change between steps."""
    rows: Tensor | None = None
    """(B, k, T, D): `tokens` as the networks see them: no-face rows first with guidance."""
    guided: bool = False
    """Whether `rows` holds both halves of guidance."""
    _keys: dict[tuple[int, str], list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=dict, repr=False)

    def expand(self, images: int, guided: bool) -> Tensor:
        """Sets and returns `rows` for `images` pictures, preceded by their no-face rows where `guided`."""
        self.guided = guided
        halves = self.tokens if guided else self.tokens[1:]
        self.rows = halves.repeat_interleave(images, dim=0)
        return self.rows

    def keys_values(self, owner: torch.nn.Module, name: str, states: Tensor, project: partial) -> tuple[Tensor, Tensor]:
        """Keys and values of `states` in layer `owner`, from memory where `states` is the same tensor as before."""
        if not self.reuse_keys:
            return project(states)
        known = self._keys.setdefault((id(owner), name), [])
        for of, keys, values in known:
            if of is states:
                return keys, values
        keys, values = project(states)
        # Two: guidance's halves may come one after the other.
        known[:] = [*known[-1:], (states, keys, values)]
        return keys, values


def resample(resampler: torch.nn.Module, identities: Sequence[IdentityCondition], noise: float, device) -> Tensor:
    """Identity tokens (2, k, T, D) of k people; row 0 answers to no face: zeros, or `noise` times a random face.

    `noise` (0..1) against burnt pictures: the no-face embedding gets a random direction of the face's own length,
    drawn from a fixed seed so that a request's pixels repeat.
    """
    like = resampler.proj_in.weight
    place = device if like.is_meta else like.device  # meta: the weights are moved in by sequential offloading
    pairs = []
    for identity in identities:
        face = torch.atleast_2d(identity.embedding).to(place, like.dtype)
        nobody = torch.zeros_like(face)
        if noise:
            drawn = torch.randn(face.shape, generator=torch.Generator().manual_seed(0)).to(face)
            nobody = noise * drawn * face.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
        pairs.append(resampler(torch.stack([nobody, face])))
    return torch.stack(pairs, dim=1).to(device)
