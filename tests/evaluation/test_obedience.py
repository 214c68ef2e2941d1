"""Every style's promise holds for the style's own rendering of a photograph, and does not hold for the photograph."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from instantid_demo import styles
from instantid_demo.evaluation import obedience
from instantid_demo.training.rendered_styles import RENDERERS, background

KEYPOINTS = np.array([[44, 41], [85, 41], [64, 65], [47, 87], [82, 87]], np.float32)
RENDERER_OF = {"watercolor": "watercolor painting", "vibrant color": "vibrant colors"}


def photographs(portraits) -> list[np.ndarray]:
    """Some portraits, roughly cut to the face, 128 pixels wide."""
    cut = [Image.open(file).convert("RGB").crop((110, 50, 290, 230)).resize((128, 128)) for file in portraits[::17]]
    return [np.asarray(picture) for picture in cut]


def test_every_preset_has_a_promise():
    assert set(obedience.RULES) == set(styles.load()) - {"none"}


@pytest.mark.parametrize("style", sorted(obedience.RULES))
def test_a_rendered_style_keeps_its_promise_and_a_photo_does_not(style, portraits):
    renderer = RENDERERS[RENDERER_OF.get(style, style)]
    plain = photographs(portraits)
    ground = background(KEYPOINTS, 128)
    draw = np.random.default_rng(0)
    styled = [Image.fromarray(renderer(picture, ground, draw)) for picture in plain]
    pictures = [Image.fromarray(picture) for picture in plain]
    assert obedience.judge(style, styled, pictures)["obeyed"] >= 0.8
    assert obedience.judge(style, pictures, pictures)["obeyed"] <= 0.2


def test_difference_is_zero_between_equal_pictures_and_grows():
    black, grey, white = (Image.new("RGB", (32, 32), (v, v, v)) for v in (0, 128, 255))
    assert obedience.difference([grey, grey]) == 0
    assert obedience.difference([black, grey]) < obedience.difference([black, white])
    assert obedience.difference([grey]) == 0


def test_detail_tells_a_blurred_picture_from_a_sharp_one(portraits):
    sharp = Image.fromarray(photographs(portraits)[0])
    blurred = sharp.filter(ImageFilter.GaussianBlur(3))
    assert obedience.detail(sharp, sharp) == pytest.approx(1)
    assert obedience.detail(blurred, sharp) < 0.6
