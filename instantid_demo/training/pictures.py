"""One training picture of Pocket: a photograph moved, mirrored, before a scene or in a style, with its caption."""

from dataclasses import dataclass

import cv2
import numpy as np

from instantid_demo.training import captions
from instantid_demo.training.faces import SIZE, Faces, views
from instantid_demo.training.figures import Figure, turned
from instantid_demo.training.labelling.labels import Labels
from instantid_demo.training.rendered_styles import KEEPS_THE_FACE, KEEPS_THE_GROUND, RENDERERS, background
from instantid_demo.training.scenes import SCENES

RESOLUTION = 128
_STYLES, _SCENES = tuple(RENDERERS), tuple(SCENES)
_SCENE_SHARE = 0.5
_SMALL_SHARE = 0.35
_LEAST_GROUND = 0.12


@dataclass(frozen=True)
class Drawn:
    """A training picture.

    Attributes:
        picture: `(128, 128, 3)` uint8 RGB.
        keypoints: `(5, 2)` float32 pixels.
        mirror: It is a mirror image.
        judged: A recogniser may judge likeness here.
        style: The rendered style's word, None in a photograph.
        scene: The scene's word, None where the photograph's own ground is seen.
        caption: What it shows in words.
    """

    picture: np.ndarray
    keypoints: np.ndarray
    mirror: bool
    judged: bool
    style: str | None
    scene: str | None
    caption: str


def draw_picture(faces: Faces, labels: Labels, row: int, styled: bool, moved: bool, draw: np.random.Generator) -> Drawn:
    """Draws one picture of the photograph `row`.

    Args:
        faces: The photographs.
        labels: Their labels.
        row: Which one.
        styled: In a style drawn by lot; else a photograph, now and then before a scene.
        moved: Turned, shifted and scaled.
        draw: Random source.
    """
    mirror = bool(draw.random() < 0.5)
    picture, keypoints = views(faces.pictures[row], faces.keypoints[row])[mirror]
    person = labels.person[row][:, ::-1] if mirror else labels.person[row]
    style = _STYLES[int(draw.integers(len(_STYLES)))] if styled else None
    cut_out = bool(labels.cut_out[row])
    who = captions.person(faces.sex[row], faces.age[row], labels, row)
    free = cut_out and bool(labels.free[row])
    room = free or (cut_out and float((person < 100).mean()) > _LEAST_GROUND)
    scene = None
    if room and moved and draw.random() < _SCENE_SHARE and (style is None or style in KEEPS_THE_GROUND):
        passport = "frontal" in who.traits and "serious" in who.traits and draw.random() < 0.35
        scene = "plain wall" if passport else _SCENES[int(draw.integers(len(_SCENES)))]
    own_ground = scene is not None or (style is not None and style not in KEEPS_THE_GROUND)
    small = free and moved and own_ground and draw.random() < _SMALL_SHARE
    figure = _placed(picture, np.ascontiguousarray(person), keypoints, small, moved, cut_out, draw)
    if figure.ground.mean() < 0.6 * _LEAST_GROUND:
        scene = None
    if scene is not None:
        behind = SCENES[scene](RESOLUTION, draw)
        if draw.random() < 0.5:  # as through a lens that is sharp on the person alone
            behind = cv2.GaussianBlur(behind, (0, 0), draw.uniform(0.6, 1.6))
        figure = figure.before(behind)
    text = captions.caption(who, style, scene, draw, figure.picture, figure.ground)
    seen = figure.picture if style is None else RENDERERS[style](figure.picture, figure.ground, draw)
    judged = not small and (style is None or style in KEEPS_THE_FACE)
    return Drawn(seen, figure.keypoints, mirror, judged, style, scene, text)


def _placed(
    picture: np.ndarray,
    person: np.ndarray,
    keypoints: np.ndarray,
    small: bool,
    moved: bool,
    cut_out: bool,
    draw: np.random.Generator,
) -> Figure:
    """Small figures stand free; the others mostly zoom in, because zooming out shows a mirrored border."""
    scale, angle, shift = 1.0, 0.0, (0.0, 0.0)
    if moved:
        scale = draw.uniform(0.58, 0.9) if small else draw.uniform(0.97, 1.15)
        angle = float(np.clip(draw.normal(0, 8), -20, 20))
        across, down = draw.uniform(-1, 1, 2) * (10 if small else 5)
        shift = (float(across), float(down + (6 if small else 0)))
    if small:
        return turned(picture, person, keypoints, RESOLUTION, scale, angle, shift)
    matrix = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), angle, scale * RESOLUTION / SIZE)
    matrix[:, 2] = matrix[:, 2] + (RESOLUTION - SIZE) / 2 + np.array(shift)
    size, mirrored = (RESOLUTION, RESOLUTION), cv2.BORDER_REFLECT_101
    seen = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_AREA, borderMode=mirrored)
    points = (keypoints @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if not cut_out:
        return Figure(seen, background(points, RESOLUTION), points)
    cut = cv2.warpAffine(person, matrix, size, borderMode=mirrored).astype(np.float32) / 255
    return Figure(seen, 1 - np.clip((cut - 0.3) / 0.5, 0, 1)[..., None], points)
