"""Ready-made control maps: what is transparent shows nothing, and what is dark by its format is seen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instantid_demo.controls import ready
from instantid_demo.request import Control, GenerationRequest, RequestError

LINES = np.zeros((64, 96), bool)
LINES[20:23, 10:80] = LINES[30:60, 40:43] = True
RAMP = np.tile(np.linspace(0, 1, 96), (64, 1))


def on_transparent(colour: tuple[int, int, int], under: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    rgb = np.where(LINES[..., None], colour, under)
    return Image.fromarray(np.concatenate([rgb, 255 * LINES[..., None]], -1).astype(np.uint8))


def labels(colours: list[int]) -> Image.Image:
    made = Image.fromarray(LINES.astype(np.uint8)).convert("P")
    made.putpalette(colours)
    return made


EDGES: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "white on black": (lambda: Image.fromarray(LINES), "png"),
    "8 bit": (lambda: Image.fromarray((255 * LINES).astype(np.uint8)), "png"),
    "white on transparent": (lambda: on_transparent((255, 255, 255)), "png"),
    "white on transparent black": (lambda: on_transparent((255, 255, 255), (0, 0, 0)), "png"),
    "black on transparent": (lambda: on_transparent((0, 0, 0)), "png"),
    "grey and alpha": (lambda: on_transparent((255, 255, 255)).convert("LA"), "png"),
    "palette with alpha": (lambda: on_transparent((255, 255, 255)).quantize(4), "png"),
    "gif": (lambda: on_transparent((255, 255, 255)), "gif"),
    "16 bit": (lambda: Image.fromarray((65535 * LINES).astype(np.uint16)), "png"),
    "16 bit, 0 and 255": (lambda: Image.fromarray((255 * LINES).astype(np.uint16)), "png"),
    "labels 0 and 1": (lambda: Image.fromarray(LINES.astype(np.uint8)), "png"),
    "labels 0 and 1, 16 bit": (lambda: Image.fromarray(LINES.astype(np.uint16)), "png"),
    "float": (lambda: Image.fromarray(LINES.astype(np.float32)), "tiff"),
    "palette": (lambda: labels([0, 0, 0, 255, 255, 255]), "png"),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_white_on_black(tmp_path: Path, name: str) -> None:
    make, ending = EDGES[name]
    file = tmp_path / f"map.{ending}"
    make().save(file)
    drawn = ready.read(file)
    assert drawn.mode == "RGB"
    assert np.array_equal(np.asarray(drawn), np.repeat(255 * LINES[..., None], 3, 2))


@pytest.mark.parametrize("top", [1000, 65535])
def test_a_deep_depth_map_fills_the_range(tmp_path: Path, top: int) -> None:
    Image.fromarray((RAMP * top).astype(np.uint16)).save(tmp_path / "depth.png")
    values = np.asarray(ready.read(tmp_path / "depth.png"))[..., 0]
    assert np.abs(values - 255 * RAMP).max() <= 1


def test_gaps_in_a_depth_map_are_far_away(tmp_path: Path) -> None:
    values = np.where(LINES, np.nan, RAMP * 7).astype(np.float32)
    values[0, 0] = np.inf
    Image.fromarray(values).save(tmp_path / "depth.tiff")
    found = np.asarray(ready.read(tmp_path / "depth.tiff"))[..., 0]
    assert (found[LINES] == 0).all()
    assert np.abs(found - 255 * RAMP)[~LINES][1:].max() <= 1


def test_a_skeleton_keeps_its_colours(tmp_path: Path) -> None:
    on_transparent((255, 85, 0)).save(tmp_path / "pose.png")
    found = np.asarray(ready.read(tmp_path / "pose.png"))
    assert (found[LINES] == (255, 85, 0)).all()
    assert (found[~LINES] == 0).all()


def test_a_grey_map_stays_as_it_is(tmp_path: Path) -> None:
    values = (40 + RAMP * 100).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "depth.png")
    assert np.array_equal(np.asarray(ready.read(tmp_path / "depth.png"))[..., 0], values)


def test_what_is_no_picture_is_said(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_text("no picture")
    with pytest.raises(RequestError, match=r"map\.png"):
        ready.read(tmp_path / "map.png")


def test_the_engine_reads_maps_so_and_says_when_one_is_black(tmp_path: Path, portraits: list[Path]) -> None:
    from instantid_demo.engine import Engine
    from instantid_demo.settings import Settings

    engine = Engine(Settings(home=tmp_path, outputs=tmp_path, model="pocket", device="cpu"))
    Image.fromarray(LINES).save(tmp_path / "plain.png")
    on_transparent((255, 255, 255)).save(tmp_path / "layer.png")
    Image.new("RGBA", (96, 64)).save(tmp_path / "nothing.png")

    def made(name: str):
        control = Control(kind="canny", image=tmp_path / name, is_map=True, strength=1.0)
        return engine.generate(GenerationRequest(face=(portraits[0],), model="pocket", seed=1, control=(control,)))

    plain, layer, nothing = made("plain.png"), made("layer.png"), made("nothing.png")
    assert plain.pictures[0] == layer.pictures[0] != nothing.pictures[0]
    assert any("canny map is black all over" in note for note in nothing.notes)
    assert plain.notes == ()
