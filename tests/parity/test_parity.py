"""The product's classes against the original's recorded numbers."""

from pathlib import Path

import pytest

from tests.parity.cases import read_cases
from tests.parity.runners import Weights, run


def test_every_case_agrees_with_the_original(shared: Path) -> None:
    folder = shared / "parity"
    if not folder.is_dir():
        pytest.skip("the parity fixtures are not in the shared test material")
    weights = {"A": Weights(folder / "weights")}
    verdicts = {case.name: run(case, weights) for case in read_cases(folder / "cases")}
    assert len(verdicts) > 20
    assert [verdict.line(name) for name, verdict in verdicts.items() if verdict.status == "fail"] == []


def test_a_fault_is_noticed(shared: Path) -> None:
    """The harness itself: a changed strength must fail, or its bounds say nothing."""
    folder = shared / "parity"
    case = next(case for case in read_cases(folder / "cases") if case.name == "gen_basic_cfg5")
    case.about["call"]["controlnet_conditioning_scale"] = (
        case.about["call"].get("controlnet_conditioning_scale", 0.8) + 0.05
    )
    assert run(case, {"A": Weights(folder / "weights")}).status == "fail"
