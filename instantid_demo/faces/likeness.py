"""How alike a made face is to its reference, in words."""

import numpy as np

from instantid_demo.faces.face import Face
from instantid_demo.faces.identity import Identity
from instantid_demo.request import Likeness, View

BANDS: dict[str, tuple[float, float]] = {"dlib": (0.6, 0.4), "antelopev2": (0.6, 0.4)}
"""Cosine from which a likeness is strong, and fair. dlib (centred): the same person's photos have 0.73 on average
and 0.43 at the least, different persons' 0.43 at the most."""
PROFILE = 50.0
"""Degrees of yaw beyond which a recogniser trained on frontal faces says little."""


def compare(reference: Identity, found: Face | None, view: View | None = None) -> Likeness:
    """Compares a face in a made picture with the identity it was made from; `view` is the direction asked for."""
    if view is not None and abs(view.yaw) > PROFILE:
        return Likeness(value=None, word="profile: not comparable")
    if found is None:
        return Likeness(value=None, word="no face found")
    one, two = reference.mean.astype(np.float64), found.embedding.astype(np.float64)
    value = float(one @ two) / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1e-12)
    strong, fair = BANDS[reference.model]
    word = "strong" if value >= strong else "fair" if value >= fair else "weak"
    return Likeness(value=round(value, 4), word=word)
