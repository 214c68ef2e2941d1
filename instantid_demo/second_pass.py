"""A second pass for small faces: each is cut out, drawn anew at the model's own size, and put back."""

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image, ImageDraw, ImageFilter

from instantid_demo import framing
from instantid_demo.faces import keypoints as keypoint_map
from instantid_demo.faces.face import Face
from instantid_demo.jobs import Job
from instantid_demo.loaded import Loaded
from instantid_demo.people import People
from instantid_demo.prepare import Posed, Prepared
from instantid_demo.render import Emit, Watch, decode, denoise, schedule
from instantid_demo.request import Progress

ROOM = 1.4
"""Side of the cut-out square in units of the face's box."""
SMALL = 0.5
"""A face is small when that square is below this share of the model's own size."""
CHANGE = 0.5
"""Strength of the second pass: enough for features, too little for another pose."""


def refine(
    loaded: Loaded, people: People, prepared: Prepared, pictures: Sequence[Image.Image], job: Job, emit: Emit
) -> tuple[list[Image.Image], list[str]]:
    """The pictures with small faces redrawn, and sentences for the user."""
    side = min(loaded.defaults.width, loaded.defaults.height)
    refined, redrawn = [], 0
    for number, (picture, seed) in enumerate(zip(pictures, prepared.seeds, strict=True)):
        emit(Progress(stage="denoising", done=number, total=len(pictures), message="Second pass for the face …"))
        matches = people.match(picture, [person.keypoints for person in prepared.people])
        for person, face in zip(prepared.people, matches, strict=True):
            if face is None or _square(face, picture.size)[2] >= SMALL * side:
                continue
            picture = _redraw(loaded, prepared, person, face, picture, seed, side, job, emit)
            redrawn += 1
        refined.append(picture if prepared.kept is None else prepared.kept.around(picture))
    return refined, [] if redrawn else ["The faces are large enough already: the second pass had nothing to do."]


def _redraw(
    loaded: Loaded,
    prepared: Prepared,
    person: Posed,
    face: Face,
    picture: Image.Image,
    seed: int,
    side: int,
    job: Job,
    emit: Emit,
) -> Image.Image:
    left, top, size = _square(face, picture.size)
    box = (left, top, left + size, top + size)
    enlarged = picture.crop(box).resize((side, side), Image.Resampling.LANCZOS)
    move = framing.Move(side / size, (-left * side / size, -top * side / size))
    points = move.points(face.keypoints)
    alone = replace(
        prepared,
        people=(replace(person, keypoints=points, mask=None),),
        keypoint_map=keypoint_map.draw_many(side, side, [points]),
        controls=(),
        control_mask=None,
        width=side,
        height=side,
        init=enlarged,
        mask=None,
        kept=None,
        strength=CHANGE,
    )
    pipe = loaded.pipeline("image")
    watch = Watch(job, emit, None, int(schedule(alone.recipe.steps, CHANGE) * CHANGE))
    latents = denoise(loaded, pipe, alone, [seed], watch)[0]
    drawn = decode(pipe, latents, loaded.backend, loaded.autoencoder(alone.request))
    result = picture.copy()
    result.paste(drawn.resize((size, size), Image.Resampling.LANCZOS), (left, top), _soft(size))
    return result


def _square(face: Face, canvas: tuple[int, int]) -> tuple[int, int, int]:
    """Left, top and side of the square around a face, inside the picture."""
    x0, y0, x1, y1 = (float(value) for value in face.box)
    size = min(round(max(x1 - x0, y1 - y0) * ROOM), *canvas)
    left = min(max(0, round((x0 + x1 - size) / 2)), canvas[0] - size)
    top = min(max(0, round((y0 + y1 - size) / 2)), canvas[1] - size)
    return left, top, size


def _soft(size: int) -> Image.Image:
    """A square mask that fades out towards its border."""
    edge = max(1, size // 10)
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).rounded_rectangle((edge, edge, size - 1 - edge, size - 1 - edge), radius=2 * edge, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(edge / 2))
