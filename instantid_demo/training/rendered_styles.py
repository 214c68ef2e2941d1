"""Looks that OpenCV and NumPy can give to a photograph, so that Pocket learns what style words mean.

Every renderer takes `(picture (h, w, 3) uint8 RGB, ground (h, w, 1) float 0..1, draw)` and returns a picture
of the same shape; `ground` is 1 where the background is, 0 on the face.
"""

from collections.abc import Callable

import cv2
import numpy as np

Renderer = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def background(keypoints: np.ndarray, size: int) -> np.ndarray:
    """Soft mask `(size, size, 1)` of what lies outside the head, from keypoints `(5, 2)` in pixels."""
    eyes, mouth = keypoints[:2].mean(0), keypoints[3:].mean(0)
    down = mouth - eyes
    length = float(np.hypot(*down)) + 1e-6
    centre = eyes + 0.35 * down
    y, x = np.mgrid[:size, :size].astype(np.float32)
    along = ((x - centre[0]) * down[0] + (y - centre[1]) * down[1]) / length
    across = ((x - centre[0]) * -down[1] + (y - centre[1]) * down[0]) / length
    radius = np.sqrt((along / (1.75 * length)) ** 2 + (across / (1.35 * length)) ** 2)
    return np.clip((radius - 0.9) / 0.25, 0, 1)[..., None]


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _u8(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(_u8(grey)[..., None], 3, 2)


def _tint(picture: np.ndarray, dark: tuple[int, int, int], light: tuple[int, int, int]) -> np.ndarray:
    share = _grey(picture).astype(np.float32)[..., None] / 255
    return _u8(np.array(dark) * (1 - share) + np.array(light) * share)


def _contrast(picture: np.ndarray, gain: float, shift: float = 0) -> np.ndarray:
    return _u8((picture.astype(np.float32) - 128) * gain + 128 + shift)


def _saturate(picture: np.ndarray, gain: float) -> np.ndarray:
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = np.clip(hsv[..., 1] * gain, 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def _noise(size: int, scale: int, draw: np.random.Generator) -> np.ndarray:
    coarse = draw.random((size // scale + 2, size // scale + 2, 1)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]


def _smooth(picture: np.ndarray, rounds: int = 2) -> np.ndarray:
    for _ in range(rounds):
        picture = cv2.bilateralFilter(picture, 5, 40, 4)
    return picture


def _sketch(picture: np.ndarray, blur: float) -> np.ndarray:
    grey = _grey(picture).astype(np.float32)
    return np.clip(grey / (cv2.GaussianBlur(grey, (0, 0), blur) + 8) * 250, 0, 255)


def film_noir(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _u8(_contrast(_rgb(_grey(p)), 1.6, -15) * (1 - 0.6 * g))


def black_and_white(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _rgb(_grey(p))


def sepia(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _tint(p, (35, 18, 5), (255, 228, 180))


def vintage_photo(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    faded = _saturate(p, 0.5).astype(np.float32) * 0.75 + 45
    return _u8(faded * (1.05, 1.0, 0.85) + d.normal(0, 6, p.shape))


def pencil_sketch(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _rgb(_sketch(p, 4) * 0.95 + d.normal(0, 4, p.shape[:2]))


def charcoal_drawing(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _rgb((_sketch(p, 7) - 128) * 1.3 + 95 + 25 * (_noise(len(p), 2, d)[..., 0] - 0.5) + _grey(p) * 0.2)


def line_art(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    grey = cv2.GaussianBlur(_grey(p), (0, 0), 0.8)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 11, 5)
    return _rgb(cv2.GaussianBlur(lines, (0, 0), 0.5).astype(np.float32))


def blueprint(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _tint(_rgb(255 - _sketch(p, 4) * 0.85), (10, 40, 130), (235, 245, 255))


def watercolor_painting(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    soft = _saturate(_smooth(p, 3), 1.35).astype(np.float32) * 0.8 + 58
    paper = 255 * g + soft * (1 - g)
    return _u8(soft * (1 - 0.7 * g) + paper * 0.7 * g + 18 * (_noise(len(p), 3, d) - 0.5))


def oil_painting(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    strokes = cv2.medianBlur(_smooth(p, 1), 5)
    relief = cv2.filter2D(_grey(strokes), cv2.CV_32F, np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]], np.float32))
    return _u8(_saturate(_contrast(strokes, 1.15), 1.5) + 0.35 * relief[..., None] + 14 * (_noise(len(p), 3, d) - 0.5))


def pastel(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _u8(_smooth(p, 2).astype(np.float32) * 0.5 + np.array((125, 115, 128)))


def pop_art(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    levels = np.array([(40, 10, 90), (225, 40, 110), (255, 140, 60), (255, 235, 120)], np.uint8)
    picked = levels[np.clip(_contrast(_smooth(p, 1), 1.3).mean(2) // 64, 0, 3).astype(int)]
    return _u8(picked * (1 - g) + np.array((40, 200, 220)) * g)


def pixel_art(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    size = len(p)
    small = cv2.resize(_saturate(p, 1.3), (size // 4, size // 4), interpolation=cv2.INTER_AREA)
    return cv2.resize((small // 24) * 24 + 12, (size, size), interpolation=cv2.INTER_NEAREST)


def comic(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    flat = _saturate((_smooth(p, 2) // 40) * 40 + 20, 1.7)
    return _u8(flat.astype(np.float32) * (0.25 + 0.75 * line_art(p, g, d) / 255.0))


def neon(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    x = np.linspace(0, 1, p.shape[1], dtype=np.float32)[None, :, None]
    light = np.array((255, 40, 200)) * (1 - x) + np.array((20, 200, 255)) * x
    return _u8(_contrast(p, 1.3, -35).mean(2, keepdims=True) * light / 165 * (1 - 0.55 * g))


def cyberpunk(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    graded = _tint(p, (15, 5, 45), (120, 255, 240)).astype(np.float32) * 0.55 + p * (0.7, 0.35, 0.6)
    return _u8(graded + g * (_noise(len(p), 12, d) > 0.75) * np.array((160, 0, 190)))


def vibrant_colors(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    hue = cv2.cvtColor(np.array([[[int(d.integers(180)), 210, 235]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return _u8(_saturate(_contrast(p, 1.15), 1.9) * (1 - 0.7 * g) + hue * 0.7 * g)


def golden_hour(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _u8(p.astype(np.float32) * (1.2, 0.92, 0.6) + np.array((28, 10, 0)) + g * np.array((40, 20, 0)))


def snow(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    cold = _saturate(p, 0.7) * (0.88, 0.97, 1.12) + 12
    cold = cold * (1 - 0.8 * g) + np.array((226, 236, 248)) * 0.8 * g
    flakes = cv2.GaussianBlur((d.random(p.shape[:2]) > 0.988).astype(np.float32), (0, 0), 0.8)[..., None] * 500
    return _u8(cold + flakes * (0.25 + 0.75 * g))


def jungle(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    leaves = np.array((20, 70, 15)) + _noise(len(p), 6, d) * np.array((60, 130, 30))
    return _u8(p * (0.92, 1.04, 0.82) * (1 - 0.9 * g) + leaves * 0.9 * g)


def mars(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    y = np.linspace(0, 1, len(p), dtype=np.float32)[:, None, None]
    desert = np.array((235, 150, 100)) * (1 - y) + np.array((140, 50, 20)) * y + 25 * (_noise(len(p), 5, d) - 0.5)
    return _u8(p * (1.1, 0.82, 0.68) * (1 - 0.9 * g) + desert * 0.9 * g)


def low_key(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _u8(_contrast(p, 1.2, -35) * (1 - 0.85 * g))


def studio_portrait(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    return _u8(_contrast(p, 1.1, 6) * (1 - 0.92 * g) + np.array((120, 124, 130)) * 0.92 * g)


RENDERERS: dict[str, Renderer] = {
    name.__name__.replace("_", " "): name
    for name in (
        *(film_noir, black_and_white, sepia, vintage_photo, pencil_sketch, charcoal_drawing, line_art, blueprint),
        *(watercolor_painting, oil_painting, pastel, pop_art, pixel_art, comic, neon, cyberpunk, vibrant_colors),
        *(golden_hour, snow, jungle, mars, low_key, studio_portrait),
    )
}
"""Style word -> renderer; the style presets use these words."""

KEEPS_THE_FACE = frozenset(RENDERERS) - {
    *("pencil sketch", "charcoal drawing", "line art", "blueprint", "pop art", "pixel art", "comic", "neon"),
}
"""Styles after which a face recogniser still works well enough to judge likeness in training."""
