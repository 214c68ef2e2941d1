"""What tests of training need: one thread and a fresh `accelerate`."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and one thread adds up in one order: results repeat exactly."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> None:
    """`accelerate` keeps the first precision of a process; every test chooses its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
