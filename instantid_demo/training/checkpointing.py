"""Training state on disk, written so that a kill at any moment leaves the previous state readable."""

import os
from pathlib import Path
from typing import Any

import torch


def save_state(file: Path, parts: dict[str, Any], seconds: float, samples: int) -> None:
    """Writes every part's `state_dict()` and the progress beside it, by an atomic rename."""
    state = {name: part.state_dict() for name, part in parts.items()}
    unfinished = file.with_suffix(".partial")
    torch.save({"parts": state, "seconds": seconds, "samples": samples}, unfinished)
    os.replace(unfinished, file)


def load_state(file: Path, parts: dict[str, Any]) -> tuple[float, int]:
    """Restores the parts in place and returns (seconds spent, samples seen); (0, 0) where nothing was saved."""
    if not file.exists():
        return 0.0, 0
    state = torch.load(file, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    return float(state["seconds"]), int(state["samples"])
