"""Masks and start pictures as the command line takes them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli import test_cli
from tests.cli.test_cli import run
from tests.inpainting import compared, painted

home = test_cli.home


@pytest.fixture
def start(portraits: list[Path]) -> Path:
    return portraits[55]


def asked(portraits: list[Path], start: Path, out: Path, *more: str | Path) -> tuple[str | Path, ...]:
    usual = ("--face", portraits[0], "--init", start, "--model", "pocket", "--seed", "7", "--out", out, "--json")
    return ("generate", *usual, *more)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_layer_with_alpha_is_painted_where_it_is_opaque_and_the_rest_stays(
    home: Path,
    portraits: list[Path],
    start: Path,
    tmp_path: Path,
    ending: str,
) -> None:
    mask = Image.open(painted(tmp_path / "mask.png", (400, 400)))
    layer = Image.new("RGBA", mask.size, "white")
    layer.putalpha(mask)
    layer.save(tmp_path / "layer.png")
    out = tmp_path / f"made.{ending}"
    done = run(home, *asked(portraits, start, out, "--mask", tmp_path / "layer.png", "--strength", "1"))
    assert done.returncode == 0, done.stderr
    outside, inside = compared(out, start)
    assert outside >= 40
    assert inside < 30


def test_a_small_change_in_few_steps_is_drawn_and_said(
    home: Path,
    portraits: list[Path],
    start: Path,
    tmp_path: Path,
) -> None:
    done = run(home, *asked(portraits, start, tmp_path / "made.png", "--strength", "0.15", "--quality", "draft"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Image.open(report["files"][0]).size == (256, 256)
    assert any("one smaller step" in note for note in report["notes"])


def test_an_empty_window_means_never(home: Path, portraits: list[Path], tmp_path: Path) -> None:
    windows = ("--identity-start", "1", "--guidance-start", "0.5", "--guidance-end", "0.5")
    done = run(home, "generate", "--face", portraits[0], *windows, "--out", tmp_path / "made.png", "--json")
    assert done.returncode == 0, done.stderr
    assert any("IdentityNet did nothing" in note for note in json.loads(done.stdout)["notes"])


@pytest.mark.parametrize(
    ("size", "value", "said"),
    [((400, 400), 0, "Nothing is painted in the mask mask.png"), ((400, 300), 255, "but the start picture 400×400")],
)
def test_a_mask_that_cannot_be_meant_is_one_line(
    home: Path,
    portraits: list[Path],
    start: Path,
    tmp_path: Path,
    size: tuple[int, int],
    value: int,
    said: str,
) -> None:
    Image.new("L", size, value).save(tmp_path / "mask.png")
    done = run(home, *asked(portraits, start, tmp_path / "made.png", "--mask", tmp_path / "mask.png"))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
