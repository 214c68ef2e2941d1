"""Figures of a training run over time: TensorBoard where it is installed, else lines of JSON."""

import json
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Tracker:
    """Writes figures to `out/tensorboard/`, or to `out/log.jsonl` without TensorBoard; says which."""

    def __init__(self, out: Path) -> None:
        self._file = out / "log.jsonl"
        self._board: Any = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"))
            log.info("figures go to TensorBoard: tensorboard --logdir %s", out / "tensorboard")
        else:
            log.info("TensorBoard is not installed (pip install tensorboard): figures go to %s", self._file)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds the figures of a step."""
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)
            return
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")

    def close(self) -> None:
        """Writes what is still held back."""
        if self._board is not None:
            self._board.close()
