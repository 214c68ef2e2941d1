"""The benchmark's arithmetic and its contract."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.measure import projected
from benchmarks.modes import COMPILED, MODES, MORE, OPENVINO, SINGLE, Mode, on


def test_projection_counts_the_first_call_once_and_later_ones_by_their_kind() -> None:
    assert projected([5.0, 2.0, 2.2, 1.0], [2, 2, 2, 1], [2] * 10) == pytest.approx(5 + 9 * 2.1)
    assert projected([5.0, 2.0, 1.0], [2, 2, 1], [2, 2, 2, 1, 1]) == pytest.approx(5 + 2 * 2 + 2 * 1)
    assert projected([5.0, 0.0, 2.0], [2, 0, 2], [2, 0, 2, 0, 2, 0]) == pytest.approx(5 + 2 * 2)
    assert projected([0.0, 0.0], [0, 0], [0] * 30) == 0


def test_plans_say_which_network_runs_in_which_step() -> None:
    assert Mode("", True, "").plan(2) == [(2, 2), (2, 2)]
    assert Mode("", True, "", every=2).plan(4) == [(2, 2), (0, 2), (2, 2), (0, 2)]
    assert Mode("", True, "", guided_until=0.5).plan(4) == [(2, 2), (2, 2), (1, 1), (1, 1)]
    assert Mode("", True, "", guidance=1.0).plan(1) == [(1, 1)]
    assert Mode("", True, "", strength=0.0).plan(1) == [(0, 2)]
    assert Mode("", True, "", strength=0.0, savings=None).plan(1) == [(2, 2)]


def test_json_is_as_promised_and_exact_modes_are_exact() -> None:
    command = [sys.executable, "-m", "benchmarks", "--synthetic", "smallest", "--json", "--rounds", "1"]
    done = subprocess.run([*command, "--only", "exact,exact-scale-0,few-step"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    modes = {mode["name"]: mode for mode in report["modes"]}
    assert set(modes) == {"reference", "exact", "reference-scale-0", "exact-scale-0", "few-step"}
    for mode in modes.values():
        assert {"dtype", "peak_memory_gb"} < set(mode)
        assert mode["total_seconds"] == pytest.approx(sum(mode["stages"].values()), abs=0.01)
        assert mode["ratio"] == pytest.approx(mode["total_seconds"] / mode["reference_total_seconds"], abs=0.01)
        assert not mode["exact"] or mode["max_difference"] <= 1e-3
    assert modes["exact-scale-0"]["stages"]["identity_net"] == 0 < modes["reference-scale-0"]["stages"]["identity_net"]
    assert modes["few-step"]["max_difference"] > 1e-3


def test_a_reference_is_among_the_modes() -> None:
    modes = [*MODES, *OPENVINO, *MORE, *SINGLE, *COMPILED]
    names = [mode.name for mode in modes]
    assert len(set(names)) == len(names)
    assert all(mode.compared_with in names for mode in modes)


def test_on_cuda_the_original_computes_in_float16() -> None:
    kinds = {mode.name: mode.dtype for mode in on("cuda", MODES)}
    assert kinds["reference"] == kinds["exact"] == torch.float16
    assert kinds["bf16"] == torch.bfloat16
    assert on("mps", MODES) == on("cpu", MODES) == MODES


def test_a_real_model_is_measured_through_the_engine() -> None:
    command = [sys.executable, "-m", "benchmarks", "--model", "pocket", "--device", "cpu", "--json", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == "pocket"
    assert [entry["name"] for entry in report["pictures"]] == ["first picture", "another seed", "another prompt"]
    assert all(entry["stages"]["pictures"] > 0 for entry in report["pictures"])
    assert [entry["pictures"] for entry in report["batches"]] == [1, 2, 4, 8]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("what", [("--model", "pocket"), ("--synthetic", "smallest")])
def test_a_missing_device_is_one_sentence(what: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "benchmarks", *what, "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("PyTorch finds no cuda device")
    assert len(done.stderr.splitlines()) == 1
