"""Weights that wait on the disk compute the same and come back."""

from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from instantid_demo.backends import mapped


def network(dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU(), nn.Conv2d(5, 7, 1), nn.Flatten(), nn.Linear(7 * 36, 9)).to(
        dtype
    )


@pytest.fixture
def given() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4)).bfloat16()


def test_mapped_weights_are_the_same_when_written_and_when_read(tmp_path: Path, given: Tensor) -> None:
    one, other, file = network(), network(), tmp_path / "some.weights"
    expected = {name: weight.clone() for name, weight in one.named_parameters()}
    mapped.mapped(one, file)
    for weight in other.parameters():
        weight.data.zero_()
    mapped.mapped(other, file)  # it lies there already
    for name, weight in [*one.named_parameters(), *other.named_parameters()]:
        assert torch.equal(weight, expected[name])
    assert one[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(one(given), other(given))
    assert list(tmp_path.iterdir()) == [file]


def test_changing_a_mapped_weight_leaves_the_file_alone(tmp_path: Path) -> None:
    one, file = network(), tmp_path / "some.weights"
    mapped.mapped(one, file)
    before = file.read_bytes()
    one[4].weight.data += 1
    assert file.read_bytes() == before


def test_float32_is_lent_and_taken_back_even_after_a_failure(tmp_path: Path, given: Tensor) -> None:
    one, file = network(), tmp_path / "lent"
    before = one(given)

    def use() -> None:
        with mapped.in_float32(one, file):
            assert file.is_file()
            assert torch.allclose(one(given.float()), before.float(), atol=2e-2)
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert not file.exists()
    assert torch.equal(one(given), before)


def test_loras_stay_in_memory(tmp_path: Path) -> None:
    one = network(torch.float32)
    one[4].lora_A = nn.Linear(4, 4)
    kept = one[4].lora_A.weight.data_ptr()
    mapped.mapped(one, tmp_path / "some.weights")
    assert one[4].lora_A.weight.data_ptr() == kept


def test_a_full_disk_is_an_error_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = namedtuple("free", "free")(10)
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda _: free)
    one = network()
    with pytest.raises(OSError, match="too little room"):
        mapped.mapped(one, tmp_path / "some.weights")
    assert list(tmp_path.iterdir()) == []
