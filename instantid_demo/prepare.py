"""A request made ready for the networks: who, where, which words, which maps, which size."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from instantid_demo import framing, masks, styles, vocabulary, wording
from instantid_demo.faces import keypoints as keypoint_map
from instantid_demo.faces import turns, views
from instantid_demo.faces.face import Face
from instantid_demo.faces.identity import Identity
from instantid_demo.faces.photo import open_photo
from instantid_demo.framing import Box, Keypoints
from instantid_demo.people import People, Subject, area
from instantid_demo.presets import Defaults, Family, Recipe
from instantid_demo.request import Control, ControlKind, GenerationRequest, Person, Place, RequestError, View
from instantid_demo.scene import Scene, StartPicture
from instantid_demo.settings import Settings

SEEDS = 2**32
MOST_ROOM = 4
"""Times the model's own side that a picture of several people may measure."""
PLAIN_PROMPT = "a photo of a person"
"""What is asked for where the user says nothing."""
PLAIN_SUBJECT = "a person"
"""The same inside a style's words."""


@dataclass(frozen=True)
class Words:
    """What the text encoders get, and got out of it."""

    prompt: str
    negative: str
    embeddings: dict[str, Any] = field(default_factory=dict, repr=False)
    """Keyword arguments of the pipeline: prompt_embeds and so on."""
    unknown: tuple[str, ...] = ()
    """Words of the user's prompt that the model never learned."""


@dataclass(frozen=True)
class Posed:
    """One person on the canvas."""

    identity: Identity
    keypoints: Keypoints
    box: Box
    """Of the whole face, canvas pixels."""
    view: View | None
    """The direction that was asked for, where one was."""
    mask: np.ndarray | None = None
    """`(height, width)` in 0..1 where the person may appear; None: everywhere."""
    age: float | None = None
    """Years as the recogniser estimates them from the photo; None where it does not tell."""

    sequence: np.ndarray | None = field(default=None, repr=False)
    """(k, d) float32: embedding and thumbnail as the adapter takes them; None: the embedding alone."""

    @property
    def embedding(self) -> np.ndarray:
        """(d,) or (k, d) float32, as the adapter takes it."""
        return self.identity.embedding if self.sequence is None else self.sequence


@dataclass(frozen=True)
class ControlMap:
    """A map for an extra ControlNet, at the canvas' size."""

    kind: ControlKind
    picture: Image.Image
    strength: float
    start: float
    end: float
    net: str = ""
    """The user's own ControlNet for it; empty: the model's."""


@dataclass(frozen=True)
class Prepared:
    """Everything that the pipelines need."""

    request: GenerationRequest
    """With model, size, seed, steps, guidance and scheduler filled in."""
    recipe: Recipe
    words: Words
    people: tuple[Posed, ...]
    keypoint_map: Image.Image
    controls: tuple[ControlMap, ...]
    seeds: tuple[int, ...]
    width: int
    height: int
    strength: float = 1.0
    init: Image.Image | None = None
    mask: Image.Image | None = None
    """L: 255 in the squares of all latents that may change."""
    kept: masks.Kept | None = None
    """What of the start picture stays, where not all of it may change."""
    control_mask: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Literal["text", "image", "inpaint"]:
        """Which pipeline it takes."""
        if self.init is None:
            return "text"
        return "image" if self.mask is None else "inpaint"

    @property
    def control_nets(self) -> tuple[tuple[ControlKind, str], ...]:
        """The extra ControlNets in order: kind of map, and the user's own network for it or nothing."""
        return tuple((control.kind, control.net) for control in self.controls)


def filled(
    request: GenerationRequest, model: str, recipe: Recipe, size: tuple[int, int], settings: Settings
) -> GenerationRequest:
    """The request with everything decided that it left open.

    Raises:
        RequestError: it asks for more than the host allows.
    """
    if request.images > settings.max_images:
        raise RequestError(f"At most {settings.max_images} pictures at once are allowed here.")
    if max(size) > settings.max_side:
        raise RequestError(f"Sides of at most {settings.max_side} pixels are allowed here.")
    if recipe.steps > settings.max_steps:
        raise RequestError(f"At most {settings.max_steps} steps are allowed here.")
    return request.model_copy(
        update={
            "model": model,
            "width": size[0],
            "height": size[1],
            "seed": secrets.randbelow(SEEDS) if request.seed is None else request.seed,
            "steps": recipe.steps,
            "guidance": recipe.guidance,
            "scheduler": recipe.scheduler,
        }
    )


def sampled(request: GenerationRequest, recipe: Recipe) -> Recipe:
    """The preset's recipe with the user's own steps, guidance and scheduler on top."""
    changed: dict[str, Any] = {}
    if request.steps is not None:
        changed["steps"] = request.steps
    if request.guidance is not None:
        changed["guidance"] = request.guidance
    if request.scheduler != "auto":
        changed["scheduler"] = request.scheduler
        if request.scheduler != recipe.scheduler:
            changed["options"] = {}
    return replace(recipe, **changed)


def words(
    request: GenerationRequest, settings: Settings, learned: frozenset[str] = frozenset(), *, elsewhere: bool = False
) -> Words:
    """Prompt and negative prompt in the request's style, not yet encoded.

    `learned`: all words that the model knows; empty: any. The others are left out and counted in `unknown`.
    `elsewhere`: as in `wording.understood`.
    """
    known = styles.load(settings.style_folders)
    style = styles.find(request.style, known)

    def plain_words(text: str) -> str:
        # The user's own words are plain already; a style's may come from another tool as well.
        return wording.taken_apart(text, request, settings, elsewhere=elsewhere).text

    plain = PLAIN_PROMPT if style is styles.NO_STYLE else PLAIN_SUBJECT
    asked, negative = request.prompt.strip(), request.negative_prompt.strip()
    if learned:
        subject, unknown = vocabulary.known_part(asked, learned)
        look, _ = vocabulary.known_part(style.short, learned)
        prompt = ", ".join(part for part in (look, subject or plain) if part)
        return Words(prompt, vocabulary.known_part(negative, learned)[0], unknown=tuple(unknown))
    prompt, negative = styles.apply(request.style, asked or plain, negative, known)
    return Words(plain_words(prompt).strip(), plain_words(negative).strip())


def prepare(
    request: GenerationRequest,
    *,
    model: str,
    family: Family,
    defaults: Defaults,
    recipe: Recipe,
    people: People,
    settings: Settings,
    text: Words,
) -> Prepared:
    """Photos, views, regions, maps and sizes of a request.

    Raises:
        RequestError: a picture cannot be read or shows no face, or nobody was given.
    """
    notes = _left_out(text) + _resting(request)
    start = StartPicture.of(request)
    notes += start.notes if start else ()
    pose = _pose(request, people, notes)
    size = _size(request, family, defaults, start.picture if start else None, pose, settings)
    scene = start.on_canvas(size, request.upscale) if start else None
    if request.person:
        posed = _several(request, people, size, family, notes)
    else:
        posed = (_one(request, people, size, family, pose, scene, notes),)
    notes += _turned_too_far([person.view for person in posed], defaults)
    posed = tuple(_seen(person, request, defaults, text) for person in posed)
    complete = filled(request, model, recipe, size, settings)
    if scene is not None and recipe.steps * request.strength < 1:
        steps = "one step" if recipe.steps == 1 else f"{recipe.steps} steps"
        notes.append(f"A change of {request.strength:g} is too small for {steps}: one smaller step was drawn.")
    seed = complete.seed or 0
    return Prepared(
        request=complete,
        recipe=recipe,
        words=text,
        people=posed,
        keypoint_map=keypoint_map.draw_many(*size, [person.keypoints for person in posed]),
        controls=tuple(
            _control(control, size, settings.models, notes)
            for control in request.control
            if control.start < control.end
        ),
        seeds=tuple((seed + number) % SEEDS for number in range(request.images)),
        width=size[0],
        height=size[1],
        strength=request.strength,
        init=scene.picture if scene else None,
        mask=scene.mask if scene else None,
        kept=scene.kept if scene else None,
        control_mask=_free_background(posed, size) if request.enhance_non_face else None,
        notes=tuple(notes),
    )


def _seen(person: Posed, request: GenerationRequest, defaults: Defaults, text: Words) -> Posed:
    """The person with the photo's looks beside the embedding, where the model takes them.

    Words win over the photo: of what they speak is left free.
    """
    if defaults.appearance is None:
        return person
    amount = defaults.appearance if request.appearance is None else request.appearance
    spoken = {part for part, meant in defaults.frees.items() if vocabulary.mentions(text.prompt, meant)}
    return replace(person, sequence=person.identity.sequence(amount, spoken | set(request.free)))


def _left_out(text: Words) -> list[str]:
    if not text.unknown:
        return []
    return [f"Left out, because this preview model never learned them: {', '.join(text.unknown)}."]


def _pose(request: GenerationRequest, people: People, notes: list[str]) -> Image.Image | None:
    """The pose photo, turned so that its largest face stands upright."""
    if request.pose is None:
        return None
    picture = open_photo(request.pose)
    quarters = 0 if request.view is not None else turns.quarters_of(people.faces(request.pose))
    if quarters:
        notes.append("The pose photo was turned upright.")
    return turns.turned_picture(picture, quarters)


def _resting(request: GenerationRequest) -> list[str]:
    """What never acts, because its window ends where it starts."""
    windows = [("IdentityNet", request.identity_start, request.identity_end)]
    windows.append(("Guidance", request.guidance_start, request.guidance_end))
    windows += [(f"The {control.kind} control", control.start, control.end) for control in request.control]
    return [f"{what} did nothing: its window ends where it starts." for what, start, end in windows if start == end]


def _size(
    request: GenerationRequest,
    family: Family,
    defaults: Defaults,
    init: Image.Image | None,
    pose: Image.Image | None,
    settings: Settings,
) -> tuple[int, int]:
    """The canvas: as asked for; in the shape of the start picture or pose photo; or the model's own.

    Pocket draws single faces, so among several people each gets as much room as one alone.
    """
    if family == "pocket" and request.person and request.width is None and request.height is None:
        regions = [person.region for person in request.person]
        across, down = min(r.x1 - r.x0 for r in regions), min(r.y1 - r.y0 for r in regions)
        side = min(defaults.width * MOST_ROOM, settings.max_side)
        return (
            min(side, int(defaults.width / across) // 8 * 8),
            min(side, int(defaults.height / down) // 8 * 8),
        )
    shape = init or (pose if family != "pocket" else None)
    if request.width is None and request.height is None and shape is not None:
        return framing.like_picture(shape.size, defaults.width, defaults.height, settings.max_side)
    return request.width or defaults.width, request.height or defaults.height


def _subject(request: GenerationRequest, people: People, notes: list[str]) -> Subject:
    if not request.face:
        raise RequestError("Add a photo of a face first: --face photo.jpg.")
    subject = people.subject(request.face, request.face_index, request.combine)
    notes += subject.notes
    if not request.blend_with:
        return subject
    other = people.subject(request.blend_with, None, request.combine)
    notes += other.notes
    return replace(subject, identity=subject.identity.blend(other.identity, request.blend))


def _one(
    request: GenerationRequest,
    people: People,
    size: tuple[int, int],
    family: Family,
    pose: Image.Image | None,
    scene: Scene | None,
    notes: list[str],
) -> Posed:
    """The only person, at the age that the photo shows."""
    subject = _subject(request, people, notes)
    return replace(_standing(subject, request, people, size, family, pose, scene, notes), age=_age(subject))


def _standing(
    subject: Subject,
    request: GenerationRequest,
    people: People,
    size: tuple[int, int],
    family: Family,
    pose: Image.Image | None,
    scene: Scene | None,
    notes: list[str],
) -> Posed:
    """Where the only person stands: view before pose photo before start picture before the photo's own pose.

    Where only a part of the start picture may change, the person stands there.
    """
    usual = views.keypoints_for(View(), None, *size, framing=family)
    place = request.place
    if request.view is not None:
        if pose is not None:
            notes.append("The view was used; the pose photo was not needed.")
        if place is None and scene is not None and scene.painted is not None:
            face = _changing_face(scene, request, people)
            box = scene.painted if face is None else framing.face_box(scene.move.points(face.keypoints))
            place = framing.in_box(box, *size, _share(usual, size))
        return _in_view(subject.identity, request.view, place, size, family)
    if pose is not None and request.pose is not None:
        face = people.largest(request.pose)
        face = turns.turned_face(face, turns.quarters_of([face]), people.seen(request.pose).size)
        if place is None and family != "pocket":
            # As the original: the face stands where it stands in the pose photo.
            _, move = framing.cover(pose, *size)
            return _moved(subject.identity, face, move, None, size)
        return _moved(subject.identity, face, framing.onto(face.keypoints, usual), place, size)
    if scene is not None and place is None:
        face = _changing_face(scene, request, people)
        if face is not None:
            return _moved(subject.identity, face, scene.move, None, size)
        if scene.painted is None:
            notes.append("The start picture shows no face: the new one stands in its middle. Use place to move it.")
        else:
            place = framing.in_box(scene.painted, *size, _share(usual, size))
            notes.append("The painted part shows no face: the new one stands in its middle. Use place to move it.")
    if subject.face is None:
        return _in_view(subject.identity, View(), place, size, family)
    move = framing.onto(subject.face.keypoints, usual)
    return _moved(subject.identity, subject.face, move, place, size)


def _changing_face(scene: Scene, request: GenerationRequest, people: People) -> Face | None:
    """The largest face of the start picture whose middle may change; None: there is none."""
    found = people.faces(request.init)
    changing = [face for face in found if scene.may_change(scene.move.points(face.keypoints).mean(0))]
    return max(changing, key=area, default=None)


def _share(usual: Keypoints, size: tuple[int, int]) -> float:
    """The usual face's longer side as a share of the canvas' shorter one."""
    x0, y0, x1, y1 = framing.face_box(usual)
    return max(x1 - x0, y1 - y0) / min(size)


def _turned_too_far(directions: Sequence[View | None], defaults: Defaults) -> list[str]:
    """One sentence where a head is to turn further than the model is known to manage."""
    far = any(abs(getattr(view, axis)) > most for view in directions if view for axis, most in defaults.turns.items())
    if not far:
        return []
    known = ", ".join(f"{axis} {most:g}°" for axis, most in defaults.turns.items())
    return [f"This model turns heads well up to {known}: further, expect less likeness."]


def _several(
    request: GenerationRequest, people: People, size: tuple[int, int], family: Family, notes: list[str]
) -> tuple[Posed, ...]:
    usual = views.keypoints_for(View(), None, *size, framing=family)
    share = _share(usual, size)

    def posed(number: int, person: Person) -> Posed:
        subject = people.subject([person.face], None, request.combine)
        notes.extend(f"Person {number}: {note[0].lower()}{note[1:]}" for note in subject.notes)
        place = framing.in_region(person.region, *size, share)
        if person.view is not None or subject.face is None:
            found = _in_view(subject.identity, person.view or View(), place, size, family)
        else:
            move = framing.onto(subject.face.keypoints, usual)
            found = _moved(subject.identity, subject.face, move, place, size)
        return replace(found, mask=framing.region_mask(person.region, *size), age=_age(subject))

    everybody = tuple(posed(number, person) for number, person in enumerate(request.person, start=1))
    if len(everybody) > 1 and family == "pocket":
        notes.append("Pocket was trained on single faces: several people are an experiment with it.")
    return everybody


def _age(subject: Subject) -> float | None:
    return None if subject.face is None else subject.face.age


def _in_view(identity: Identity, view: View, place: Place | None, size: tuple[int, int], family: Family) -> Posed:
    points = views.keypoints_for(view, place, *size, framing=family)
    return Posed(identity, points, framing.face_box(points), view)


def _moved(identity: Identity, face: Any, move: framing.Move, place: Place | None, size: tuple[int, int]) -> Posed:
    points = framing.placed(move.points(face.keypoints), place, *size)
    box = framing.face_box(points) if place else move.box(face.box)
    return Posed(identity, points, box, None)


def _control(control: Control, size: tuple[int, int], models: Path, notes: list[str]) -> ControlMap:
    from instantid_demo.controls import maps, ready

    picture = framing.cover(ready.read(control.image) if control.is_map else open_photo(control.image), *size)[0]
    drawn = picture if control.is_map else maps.draw(control.kind, picture, models)
    if control.is_map and not drawn.getbbox():
        notes.append(f"The {control.kind} map is black all over: it shows nothing to follow.")
    return ControlMap(control.kind, drawn.resize(size), control.strength, control.start, control.end, control.net)


def _free_background(posed: Sequence[Posed], size: tuple[int, int]) -> np.ndarray:
    """1 in the faces' boxes, 0 elsewhere."""
    return np.max([framing.box_mask(person.box, *size) for person in posed], axis=0)
