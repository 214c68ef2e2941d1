"""The engine: one model in memory, one request at a time, a stream of progress and a result for each.

    engine = shared(Settings())
    for event in engine.run(GenerationRequest(face=("me.jpg",), prompt="in the snow")):
        ...  # Progress, Progress, …, Result

A request runs in a thread of its own: who only stops listening loses his own request and nothing else.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from instantid_demo.jobs import Cancelled, Job, Line
from instantid_demo.request import GenerationRequest, Likeness, Progress, RequestError, Result
from instantid_demo.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from instantid_demo.faces.face import Face
    from instantid_demo.faces.identity import Identity
    from instantid_demo.loaded import Loaded
    from instantid_demo.people import People
    from instantid_demo.prepare import Prepared, Words
    from instantid_demo.presets import Family
    from instantid_demo.sources import Source

log = logging.getLogger(__name__)
Emit = Callable[[Progress], None]
REMEMBERED_TEXTS = 32
REMEMBERED_PHOTOS = 64

__all__ = ["Badge", "Cancelled", "Engine", "Job", "shared"]


_building = threading.Lock()
_engines: list["Engine"] = []


def shared(settings: Settings) -> "Engine":
    """The process's one engine, built at the first call; later calls get the same whatever their settings."""
    with _building:
        if not _engines:
            _engines.append(Engine(settings))
        return _engines[0]


@dataclass(frozen=True)
class Badge:
    """What a model is, for the page's head."""

    family: "Family"
    label: str
    research_only: bool
    """Its face recogniser and weights are licensed for research only."""


class Engine:
    """Turns requests into pictures. Building it is free; networks are read when the first request needs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._line = Line(settings.queue_size)
        self._loaded: Loaded | None = None
        self._people: dict[str, People] = {}
        self._people_lock = threading.Lock()
        self._texts: Any = None

    # -- asking -------------------------------------------------------------------------------------------------

    def run(self, request: GenerationRequest, *, job: Job | None = None) -> Iterator[Progress | Result]:
        """Signs of life while the request waits and runs, and its result at last.

        Closing the iterator cancels the request, as `job.cancel()` does.

        Raises:
            RequestError: the user's side is at fault.
            Cancelled: the job was taken back.
        """
        job = job or Job()
        events: SimpleQueue[Progress | Result | BaseException] = SimpleQueue()
        worker = threading.Thread(target=self._work, args=(request, job, events.put), name="request", daemon=True)
        worker.start()
        try:
            while True:
                event = events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Result):
                    return
        except GeneratorExit:
            job.cancel()
            raise

    def generate(
        self,
        request: GenerationRequest,
        *,
        job: Job | None = None,
        told: Callable[[Progress], None] = lambda progress: None,
    ) -> Result:
        """The result of a request; `told` hears the progress. Raises as `run`."""
        for event in self.run(request, job=job):
            if isinstance(event, Result):
                return event
            told(event)
        raise AssertionError("a run ends with a result or an error")

    def analyse(self, photo: Any, model: str = "auto") -> list["Face"]:
        """The faces of a photo (path, bytes or PIL) from left to right, found by the model's own recogniser."""
        from instantid_demo import sources

        return list(self._people_of(sources.resolve(model, self.settings)).faces(photo))

    def report(self, photo: Any, model: str = "auto") -> dict[str, Any]:
        """The faces of a photo as the command line and the API tell of them: JSON-ready, in the file's own pixels."""
        from instantid_demo import sources

        people = self._people_of(sources.resolve(model, self.settings))
        seen = people.seen(photo)
        faces = [
            {
                "box": [round(float(value), 1) for value in face.box * seen.scale],
                "score": round(face.score, 4),
                "keypoints": [[round(float(x), 1), round(float(y), 1)] for x, y in face.keypoints * seen.scale],
                "pose": {name: round(value, 1) for name, value in face.pose.model_dump().items()},
            }
            for face in seen.faces
        ]
        return {"faces": faces}

    def identity(self, photo: "Path", model: str = "auto") -> "Identity":
        """Who the largest face of a photo is, or an identity card or embedding, to the model's own recogniser.

        Raises:
            RequestError: there is no face, or the file is something else.
        """
        from instantid_demo import sources

        people = self._people_of(sources.resolve(model, self.settings))
        return people.subject([photo], None, "average").identity

    def waiting(self) -> int:
        """Requests in the line, the running one among them."""
        return len(self._line)

    @property
    def loaded_model(self) -> str | None:
        """The label of the model in memory."""
        return self._loaded.source.label if self._loaded else None

    def badge(self, model: str = "auto") -> "Badge":
        """What the page says about a model before it is loaded.

        Raises:
            RequestError: the model is not here.
        """
        from instantid_demo import sources

        source = sources.resolve(model, self.settings)
        return Badge(source.family, source.label, source.recogniser == "antelopev2")

    def doctor(self) -> Mapping[str, Any]:
        """What is installed, which device, which models are here, and what to do next."""
        from instantid_demo import doctor

        return doctor.examine(self.settings)

    def warm_up(self, model: str = "auto") -> None:
        """Reads a model into memory ahead of the first request; does nothing where others wait or it is not here."""
        if len(self._line):
            return
        try:
            with self._line.turn(Job(), lambda before: None):
                self._ensure(model, lambda progress: None)
        except RequestError as error:
            log.info("not loaded ahead: %s", error)

    def unload(self) -> None:
        """Frees the model's memory, once the running request has ended."""
        with self._line.turn(Job(), lambda before: None):
            self._drop()

    # -- working ------------------------------------------------------------------------------------------------

    def _work(
        self, request: GenerationRequest, job: Job, emit: Callable[[Progress | Result | BaseException], None]
    ) -> None:
        try:
            with self._line.turn(job, lambda before: emit(_queued(before))):
                emit(self._answer(request, job, emit))
        except BaseException as error:  # handed to whoever iterates, in whose thread it is raised
            emit(error)

    def _answer(self, request: GenerationRequest, job: Job, emit: Emit) -> Result:
        """The request's result, tried in leaner ways while memory is short."""
        notes: list[str] = []
        while True:
            try:
                result = self._attempt(request, job, emit)
                return result.model_copy(update={"notes": (*result.notes, *notes)})
            except Exception as error:
                why, how = self._other_way(error)
            emit(Progress(stage="loading", message=f"{why}: trying again with {how}."))
            notes.append(f"{why}, so {how}.")

    def _other_way(self, error: Exception) -> tuple[str, str]:
        """Makes the model run another way after `error`: why and how, in words. Raises where there is none."""
        from instantid_demo.backends.openvino import BackendError
        from instantid_demo.memory import is_out_of_memory

        if self._loaded is not None and isinstance(error, BackendError):
            log.warning("OpenVINO failed: %s", error)
            self._loaded.backend = None
            return "OpenVINO failed on this processor", "PyTorch"
        if not is_out_of_memory(error):
            raise error
        if self._loaded is None:
            raise RequestError(_TOO_LARGE_TO_LOAD) from error
        leaner = self._loaded.lean()
        if not leaner:
            self._drop()
            raise RequestError(_TOO_LARGE) from error
        return "Memory was short", leaner

    def _attempt(self, request: GenerationRequest, job: Job, emit: Emit) -> Result:
        from instantid_demo import guards, render, second_pass, wording
        from instantid_demo import prepare as preparing

        clock = Clock()
        guards.check_words(request, preparing.words(request, self.settings), self.settings)
        request, said = wording.understood(request, self.settings)
        # Once more: what other tools' signs kept apart may have become a word.
        guards.check_words(request, preparing.words(request, self.settings), self.settings)
        with clock("load"):
            loaded = self._ensure(request.model, emit)
            picture_filter = guards.picture_filter(loaded.source.family, self.settings)
        job.check()
        recipe, notes = loaded.recipe(request)
        notes = [*said, *notes]
        emit(Progress(stage="faces", message="Looking at the faces …"))
        with clock("faces"):
            people = self._people_of(loaded.source)
            prepared = preparing.prepare(
                request,
                model=loaded.source.name,
                family=loaded.source.family,
                defaults=loaded.defaults,
                recipe=preparing.sampled(request, recipe),
                people=people,
                settings=self.settings,
                text=preparing.words(request, self.settings, loaded.defaults.words),
            )
            guards.check_people(prepared, self.settings)
        job.check()
        with loaded.adapted(prepared.request, prepared.recipe, lambda said: emit(_loading(said))) as more:
            notes += more
            with clock("text"):
                words, more = self._encoded(loaded, prepared)
                prepared = replace(prepared, words=words)
                notes += more
            with clock("pictures"):
                pictures = render.render(loaded, prepared, job, emit)
            if request.face_detail:
                with clock("face detail"):
                    pictures, more = second_pass.refine(loaded, people, prepared, pictures, job, emit)
                    notes += more
        job.check()
        emit(Progress(stage="checking", message="Comparing the faces …"))
        with clock("checking"):
            likeness = tuple(self._likeness(people, prepared, picture) for picture in pictures)
            pictures, blocked, more = guards.check_pictures(pictures, picture_filter)
            notes += more
        return Result(
            pictures=tuple(pictures),
            seeds=prepared.seeds,
            likeness=likeness,
            seconds=clock.seconds(),
            request=prepared.request,
            model_name=loaded.source.label,
            notes=(*prepared.notes, *notes),
            blocked=blocked,
            kept=prepared.kept,
        )

    def _ensure(self, model: str, emit: Emit) -> "Loaded":
        """The model in memory; another one makes room first."""
        from instantid_demo import quiet, sources
        from instantid_demo.loaded import Loaded

        source = sources.resolve(model, self.settings)
        if self._loaded is None or self._loaded.source != source:
            sources.require_complete(source, self.settings)
            quiet.libraries()
            self._drop()
            self._loaded = Loaded(source, self.settings, lambda said: emit(_loading(said)))
        return self._loaded

    def _drop(self) -> None:
        if self._loaded is None:
            return
        from instantid_demo.memory import free_memory

        self._loaded, self._texts = None, None
        free_memory()

    def _people_of(self, source: "Source") -> "People":
        from instantid_demo.people import People, recogniser

        with self._people_lock:
            key = f"{source.recogniser}@{source.folder if source.recogniser == 'dlib' else ''}"
            if key not in self._people:
                self._people[key] = People(recogniser(source, self.settings), REMEMBERED_PHOTOS)
            return self._people[key]

    def _encoded(self, loaded: "Loaded", prepared: "Prepared") -> tuple["Words", list[str]]:
        """The words with their embeddings, remembered unless files may have changed what they say; and notes."""
        from instantid_demo.method import embeddings, prompts
        from instantid_demo.models import addons
        from instantid_demo.people import Recent

        said, skip = prepared.words, prepared.request.clip_skip
        files = embeddings.named(f"{said.prompt}\n{said.negative}", addons.embeddings(self.settings.models))
        learned, notes = embeddings.read_all(files, loaded.text)

        def encode() -> dict[str, Any]:
            # Other tools count from the last layer, 1; the pipelines count what is left out beyond their usual layer.
            beyond = None if skip is None else skip - (2 if loaded.source.architecture == "sdxl" else 1)
            return prompts.encode(loaded.text, said.prompt, said.negative, clip_skip=beyond, learned=learned)

        if prepared.request.lora or prepared.recipe.lora or files:
            return replace(said, embeddings=encode()), notes
        if self._texts is None:
            self._texts = Recent(REMEMBERED_TEXTS)
        return replace(said, embeddings=self._texts.get((said.prompt, said.negative, skip), encode)), notes

    def _likeness(self, people: "People", prepared: "Prepared", picture: "Image.Image") -> tuple[Likeness, ...]:
        from instantid_demo.faces import likeness

        found = people.match(picture, [person.keypoints for person in prepared.people])
        return tuple(
            likeness.compare(person.identity, face, person.view)
            for person, face in zip(prepared.people, found, strict=True)
        )


class Clock:
    """Wall-clock seconds by stage."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._stages[stage] = self._stages.get(stage, 0.0) + time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        """By stage, rounded to milliseconds; `total` among them."""
        total = time.perf_counter() - self._start
        return {stage: round(value, 3) for stage, value in {**self._stages, "total": total}.items()}


_TOO_LARGE_TO_LOAD = "There is not enough memory to load this model: close other programs, or use Pocket."
_TOO_LARGE = "There is not enough memory for this request: choose a smaller size, fewer pictures or Pocket."


def _queued(before: int) -> Progress:
    others = "1 request is" if before == 1 else f"{before} requests are"
    return Progress(stage="queued", done=0, total=before, message=f"{others} before yours.")


def _loading(said: str) -> Progress:
    return Progress(stage="loading", message=said)
