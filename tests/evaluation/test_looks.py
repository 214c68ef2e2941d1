"""Skin, light and sharpness of a face beside the portrait's, on pictures whose answers are known."""

import cv2
import numpy as np
import pytest
from PIL import Image

from instantid_demo.evaluation import looks
from instantid_demo.faces.geometry import KEYPOINTS

POINTS = KEYPOINTS * 128 - 0.5
SKINS = {"dark": (85, 55, 42), "middle": (165, 120, 95), "light": (225, 180, 160)}


def face(colour: tuple[int, int, int], grain: float = 12) -> Image.Image:
    """Skin all over, with grain."""
    noise = np.random.default_rng(0).normal(0, grain, (128, 128, 1))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(("tone", "colour"), SKINS.items())
def test_a_copy_differs_in_nothing(tone, colour):
    look = looks.compare(face(colour), face(colour), POINTS)
    assert (look.cheeks, look.darker, look.gradients, look.tone) == (0, 0, 1, tone)


def test_another_skin_is_off_by_its_distance_and_darker_by_its_light():
    look = looks.compare(face(SKINS["dark"], 0), face(SKINS["light"], 0), POINTS)
    pixels = np.array([[SKINS["dark"], SKINS["light"]]], np.float32) / 255
    dark, light = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0]
    assert look.cheeks == pytest.approx(np.linalg.norm(light - dark), abs=0.1)
    assert look.darker == pytest.approx(light[0] - dark[0], abs=0.1)


def test_a_blurred_face_and_a_thumbnail_have_weaker_gradients():
    portrait = face(SKINS["middle"])
    soft = Image.fromarray(cv2.GaussianBlur(np.asarray(portrait), (0, 0), 2))
    found = [looks.compare(picture, portrait, POINTS).gradients for picture in (soft, looks.thumbnail(portrait))]
    assert max(found) < 0.4


def test_the_face_is_compared_wherever_it_lies():
    """Grain outside of the face, and another place in the picture, change nothing."""
    canvas = np.random.default_rng(1).integers(0, 255, (300, 300, 3), np.uint8)
    canvas[100:228, 60:188] = face(SKINS["light"])
    moved = looks.aligned(Image.fromarray(canvas), POINTS + np.array((60, 100)))
    still = looks.aligned(face(SKINS["light"]), POINTS)
    assert np.abs(moved - still)[looks.inner_face()].max() < 0.5
