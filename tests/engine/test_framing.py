"""Geometry of the canvas."""

import numpy as np
import pytest
from PIL import Image

from instantid_demo import framing
from instantid_demo.request import Place, Region

FRONT = np.array([[40, 40], [80, 40], [60, 60], [45, 80], [75, 80]], np.float32)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((points - points.mean(0)) @ turn.T + points.mean(0)).astype(np.float32)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_a_face_keeps_its_tilt_and_gets_the_target_size_and_place(degrees: float) -> None:
    photo = turned(FRONT * 3 + 500, degrees)
    np.testing.assert_allclose(framing.onto(photo, FRONT).points(photo), turned(FRONT, degrees), atol=0.01)


def test_coincident_keypoints_do_not_divide_by_zero() -> None:
    assert np.isfinite(framing.onto(np.ones((5, 2), np.float32), FRONT).scale)


def test_place_moves_the_centre_and_scales() -> None:
    moved = framing.placed(FRONT, Place(x=0.25, y=0.75, size=0.5), 128, 256)
    np.testing.assert_allclose(moved.mean(0), [32, 192], atol=1e-3)
    np.testing.assert_allclose(np.ptp(moved, axis=0), np.ptp(FRONT, axis=0) / 2, atol=1e-3)


def test_neighbouring_regions_share_their_soft_edge_and_fill_the_canvas() -> None:
    left = framing.region_mask(Region(x0=0, y0=0, x1=0.5, y1=1), 64, 48)
    right = framing.region_mask(Region(x0=0.5, y0=0, x1=1, y1=1), 64, 48)
    np.testing.assert_allclose(left + right, 1, atol=1e-6)
    assert (left[:, 0] == 1).all()
    assert (left[:, -1] == 0).all()
    assert 0 < left[10, 31] < 1


def test_a_box_over_the_border_is_cut_not_wrapped() -> None:
    mask = framing.box_mask((-20, -5, 10, 6), 32, 24)
    assert mask.sum() == 60
    assert mask[:6, :10].all()


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (4000, 10), (10, 4000)])
def test_a_canvas_in_the_shape_of_a_picture(size: tuple[int, int]) -> None:
    width, height = framing.like_picture(size, 128, 128, 2048)
    assert width % 8 == height % 8 == 0
    assert min(width, height) >= 64
    assert (width > height) == (size[0] > size[1])


def test_cover_keeps_points_on_what_they_marked() -> None:
    picture = Image.new("RGB", (300, 200))
    picture.paste((255, 255, 255), (140, 90, 160, 110))
    filled, move = framing.cover(picture, 64, 64)
    x, y = move.points(np.array([[150.0, 100.0]]))[0]
    assert filled.getpixel((int(x), int(y))) == (255, 255, 255)
    assert filled.size == (64, 64)


def test_small_pictures_are_enlarged_to_hold_the_watermark() -> None:
    assert framing.enlarged(Image.new("RGB", (128, 160)), 1, 256).size == (256, 320)
    assert framing.enlarged(Image.new("RGB", (128, 160)), 4, 256).size == (512, 640)
    assert framing.enlarged(Image.new("RGB", (300, 300)), 1, 256).size == (300, 300)


def test_a_region_smaller_than_the_face_shrinks_it() -> None:
    place = framing.in_region(Region(x0=0, y0=0, x1=0.5, y1=1), 128, 128, 1.0)
    assert (place.x, place.y, place.size) == (0.25, 0.5, 0.5)
    assert framing.in_region(Region(x0=0, y0=0, x1=1, y1=1), 128, 128, 0.5).size == 1


def test_a_picture_of_any_size_is_cut_within_its_borders() -> None:
    """Without rounding's hair's breadth, which Pillow refuses."""
    for width in range(300, 900, 7):
        for height in (200, 333, 400, 601):
            canvas = framing.like_picture((width, height), 128, 128, 2048)
            x0, y0, x1, y1 = framing.crop((width, height), canvas)
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height


def test_a_start_picture_of_twice_its_height_fills_the_canvas() -> None:
    picture = Image.new("RGB", (800, 400), "teal")
    canvas = framing.like_picture(picture.size, 128, 128, 2048)
    assert framing.cover(picture, *canvas)[0].size == canvas
