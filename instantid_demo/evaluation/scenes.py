"""Beyond portraits in their own pose: heads turned by known angles, and two people in one picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instantid_demo.evaluation import scores
from instantid_demo.faces import views
from instantid_demo.request import GenerationRequest, Person, Region, View

if TYPE_CHECKING:
    from instantid_demo.engine import Engine
    from instantid_demo.faces.face import Face

VIEWS: dict[str, tuple[View, View]] = {
    f"{axis} {angle}°": (View(**{axis: -angle}), View(**{axis: angle}))
    for axis, angles in (("yaw", (20, 40, 60)), ("pitch", (15, 30)), ("roll", (20, 40)))
    for angle in angles
}
"""Name -> both directions."""
REGIONS = (Region(x0=0, y0=0, x1=0.5, y1=1), Region(x0=0.5, y0=0, x1=1, y1=1))


def turned(
    engine: "Engine", files: Sequence[Path], references: Sequence[np.ndarray], ask: dict[str, Any], family: Any
) -> dict[str, dict[str, float | None]]:
    """Per angle over both directions: share of faces found, keypoint error, cosine to the person.

    Args:
        engine: Makes and finds.
        files: One portrait per person.
        references: Their embeddings.
        ask: Fields of every request.
        family: Whose framing the angles are drawn in.
    """
    judged = {}
    for name, directions in VIEWS.items():
        found, errors, cosines = 0, [], []
        for view in directions:
            for file, reference in zip(files, references, strict=True):
                made = engine.generate(GenerationRequest(**ask, face=(file,), view=view)).pictures[0]
                wanted = views.keypoints_for(view, None, made.width, made.height, framing=family)
                face = nearest(engine.analyse(made, ask["model"]), wanted)
                if face is not None:
                    found += 1
                    errors.append(scores.keypoint_error(face.keypoints, wanted))
                    cosines.append(float(scores.unit(face.embedding) @ scores.unit(reference)))
        judged[name] = {
            "face_found": round(found / (len(directions) * len(files)), 4),
            "keypoint_error": round(statistics.fmean(errors), 4) if errors else None,
            "cosine": round(statistics.fmean(cosines), 4) if cosines else None,
        }
    return judged


def together(
    engine: "Engine", files: Sequence[Path], references: Sequence[np.ndarray], ask: dict[str, Any], side: int
) -> dict[str, Any]:
    """Two people in one picture twice as wide as high, neighbours in `files`: does each stay in the own half?

    A pair counts as kept where both faces are found and each is more alike to its own person than to the other.
    """
    kept, own, other = 0, [], []
    pairs = list(zip(range(0, len(files) - 1, 2), range(1, len(files), 2), strict=True))
    for pair in pairs:
        people = tuple(Person(face=files[who], region=region) for who, region in zip(pair, REGIONS, strict=True))
        made = engine.generate(GenerationRequest(**ask, person=people, width=2 * side, height=side)).pictures[0]
        found = engine.analyse(made, ask["model"])
        right = []
        for half, who in enumerate(pair):
            face = _within(found, half * made.width / 2, (half + 1) * made.width / 2)
            if face is None:
                continue
            embedding = scores.unit(face.embedding)
            cosines = [float(embedding @ scores.unit(references[each])) for each in (who, *set(pair) - {who})]
            own.append(cosines[0])
            other.append(cosines[1])
            right.append(cosines[0] > cosines[1])
        kept += len(right) == 2 and all(right)
    return {
        "pairs": len(pairs),
        "faces_found": round(len(own) / (2 * len(pairs)), 4) if pairs else None,
        "kept": round(kept / len(pairs), 4) if pairs else None,
        "cosine_own": round(statistics.fmean(own), 4) if own else None,
        "cosine_other": round(statistics.fmean(other), 4) if other else None,
    }


def nearest(faces: Sequence["Face"], wanted: np.ndarray) -> "Face | None":
    """Of the faces in a picture the one at the wanted keypoints."""
    if not faces:
        return None
    return min(faces, key=lambda face: float(np.linalg.norm(face.keypoints - wanted, axis=1).mean()))


def _within(faces: Sequence["Face"], left: float, right: float) -> "Face | None":
    """The surest face whose middle lies between two columns."""
    inside = [face for face in faces if left <= float(face.keypoints[:, 0].mean()) < right]
    return max(inside, key=lambda face: face.score, default=None)
