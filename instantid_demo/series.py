"""Several pictures of one request that differ in one thing: a turnaround of views, a strip from one person to another.

Each member is one ordinary request to the engine; the sheet is their pictures side by side.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

from instantid_demo.request import GenerationRequest, Progress, RequestError, Result, View

if TYPE_CHECKING:
    from instantid_demo.jobs import Job

MIN_STRIP, MAX_STRIP = 3, 9
TURNAROUND = (
    "three-quarter left",
    "slightly left",
    "front",
    "slightly right",
    "three-quarter right",
    "looking up",
    "looking down",
    "tilted left",
)
"""The views of a turnaround where they exist; others are taken in their order."""


def turnaround(request: GenerationRequest, views: Mapping[str, View]) -> list[GenerationRequest]:
    """One request per view, all with the same seed and no pose photo."""
    return [request.model_copy(update={"view": view, "pose": None, "images": 1}) for view in views.values()]


def strip(request: GenerationRequest, members: int) -> list[GenerationRequest]:
    """Requests that go from the first person (0) to the second (1) in `members` equal steps.

    Raises:
        RequestError: no second person, or a length that no strip has.
    """
    if not request.blend_with:
        raise RequestError("A strip needs two people: add a second photo.")
    if not MIN_STRIP <= members <= MAX_STRIP:
        raise RequestError(f"A strip has {MIN_STRIP} to {MAX_STRIP} pictures: choose a number between them.")
    shares = [index / (members - 1) for index in range(members)]
    return [request.model_copy(update={"blend": round(share, 4), "images": 1}) for share in shares]


def run(engine: Any, requests: list[GenerationRequest], job: "Job | None" = None) -> Iterator[Progress | Result]:
    """Runs the requests one after another with the first one's seed; yields every result as it is ready."""
    seed = requests[0].seed
    for index, request in enumerate(requests):
        for event in engine.run(request.model_copy(update={"seed": seed}), job=job):
            if isinstance(event, Result):
                seed = event.seeds[0]
                yield event
            else:
                yield event.model_copy(update={"message": f"{index + 1}/{len(requests)}"})


def sheet(results: list[Result], columns: int = 4, gap: int = 8) -> Result:
    """All first pictures of the results as one, row by row on white; the settings are the first result's."""
    from PIL import Image

    pictures: list[Image.Image] = [result.pictures[0] for result in results]
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    rows = ceil(len(pictures) / columns)
    canvas = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        canvas.paste(picture, (gap + column * (width + gap), gap + row * (height + gap)))
    return results[0].model_copy(
        update={
            "pictures": (canvas,),
            "kept": None,
            "seeds": results[0].seeds[:1],
            "likeness": (tuple(entry for result in results for entry in result.likeness[0]),),
            "blocked": (any(any(result.blocked) for result in results),),
            "seconds": {"total": sum(result.seconds.get("total", 0.0) for result in results)},
        }
    )
