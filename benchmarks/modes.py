"""The ways of running that are compared, and which networks each of their steps runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from instantid_demo.backends.openvino import Precision
from instantid_demo.method.savings import Savings

GUIDANCE = 5.0
STRENGTH = 0.8


@dataclass(frozen=True)
class Mode:
    """One way to make the same picture."""

    name: str
    exact: bool
    """Promises the reference's latents up to rounding: max|d| / std at most 1e-3 in float32."""
    about: str
    dtype: torch.dtype = torch.float32
    savings: Savings | None = field(default_factory=Savings)
    """None: the original's way."""
    backend: Literal["torch", "openvino"] = "torch"
    precision: Precision = "f32"
    """Of OpenVINO's networks."""
    compared_with: str = "reference"
    guidance: float = GUIDANCE
    guided_until: float = 1.0
    strength: float = STRENGTH
    every: int = 1
    deep_every: int = 1
    quick_decode: bool = False
    """A tiny autoencoder decodes."""
    compiled: bool = False
    """`torch.compile` makes the repeated parts."""
    halves: bool = False
    """Guidance's two halves run one after the other."""
    steps: int | None = None
    """None: as many as the reference."""
    measured: int = 2
    """Steps that are really run; where steps differ, enough to see a later one of each kind."""

    def plan(self, steps: int) -> list[tuple[int, int]]:
        """Rows of the batch that IdentityNet and UNet get in each step; 0: it rests, negative: its deep blocks do."""
        planned = []
        due = 0
        for step in range(steps):
            rows = 2 if self.guidance > 1 and step / steps < self.guided_until else 1
            runs = self.savings is None or self.strength > 0
            deep = 1 if step % self.deep_every == 0 else -1
            planned.append((rows if runs and due % self.every == 0 else 0, deep * rows))
            due += runs
        return planned


def on(device: str, modes: Sequence[Mode]) -> list[Mode]:
    """The modes on a kind of device: as the original does, with float16 in float32's place on CUDA."""
    if device != "cuda":
        return list(modes)
    return [replace(mode, dtype=torch.float16) if mode.dtype == torch.float32 else mode for mode in modes]


NO_SAVINGS = {"keys": False, "keypoint_map": False, "kernels": False, "layout": False, "tokens": False}

MODES = [
    Mode("reference", True, "the original's schedule", savings=None),
    Mode("exact", True, "all exact savings"),
    Mode("bf16", False, "exact savings in bfloat16", dtype=torch.bfloat16),
]
"""What the others are measured against, and first of all where time is short."""
MORE = [
    Mode("few-step", False, "4 steps without guidance", guidance=1.0, steps=4),
    Mode("few-step-bf16", False, "4 steps without guidance, bfloat16", torch.bfloat16, guidance=1.0, steps=4),
    Mode("reference-scale-0", True, "the original with IdentityNet at strength 0", savings=None, strength=0.0),
    Mode("exact-scale-0", True, "IdentityNet rests at strength 0", strength=0.0, compared_with="reference-scale-0"),
    Mode("exact-halves", True, "guidance's halves one after the other, for less memory", halves=True),
    Mode("identity-every-2", False, "IdentityNet in every second step", every=2, measured=3),
    Mode("deep-every-2", False, "the UNet's deep blocks in every second step", deep_every=2, measured=3),
    Mode("guidance-half", False, "guidance in the first half of the steps", guided_until=0.5, measured=3),
]
FEW_OPENVINO = Mode(
    "few-step-openvino-bf16",
    False,
    "4 steps without guidance, OpenVINO in bfloat16",
    torch.bfloat16,
    backend="openvino",
    precision="bf16",
    guidance=1.0,
    steps=4,
)
OPENVINO = [
    Mode("openvino", True, "UNet and IdentityNet on OpenVINO, float32", backend="openvino"),
    Mode("openvino-halves", True, "the same, guidance's halves one after the other", backend="openvino", halves=True),
    Mode(
        "openvino-bf16", False, "the same computing in bfloat16", torch.bfloat16, backend="openvino", precision="bf16"
    ),
    Mode(
        "openvino-i8",
        False,
        "float32, the weights of matrix products in 8 bits",
        torch.bfloat16,
        backend="openvino",
        precision="i8",
        halves=True,
    ),
    FEW_OPENVINO,
    replace(
        FEW_OPENVINO,
        name="few-step-openvino-i8",
        about="4 steps without guidance, OpenVINO in float32 with 8-bit weights",
        precision="i8",
    ),
    replace(
        FEW_OPENVINO,
        name="few-step-openvino-every-2",
        about="as before, and IdentityNet in every second step",
        every=2,
        measured=3,
    ),
    replace(
        FEW_OPENVINO,
        name="few-step-openvino-quick",
        about="IdentityNet in every step, decoded by a tiny autoencoder",
        quick_decode=True,
    ),
    replace(
        FEW_OPENVINO,
        name="few-step-openvino-shortcuts",
        about="both: IdentityNet in every second step, decoded by a tiny autoencoder",
        every=2,
        measured=3,
        quick_decode=True,
    ),
]
COMPILED = [
    Mode("compiled", True, "all exact savings, repeated parts compiled", compiled=True),
    Mode("compiled-bf16", False, "the same computing in bfloat16", torch.bfloat16, compiled=True),
]
SINGLE = [
    Mode(f"only-{name}", True, f"the saving `{name}` alone", savings=Savings(**{**NO_SAVINGS, name: True}))
    for name in NO_SAVINGS
    if name != "tokens"  # it acts from the second request on
]
