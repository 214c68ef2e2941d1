"""Reading a folder of recorded cases, and judging numbers against it; the format is FORMAT.md beside the cases."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

BOUND = 1e-4
"""max|d| / std(ref) of float tensors."""
WEIGHTED_BOUND = 1e-3
"""The same for cases with weighted prompts (FORMAT.md §4)."""
CONSTANT_BOUND = 1e-6
"""max|d| where the reference does not vary."""
SIGMAS_BOUND = 1e-5
"""Relative, for the scheduler's sigmas."""


@dataclass(frozen=True)
class Case:
    """One recorded case."""

    file: Path
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def kind(self) -> str:
        return self.about["kind"]

    @property
    def tensors(self) -> dict[str, Tensor]:
        name = self.about.get("tensors_file")
        return load_file(self.file.parent / name) if name else {}

    def picture(self, key: str) -> Image.Image:
        """A picture of the case, by its key in `images`."""
        return Image.open(self.file.parent / self.about["images"][key]).convert("RGB")

    def pictures(self, prefix: str) -> list[Image.Image]:
        """`prefix0`, `prefix1`, … as far as they go."""
        keys = [key for key in self.about["images"] if re.fullmatch(rf"{prefix}\d+", key)]
        return [self.picture(key) for key in sorted(keys, key=lambda key: int(key[len(prefix) :]))]


def read_cases(folder: Path) -> list[Case]:
    """All cases of a `cases/` folder, by name."""
    files = [(file, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.glob("*.json"))]
    return [Case(file, about) for file, about in files if "kind" in about]


@dataclass
class Verdict:
    """What became of a case; `worst` holds the largest deviation per tensor class."""

    worst: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    accepted: str = ""
    """Why a failure is a known and wanted difference."""

    @property
    def status(self) -> Literal["pass", "accepted", "fail"]:
        if not self.failures:
            return "pass"
        return "accepted" if self.accepted else "fail"

    def line(self, name: str) -> str:
        """The case's line in the report."""
        numbers = " ".join(f"{key}={value:.1e}" for key, value in sorted(self.worst.items()))
        reason = {"pass": "", "accepted": f" ({self.accepted})", "fail": f" ({'; '.join(self.failures[:3])})"}
        return f"{name}: {self.status}{reason[self.status]} {numbers}".rstrip()

    def exact(self, what: str, ours: Any, reference: Any) -> None:
        """Judges things that are equal or not."""
        self._note(what, 0.0 if ours == reference else 1.0, 0.0)

    def pixels(
        self, what: str, ours: np.ndarray, reference: np.ndarray, *, levels: int = 0, share: float = 0.0
    ) -> None:
        """Judges uint8 pictures: at most `levels` apart, in at most `share` of the values."""
        if ours.shape != reference.shape:
            self.failures.append(f"{what}: shape {ours.shape} instead of {reference.shape}")
            return
        apart = np.abs(ours.astype(int) - reference.astype(int))
        self._note(what, float(apart.max(initial=0)), levels)
        if (apart > 0).mean() > share and levels:
            self.failures.append(f"{what}: {(apart > 0).mean():.1%} of the values differ")

    def close(self, what: str, ours: Tensor | None, reference: Tensor, bound: float = BOUND) -> None:
        """Judges floats by max|d| / std(reference)."""
        if ours is None or (ours.shape != reference.shape and not _stretches(ours, reference)):
            shape = None if ours is None else tuple(ours.shape)
            self.failures.append(f"{what}: shape {shape} instead of {tuple(reference.shape)}")
            return
        reference = reference.double()
        apart = float((ours.detach().double() - reference).abs().max())
        spread = float(reference.std(correction=0)) if reference.numel() > 1 else 0.0
        if spread == 0:
            self._note(what, apart, CONSTANT_BOUND)
        else:
            self._note(what, apart / spread, bound)

    def relative(self, what: str, ours: Tensor, reference: Tensor, bound: float) -> None:
        """Judges numbers by their relative deviation."""
        if ours.shape != reference.shape:
            self.failures.append(f"{what}: shape {tuple(ours.shape)} instead of {tuple(reference.shape)}")
            return
        scale = reference.double().abs().clamp(min=1e-12)
        self._note(what, float(((ours.double() - reference.double()).abs() / scale).max()), bound)

    def _note(self, what: str, value: float, bound: float) -> None:
        group = re.sub(r"^(out\.)?|_?(s?\d+)(?=_|$)|(down)\d+$", lambda match: match[3] or "", what) or what
        self.worst[group] = max(self.worst.get(group, 0.0), value)
        if not value <= bound:
            self.failures.append(f"{what} {value:.1e} > {bound:.0e}")


def _stretches(ours: Tensor, reference: Tensor) -> bool:
    """Residuals of a resting ControlNet are (B, 1, 1, 1): added, they act as zeros of the full shape."""
    return ours.ndim == 4 and tuple(ours.shape[1:]) == (1, 1, 1) and len(ours) == len(reference)
