"""Masks in every form that people bring: what they paint is what their painter meant."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instantid_demo import framing, masks
from instantid_demo.request import RequestError

SIZE = (120, 80)
BOX = (30, 20, 70, 60)


def shape() -> np.ndarray:
    """`(80, 120)` bool: what every mask here means."""
    found = np.zeros(SIZE[::-1], bool)
    found[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    return found


def photo() -> Image.Image:
    """RGB, with as many colours as a photo has."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return Image.fromarray(np.stack([2 * x, 3 * y, 255 - x - y], -1).astype(np.uint8))


def on_transparent(colour: str, opacity: int = 255) -> Image.Image:
    layer = Image.new("RGBA", SIZE)
    layer.paste(Image.new("RGBA", SIZE, colour), mask=Image.fromarray(shape()))
    return Image.merge("RGBA", (*layer.split()[:3], Image.fromarray((shape() * opacity).astype(np.uint8))))


def with_hole() -> Image.Image:
    made = photo().convert("RGBA")
    made.putalpha(Image.fromarray(np.where(shape(), 0, 255).astype(np.uint8)))
    return made


def palette(colours: list[int]) -> Image.Image:
    made = Image.fromarray(shape().astype(np.uint8)).convert("P")
    made.putpalette(colours)
    return made


def grey(dark: float, bright: float, kind: type) -> Image.Image:
    return Image.fromarray(np.where(shape(), bright, dark).astype(kind))


def noisy(made: Image.Image) -> Image.Image:
    values = np.asarray(made).astype(int) + np.random.default_rng(0).integers(-12, 13, (*SIZE[::-1], 1))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8).squeeze())


MASKS: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "white on black": (lambda: grey(0, 255, np.uint8), "png"),
    "1 bit": (lambda: Image.fromarray(shape()), "png"),
    "white on black, jpeg": (lambda: noisy(grey(0, 255, np.uint8).convert("RGB")), "jpg"),
    "dark grey to light grey": (lambda: grey(40, 220, np.uint8), "png"),
    "opaque rgba": (lambda: grey(0, 255, np.uint8).convert("RGBA"), "png"),
    "red on black": (lambda: Image.merge("RGB", (grey(0, 255, np.uint8), *[Image.new("L", SIZE)] * 2)), "png"),
    "white on transparent": (lambda: on_transparent("white"), "png"),
    "black on transparent": (lambda: on_transparent("black"), "png"),
    "colour on transparent": (lambda: on_transparent("#24967c", 176), "png"),
    "colour on transparent, webp": (lambda: on_transparent("red"), "webp"),
    "grey and alpha": (lambda: on_transparent("white").convert("LA"), "png"),
    "gif": (lambda: on_transparent("green"), "gif"),
    "palette with alpha": (lambda: on_transparent("blue").quantize(8), "png"),
    "photo with a hole": (with_hole, "png"),
    "photo with a hole, webp": (with_hole, "webp"),
    "grey photo with a hole": (lambda: with_hole().convert("LA"), "png"),
    "labels 0 and 1": (lambda: grey(0, 1, np.uint8), "png"),
    "labels 1 and 2": (lambda: grey(1, 2, np.uint8), "png"),
    "labels 0 and 7, 16 bit": (lambda: grey(0, 7, np.uint16), "png"),
    "labels 0 and 1, 32 bit": (lambda: grey(0, 1, np.int32), "tiff"),
    "labels in a palette": (lambda: palette([0, 0, 0, 128, 0, 0]), "png"),
    "16 bit": (lambda: grey(0, 65535, np.uint16), "png"),
    "16 bit, dim": (lambda: grey(0, 255, np.uint16), "png"),
    "float 0 to 1": (lambda: grey(0, 1, np.float32), "tiff"),
    "float with gaps": (lambda: grey(np.nan, 0.5, np.float32), "tiff"),
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def save(made: Image.Image, ending: str = "png", **options: object) -> Path:
        where = tmp_path / f"mask.{ending}"
        made.save(where, **options)
        return where

    return save


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_paints_what_its_painter_meant(file: Callable[..., Path], name: str) -> None:
    make, ending = MASKS[name]
    found = np.asarray(masks.read(file(make(), ending))[0]).astype(int)
    assert found.shape == SIZE[::-1]
    wanted = 255 * shape()
    assert (np.abs(found - wanted) < 32).mean() > (0.93 if ending in ("jpg", "webp", "gif") else 0.9999)


def test_several_labels_are_all_painted(file: Callable[..., Path]) -> None:
    values = shape().astype(np.uint8)
    values[40:60, 30:70] = 3
    assert np.array_equal(np.asarray(masks.read(file(Image.fromarray(values)))[0]) > 0, shape())


def test_a_soft_edge_stays_soft(file: Callable[..., Path]) -> None:
    ramp = np.tile(np.linspace(0, 255, SIZE[0]), (SIZE[1], 1)).astype(np.uint8)
    assert np.array_equal(np.asarray(masks.read(file(Image.fromarray(ramp)))[0]), ramp)


@pytest.mark.parametrize(
    "make",
    [
        lambda: grey(0, 0, np.uint8),
        lambda: grey(1, 1, np.uint8),
        lambda: grey(0, 0, np.uint16),
        lambda: Image.new("1", SIZE),
        lambda: Image.new("RGBA", SIZE, (255, 255, 255, 0)),
        lambda: on_transparent("white", 5),
    ],
)
def test_an_empty_mask_is_said(file: Callable[..., Path], make: Callable[[], Image.Image]) -> None:
    with pytest.raises(RequestError, match=r"^Nothing is painted in the mask mask\.png: [^\n]+\.$"):
        masks.read(file(make()))


@pytest.mark.parametrize("value", [1.0, 255.0])
def test_a_full_mask_is_full(file: Callable[..., Path], value: float) -> None:
    assert masks.is_full(masks.read(file(grey(value, value, np.float32), "tiff"))[0])
    assert masks.is_full(masks.read(file(grey(255, 255, np.uint8)))[0])
    assert not masks.is_full(masks.read(file(grey(0, 255, np.uint8)))[0])


def test_a_turned_photo_and_its_turned_mask_belong_together(file: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = masks.read(file(grey(0, 255, np.uint8), exif=exif))[0]
    assert np.array_equal(np.asarray(found) > 0, np.rot90(shape(), -1))


@pytest.mark.parametrize("size", [SIZE, (60, 40), (1199, 801), (24, 16)])
def test_a_mask_of_another_resolution_fits(size: tuple[int, int]) -> None:
    masks.fitting(Image.new("L", size), SIZE)


@pytest.mark.parametrize("size", [(80, 120), (80, 80), (120, 90), (400, 300)])
def test_a_mask_of_another_shape_is_refused_in_one_sentence(size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=rf"{size[0]}×{size[1]}, but the start picture 120×80"):
        masks.fitting(Image.new("L", size), SIZE)


def test_a_hole_is_the_mask_and_gets_the_colours_around_it(file: Callable[..., Path]) -> None:
    made = Image.new("RGBA", SIZE, (200, 30, 40, 255))
    made.paste((0, 0, 0, 0), BOX)
    start, found = masks.hole(file(made))
    assert found is not None
    assert np.array_equal(np.asarray(found) > 0, shape())
    assert np.abs(np.asarray(start).astype(int) - (200, 30, 40)).max() <= 2


def test_a_start_picture_without_a_hole_stays_as_it_was(file: Callable[..., Path]) -> None:
    corners = photo().convert("RGBA")
    corners.putpixel((0, 0), (0, 0, 0, 0))
    for made in (photo(), photo().convert("RGBA"), corners):
        start, found = masks.hole(file(made))
        assert found is None
        assert np.array_equal(np.asarray(start)[1:], np.asarray(photo())[1:])
    with pytest.raises(RequestError, match="transparent all over"):
        masks.hole(file(Image.new("RGBA", SIZE)))


@pytest.mark.parametrize("canvas", [(64, 64), (128, 64), (64, 128)])
def test_mask_and_start_picture_are_cut_alike(canvas: tuple[int, int]) -> None:
    start = grey(0, 255, np.uint8)
    wanted = np.asarray(framing.cover(start, *canvas)[0]) > 127
    for size in (SIZE, (60, 40), (360, 240)):
        mask = start.resize(size, Image.Resampling.NEAREST)
        found = np.asarray(framing.cut_alike(mask, SIZE, canvas)) > 127
        assert (found & wanted).sum() / (found | wanted).sum() > 0.95


def test_a_thin_stroke_reaches_the_latents() -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (9, 0, 10, 64))
    values = np.asarray(masks.cells(mask))
    assert (values[:, 8:16] == 255).all()
    assert values.sum() == 255 * 64 * 8


def test_what_is_kept_is_the_start_picture_itself() -> None:
    start, drawn = Image.effect_noise((256, 256), 80).convert("RGB"), Image.new("RGB", (256, 256), "red")
    mask = Image.new("L", (256, 256))
    mask.paste(255, (64, 64, 128, 192))
    kept = masks.Kept(start, masks.softened(mask))
    made, original = np.asarray(kept.around(drawn)), np.asarray(start)
    assert (made[64:192, 64:128] == (255, 0, 0)).all()
    assert np.array_equal(made[kept.untouched()], original[kept.untouched()])
    far = np.ones((256, 256), bool)
    far[58:198, 58:134] = False
    assert kept.untouched()[far].all()
    assert kept.around(drawn.resize((128, 128))).size == (128, 128)
