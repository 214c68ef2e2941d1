"""An invisible watermark: a faint keyed noise tile, repeated over the picture's brightness.

Spread spectrum (Cox et al. 1997) in the band of spatial frequencies that compression and halving leave alone. The
detector evens out the picture's own contrast, folds it onto one tile and correlates that with the key's tile at
all shifts at once (FFT), for many scales, so that cropping and resizing do not matter. Libraries were measured
first: none survived JPEG, WebP, both resizings and cropping together (docs/provenance.md).

It says "made by this program", no more: the key is public, so it is a label for honest people, not a proof. The
proof is the signed manifest (`credentials.py`).
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from PIL import Image

TILE = 128
"""Side of the repeated tile in pixels of the saved picture."""
LEAST_SIDE = 96
"""Smaller pictures say nothing, marked or not."""
THRESHOLD = 7.0
"""Peak over noise of the correlation, in standard deviations. By normal statistics one unmarked picture in 10^5
reaches it (1.3 × 10^-12 for each of 16,384 shifts, 2 mirrorings and 145 scales);
`python -m instantid_demo.provenance.attacks --crops 30000` counts."""
_KEY = 20240116
_BAND = (0.05, 0.19)
"""Cycles per pixel; half of Nyquist, 0.25, is what halving leaves."""
_FAINTEST, _STRONGEST, _SHARE = 1.5, 5.0, 0.3
"""Grey levels: at the least, at the most, and per grey level of the picture's own local contrast."""
_MOST_ERROR = 2.0
"""Root mean square change in grey levels; 2.0 is a PSNR of 42 dB."""
_WINDOW = 2 * TILE
_SCALES = (1.0, 0.75, 0.5, 1.5, 2.0, *np.geomspace(0.42, 2.2, 140).tolist())


@dataclass(frozen=True)
class Detection:
    """Whether the watermark is there."""

    found: bool
    score: float
    """Peak over threshold: found from 1."""


def embed(picture: Image.Image, spared: np.ndarray | None = None) -> Image.Image:
    """The RGB picture with the watermark in it, same size; PSNR at least 41 dB.

    `spared`: `(height, width)` bool, a part in which by itself the PSNR is at least that.
    """
    pixels = np.asarray(picture.convert("RGB")).astype(np.float32)
    height, width = pixels.shape[:2]
    brightness = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    contrast = np.sqrt(np.maximum(_blur(brightness**2, 2) - _blur(brightness, 2) ** 2, 0))
    strength = np.clip(_FAINTEST + _SHARE * contrast, _FAINTEST, _STRONGEST)
    repeats = (-(-height // TILE), -(-width // TILE))
    change = strength * np.tile(_tile(), repeats)[:height, :width]
    for part in [slice(None)] if spared is None or not spared.any() else [slice(None), spared]:
        change[part] *= min(1.0, _MOST_ERROR / max(float(np.sqrt((change[part] ** 2).mean())), 1e-6))
    # Rounding alone would lose most of a faint change in flat areas; a fixed dither keeps its mean.
    dither = np.random.default_rng(_KEY).random((height, width), dtype=np.float32)[..., None]
    return Image.fromarray(np.clip(np.floor(pixels + change[..., None] + dither), 0, 255).astype(np.uint8))


def detect(picture: Image.Image) -> Detection:
    """Looks for the watermark in an RGB picture of any size; stops at the first scale that shows it."""
    grey = np.asarray(picture.convert("L")).astype(np.float32)
    if min(grey.shape) < LEAST_SIDE:
        return Detection(False, 0.0)
    best = 0.0
    for scale in _SCALES:
        best = max(best, _peak(_window(grey, scale)))
        if best >= THRESHOLD:
            break
    return Detection(best >= THRESHOLD, best / THRESHOLD)


def _window(grey: np.ndarray, scale: float) -> np.ndarray:
    """The middle of a picture that was resized by `scale`, at the size it was saved in."""
    side = round(_WINDOW * scale)
    top, left = max(0, (grey.shape[0] - side) // 2), max(0, (grey.shape[1] - side) // 2)
    middle = grey[top : top + side, left : left + side]
    size = (max(8, round(middle.shape[1] / scale)), max(8, round(middle.shape[0] / scale)))
    if size == middle.shape[::-1]:
        return middle
    return cv2.resize(middle, size, interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


def _peak(window: np.ndarray) -> float:
    """The correlation's highest peak over all shifts and both mirrorings, in standard deviations."""
    detail = window - _mean(window, 9)
    detail /= np.sqrt(np.maximum(_mean(detail**2, 21), 0)) + 1.0
    height, width = detail.shape
    rows, columns = -(-height // TILE) * TILE, -(-width // TILE) * TILE
    padded = np.zeros((rows, columns), np.float32)
    padded[:height, :width] = detail
    folded = padded.reshape(rows // TILE, TILE, columns // TILE, TILE).sum((0, 2))
    spectrum = cv2.dft(folded, flags=cv2.DFT_COMPLEX_OUTPUT)
    # Half whitened: no strong line or edge of the picture outweighs the tile's many faint waves.
    spectrum /= np.sqrt(cv2.magnitude(spectrum[..., 0], spectrum[..., 1]) + 1e-6)[..., None]
    peaks = []
    for reference in _references():
        product = cv2.mulSpectrums(spectrum, reference, 0, conjB=True)
        correlation = cv2.idft(product, flags=cv2.DFT_REAL_OUTPUT)
        peaks.append(float(correlation.max() / (correlation.std() + 1e-9)))
    return max(peaks)


@cache
def _tile() -> np.ndarray:
    """The key's tile: `(128, 128)` float32 band-limited noise that repeats without a seam, standard deviation 1."""
    noise = np.random.default_rng(_KEY).standard_normal((TILE, TILE))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(TILE), np.fft.fftfreq(TILE)))
    band = (frequency >= _BAND[0]) & (frequency <= _BAND[1])
    tile = np.fft.ifft2(np.fft.fft2(noise) * band).real
    return (tile / tile.std()).astype(np.float32)


@cache
def _references() -> tuple[np.ndarray, ...]:
    """The spectrum of the tile, and of its mirror image."""
    return tuple(
        cv2.dft(np.ascontiguousarray(tile), flags=cv2.DFT_COMPLEX_OUTPUT) for tile in (_tile(), _tile()[:, ::-1])
    )


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def _mean(values: np.ndarray, side: int) -> np.ndarray:
    """The mean around every pixel; much faster than a Gaussian, and the detector calls it for every scale."""
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
