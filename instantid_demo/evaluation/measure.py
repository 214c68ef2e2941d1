"""Runs portraits through the product's own engine and measures what comes out.

One picture per portrait: neutral words, one seed, the pose of the portrait itself. Judged by the model's own detector
and recogniser, beside the limits that these two set themselves, and by a second recogniser where one is here.
"""

import io
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from instantid_demo import flags, framing
from instantid_demo.evaluation import looks, obedience, scenes, scores
from instantid_demo.evaluation.embedders import Embedder, independent
from instantid_demo.evaluation.scenes import nearest
from instantid_demo.request import GenerationRequest, RequestError, Result, View

if TYPE_CHECKING:
    from instantid_demo.engine import Engine
    from instantid_demo.faces.face import Face

PROMPT = "a photo of a person"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
STYLED_PEOPLE = 8
"""Portraits drawn in every style, and with several seeds, where everything is measured."""
SEEDS = 4
PAIRS = 25
"""Pictures of two people, where everything is measured."""
Told = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured, and how."""

    model: str = "pocket"
    seed: int = 0
    full: bool = False
    limit: int | None = None
    embedder: Path | None = None
    quality: str = "quality"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """More request fields, such as a saving whose cost is to be measured."""


@dataclass
class Person:
    """One portrait and what became of it."""

    name: str
    picture: Image.Image
    reference: "Face"
    made: Image.Image
    wanted: np.ndarray
    """Requested keypoints `(5, 2)`, pixels of the made picture."""
    found: "Face | None"
    seconds: float
    blocked: bool
    request: GenerationRequest
    """As it ran."""
    own_crop: Image.Image = field(repr=False)
    """The portrait itself in the made picture's framing and size: what a perfect answer would look like."""


@dataclass
class Evaluation:
    """People with their pictures, and the report's figures as JSON-ready data."""

    people: list[Person]
    ranks: tuple[int | None, ...]
    figures: dict[str, Any]
    matched: np.ndarray
    mismatched: np.ndarray
    styled: dict[str, list[Image.Image]] = field(default_factory=dict)
    seeds: list[list[Image.Image]] = field(default_factory=list)


def portraits(folder: Path, limit: int | None = None) -> list[Path]:
    """The pictures of a folder by name.

    Raises:
        RequestError: no such folder, or fewer than two pictures in it.
    """
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}: give --portraits a folder of portraits.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)[:limit]
    if len(files) < 2:
        raise RequestError(f"{folder} holds {len(files)} pictures: at least 2 portraits are needed to compare people.")
    return files


def evaluate(engine: "Engine", files: Sequence[Path], plan: Plan, told: Told = lambda said: None) -> Evaluation:
    """Makes and measures one picture per portrait.

    Raises:
        RequestError: the model or the second recogniser is not here, or hardly any portrait shows a face.
    """
    from instantid_demo import sources

    source = sources.resolve(plan.model, engine.settings)
    judge = independent(source.recogniser, engine.settings, plan.embedder)
    engine.warm_up(plan.model)
    people: list[Person] = []
    unusable: list[str] = []
    for number, file in enumerate(files, 1):
        told(f"{number} of {len(files)}: {file.name}")
        person = _person(engine, file, plan, source.family)
        if person is None:
            unusable.append(file.name)
        else:
            people.append(person)
    if len(people) < 2:
        raise RequestError("Fewer than 2 of the portraits show a face: choose larger, clearer portraits.")
    references = np.stack([person.reference.embedding for person in people])
    made = scores.compare([_embedding(person.found) for person in people], references)
    errors = [scores.keypoint_error(person.found.keypoints, person.wanted) for person in people if person.found]
    told("Measuring the limits of detector and recogniser …")
    seen = [looks.compare(person.made, person.own_crop, person.wanted) for person in people]
    result = Evaluation(people, made.ranks, {}, made.matched, made.mismatched)
    result.figures = {
        "model": source.name,
        "model_name": source.label,
        "portraits": len(people),
        **made.summary(),
        "keypoint_error": round(statistics.fmean(errors), 4) if errors else None,
        # The first picture waits for libraries to load.
        "seconds_per_picture": round(statistics.fmean(person.seconds for person in people[1:]), 3),
        "portraits_without_a_face": unusable,
        "blocked_by_the_safety_filter": sum(person.blocked for person in people),
        "distributions": {
            "matched_cosine": scores.distribution(made.matched),
            "mismatched_cosine": scores.distribution(made.mismatched),
            "keypoint_error": scores.distribution(np.array(errors)),
            "seconds": scores.distribution(np.array([person.seconds for person in people])),
        },
        "recogniser": source.recogniser,
        "ceiling": _ceiling(engine, people, references, plan),
        "disturbed": _disturbed(engine, [person.made for person in people], references, plan),
        "detail": round(statistics.median(obedience.detail(person.made, person.own_crop) for person in people), 4),
        "looks": looks.summary(seen),
        "second_recogniser": _second(judge, people, seen),
        "settings": _settings(engine, people, plan),
    }
    if plan.full:
        result.figures |= _styles(engine, people, result, files, plan, told)
        result.figures |= _scenes(engine, people, files, plan, source.family, told)
    result.figures["people"] = [
        {
            "portrait": person.name,
            "rank": rank,
            "cosine": None if person.found is None else _cosine(person.found.embedding, person.reference.embedding),
            "seconds": round(person.seconds, 3),
        }
        for person, rank in zip(people, made.ranks, strict=True)
    ]
    return result


def request_for(file: Path, plan: Plan, **changes: Any) -> GenerationRequest:
    """The request of one portrait."""
    wish = {"model": plan.model, "face": (file,), "prompt": PROMPT, "seed": plan.seed, "quality": plan.quality}
    return flags.request({**wish, **plan.changes, **changes})


def second_picture(picture: Image.Image) -> Image.Image:
    """Another picture of the same person, as well as one can be had from the first: mirrored, half as large, dimmed."""
    small = ImageOps.mirror(picture).resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    return ImageEnhance.Brightness(small).enhance(0.7)


def disturbed(picture: Image.Image) -> Image.Image:
    """A picture mirrored, turned by 6 degrees and squeezed through a poor JPEG.

    A real likeness survives that. What only pleases one recogniser, as a model may learn that was trained against it,
    does not.
    """
    stream = io.BytesIO()
    turned = ImageOps.mirror(picture).rotate(6, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    turned.save(stream, "JPEG", quality=50)
    return Image.open(stream).convert("RGB")


def in_framing(picture: Image.Image, move: framing.Move, size: tuple[int, int]) -> Image.Image:
    """A picture moved onto a canvas of `size`; what lies outside of the picture repeats its border."""
    import cv2

    scale = min(move.scale, 1.0)
    # Shrinking first keeps the warp from skipping pixels.
    small = np.asarray(picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))))
    rest = (picture.width * move.scale / small.shape[1], picture.height * move.scale / small.shape[0])
    matrix = np.array([[rest[0], 0, move.shift[0]], [0, rest[1], move.shift[1]]], np.float32)
    return Image.fromarray(cv2.warpAffine(small, matrix, size, borderMode=cv2.BORDER_REPLICATE))


def _person(engine: "Engine", file: Path, plan: Plan, family: Any) -> Person | None:
    from instantid_demo.faces import turns, views
    from instantid_demo.faces.photo import open_photo
    from instantid_demo.people import area

    try:
        # Before anything else looks at the photo: the engine remembers faces, and finding them is part of its time.
        result = engine.generate(request_for(file, plan))
    except RequestError:
        if engine.analyse(file, plan.model):
            raise
        return None
    given, picture = max(engine.analyse(file, plan.model), key=area), open_photo(file)
    quarters = turns.quarters_of([given])
    reference, picture = turns.turned_face(given, quarters, picture.size), turns.turned_picture(picture, quarters)
    made = result.pictures[0]
    # The pose of the photo itself, brought to the model's usual framing: what the engine draws as keypoint map.
    move = framing.onto(reference.keypoints, views.keypoints_for(View(), None, made.width, made.height, framing=family))
    wanted = move.points(reference.keypoints)
    return Person(
        file.name,
        picture,
        reference,
        made,
        wanted,
        nearest(engine.analyse(made, plan.model), wanted),
        _seconds(result),
        any(result.blocked),
        result.request,
        in_framing(picture, move, made.size),
    )


def _seconds(result: Result) -> float:
    """Wall-clock seconds of a request, reading the model aside."""
    return result.seconds["total"] - result.seconds.get("load", 0.0)


def _ceiling(engine: "Engine", people: list[Person], references: np.ndarray, plan: Plan) -> dict[str, Any]:
    """What a perfect generator would score with this detector and recogniser."""
    second = [_largest(engine.analyse(second_picture(person.picture), plan.model)) for person in people]
    crops = [nearest(engine.analyse(person.own_crop, plan.model), person.wanted) for person in people]
    errors = [
        scores.keypoint_error(face.keypoints, person.wanted)
        for face, person in zip(crops, people, strict=True)
        if face is not None
    ]
    return {
        "second_picture": scores.compare([_embedding(face) for face in second], references).summary(),
        "own_crop": {
            **scores.compare([_embedding(face) for face in crops], references).summary(),
            "keypoint_error": round(statistics.fmean(errors), 4) if errors else None,
        },
        "disturbed": _disturbed(engine, [person.own_crop for person in people], references, plan),
        "look_alikes": scores.look_alikes(references),
    }


def _disturbed(
    engine: "Engine", pictures: Sequence[Image.Image], references: np.ndarray, plan: Plan
) -> dict[str, float | None]:
    """The comparison on disturbed pictures."""
    faces = [_largest(engine.analyse(disturbed(picture), plan.model)) for picture in pictures]
    return scores.compare([_embedding(face) for face in faces], references).summary()


def _second(judge: Embedder | None, people: list[Person], seen: Sequence[looks.Look]) -> dict[str, Any] | None:
    """The same comparison in another recogniser's eyes, on the model's own detections.

    Beside it what this judge says of the portrait itself in the picture's framing: as a thumbnail of 24 pixels, which
    a likeness must beat, and mirrored, which it cannot.
    """
    if judge is None:
        return None
    references = np.stack([judge.embed(person.picture, person.reference.keypoints) for person in people])
    queries = [None if person.found is None else judge.embed(person.made, person.found.keypoints) for person in people]
    floor = [judge.embed(looks.thumbnail(person.own_crop), person.wanted) for person in people]
    ceiling = [
        judge.embed(ImageOps.mirror(person.own_crop), _mirrored(person.wanted, person.own_crop.width))
        for person in people
    ]
    compared = scores.compare(queries, references)
    return {
        "name": judge.name,
        **compared.summary(),
        "thumbnail": scores.compare(floor, references).summary(),
        "mirrored": scores.compare(ceiling, references).summary(),
        "rank1_by_skin": _by_skin(seen, compared.ranks),
    }


def _mirrored(keypoints: np.ndarray, width: int) -> np.ndarray:
    """Keypoints `(5, 2)` in the mirror image of a picture `width` pixels wide."""
    swapped = keypoints[[1, 0, 2, 4, 3]].copy()
    swapped[:, 0] = width - 1 - swapped[:, 0]
    return swapped


def _by_skin(seen: Sequence[looks.Look], ranks: Sequence[int | None]) -> dict[str, dict[str, float]]:
    """Rank-1 and number of people by the light of the portrait's cheeks."""
    hits_of = {
        name: [rank == 0 for rank, look in zip(ranks, seen, strict=True) if look.tone == name] for name in looks.TONES
    }
    return {
        name: {"people": len(hits), "rank1": round(statistics.fmean(hits), 4)} for name, hits in hits_of.items() if hits
    }


def _styles(
    engine: "Engine", people: list[Person], result: Evaluation, files: Sequence[Path], plan: Plan, told: Told
) -> dict[str, Any]:
    """Obedience to every style, and how much seeds differ while the person stays the same."""
    from instantid_demo import styles

    by_name = {file.name: file for file in files}
    chosen = people[:: max(1, len(people) // STYLED_PEOPLE)][:STYLED_PEOPLE]
    plain = [person.made for person in chosen]
    judged: dict[str, Any] = {}
    for style in styles.load(engine.settings.style_folders):
        if style not in obedience.RULES:
            continue
        told(f"style {style}")
        styled = [
            engine.generate(request_for(by_name[person.name], plan, style=style, prompt="")).pictures[0]
            for person in chosen
        ]
        result.styled[style] = styled
        judged[style] = obedience.judge(style, styled, plain)
    told("several seeds")
    distances, same = [], []
    for person in chosen:
        pictures = list(engine.generate(request_for(by_name[person.name], plan, images=SEEDS)).pictures)
        result.seeds.append(pictures)
        distances.append(obedience.difference(pictures))
        faces = [nearest(engine.analyse(picture, plan.model), person.wanted) for picture in pictures]
        known = [face.embedding for face in faces if face is not None]
        same += [_cosine(a, b) for index, a in enumerate(known) for b in known[index + 1 :]]
    return {
        "styles": judged,
        "style_obedience": round(statistics.fmean(entry["obeyed"] for entry in judged.values()), 4) if judged else None,
        "diversity": {
            "lab_distance_between_seeds": round(statistics.fmean(distances), 2),
            "cosine_between_seeds": round(statistics.fmean(same), 4) if same else None,
        },
    }


def _scenes(
    engine: "Engine", people: list[Person], files: Sequence[Path], plan: Plan, family: Any, told: Told
) -> dict[str, Any]:
    """Turned heads, and two people in one picture."""
    by_name = {file.name: file for file in files}
    ask = {"model": plan.model, "prompt": PROMPT, "seed": plan.seed, "quality": plan.quality}
    told("turned heads")
    few = people[:: max(1, len(people) // STYLED_PEOPLE)][:STYLED_PEOPLE]
    turned = scenes.turned(engine, [by_name[p.name] for p in few], [p.reference.embedding for p in few], ask, family)
    told("two people in one picture")
    # Neighbours by name are alike in sex and often in looks; halves of the list are not, so pairs cross over.
    half = len(people) // 2
    mixed = [person for pair in zip(people[:half], people[half:], strict=False) for person in pair][: 2 * PAIRS]
    together = scenes.together(
        engine, [by_name[p.name] for p in mixed], [p.reference.embedding for p in mixed], ask, people[0].made.height
    )
    return {"views": turned, "group": together}


def _settings(engine: "Engine", people: list[Person], plan: Plan) -> dict[str, Any]:
    import torch

    width, height = people[0].made.size
    ran = people[0].request
    return {
        "prompt": PROMPT,
        "seed": plan.seed,
        "quality": plan.quality,
        "steps": ran.steps,
        "guidance": ran.guidance,
        "scheduler": ran.scheduler,
        "size": f"{width}x{height}",
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": engine.settings.device,
    }


def _embedding(face: "Face | None") -> np.ndarray | None:
    return None if face is None else face.embedding


def _largest(faces: Sequence["Face"]) -> "Face | None":
    from instantid_demo.people import area

    return max(faces, key=area) if faces else None


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return round(float(scores.unit(one) @ scores.unit(other)), 4)
