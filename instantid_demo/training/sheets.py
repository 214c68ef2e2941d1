"""Sheets of pictures that a run leaves behind, for a person to look at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def save_grid(columns: list[Tensor], file: Path) -> None:
    """Pictures `(n, 3, h, w)` in -1..1, one block row per list entry, 12 pictures a row."""
    rows = []
    for start in range(0, len(columns[0]), 12):
        for pictures in columns:
            line = torch.cat(list(pictures[start : start + 12].clamp(-1, 1)), 2)
            rows.append(line.add(1).mul(127.5).byte().permute(1, 2, 0).numpy())
    Image.fromarray(np.concatenate(rows)).save(file)
