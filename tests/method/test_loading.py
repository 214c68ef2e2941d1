"""Which device and which numbers networks get."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from instantid_demo import memory as main_memory
from instantid_demo.backends import choice
from instantid_demo.backends.openvino import OpenVino
from instantid_demo.method import loading
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("instructions", "free", "large", "expected", "on_openvino"),
    [
        (True, 64, True, torch.bfloat16, "bf16"),
        (False, 64, True, torch.float32, "f32"),
        (False, 12, True, torch.bfloat16, "i8"),
        (True, 64, False, torch.float32, "f32"),
        (False, 2, False, torch.float32, "f32"),
    ],
)
def test_a_processor_gets_what_it_computes_in_and_what_fits(
    monkeypatch: pytest.MonkeyPatch,
    instructions: bool,
    free: int,
    large: bool,
    expected: torch.dtype,
    on_openvino: str,
) -> None:
    for module in (loading, choice):
        monkeypatch.setattr(module, "computes_in_bfloat16", lambda: instructions)
    memory = SimpleNamespace(available=free * loading.GIGABYTE)
    monkeypatch.setattr(loading.psutil, "virtual_memory", lambda: memory)
    chosen = loading.choose_dtype(CPU, large=large)
    assert chosen == expected
    assert choice.precision(chosen) == on_openvino


@pytest.mark.parametrize(
    ("weights", "free", "disk", "taken"),
    [(2 * 10**8, 8, 64, True), (10**6, 8, 64, False), (2 * 10**8, 1, 64, False), (2 * 10**8, 8, 0.1, False)],
    ids=["large", "small", "no memory", "no disk"],
)
def test_openvino_takes_over_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: int, free: float, disk: float, taken: bool
) -> None:
    with torch.device("meta"):
        net = torch.nn.Linear(weights // 1000, 1000, bias=False)
    net.device, net.dtype = CPU, torch.float32
    pipe = SimpleNamespace(unet=net, controlnets=[net])
    memory = SimpleNamespace(available=free * loading.GIGABYTE)
    monkeypatch.setattr(choice.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(choice.shutil, "disk_usage", lambda _: SimpleNamespace(free=disk * loading.GIGABYTE))
    monkeypatch.setattr(OpenVino, "ready", lambda *_: False)
    settings = Settings(home=tmp_path)  # type: ignore[call-arg]
    assert (choice.choose(settings, pipe) is not None) is taken
    assert choice.choose(settings.model_copy(update={"backend": "torch"}), pipe) is None


def test_what_is_asked_for_counts() -> None:
    assert loading.choose_dtype(CPU, torch.float16, large=True) == torch.float16
    assert loading.choose_dtype(torch.device("mps"), torch.float16) == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError, match="no cuda device"):
        loading.choose_device("cuda")


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(main_memory, "CGROUPS", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert main_memory.available_memory() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert main_memory.available_memory() > 600_000
