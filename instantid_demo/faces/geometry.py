"""How a face's keypoints are laid onto others."""

import numpy as np

KEYPOINTS = np.array(
    [[0.3307, 0.3169], [0.6929, 0.3151], [0.5121, 0.5260], [0.3469, 0.6944], [0.6765, 0.6932]], np.float32
)
"""Where a face's keypoints lie in dlib's chip and in Pocket's framing, as fractions of the side: the mean over Pocket's
training photos."""


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`(2, 3)`: turn, scale and shift that bring `points` onto `target`, both `(n, 2)`, by least squares.

    Umeyama's without reflection.
    """
    points, target = np.asarray(points, np.float64), np.asarray(target, np.float64)
    source, wanted = points - points.mean(0), target - target.mean(0)
    norm = max((source**2).sum(), 1e-6)
    a = (source * wanted).sum() / norm
    b = (source[:, 0] * wanted[:, 1] - source[:, 1] * wanted[:, 0]).sum() / norm
    turn = np.array([[a, -b], [b, a]])
    return np.concatenate([turn, (target.mean(0) - turn @ points.mean(0))[:, None]], 1)
