"""The stable endpoints for `gradio_client` and MCP: generate, group, faces, verify, styles. See docs/api.md.

Files come as uploads only. Everything else of a request comes as JSON under the names of its fields, of which those
that hold paths are refused: nobody may read the host's files through them. Arguments reach the handlers as they were
sent, and whatever is wrong with them is answered in one place, `answering`.
"""

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import ValidationError

from instantid_demo import styles
from instantid_demo.jobs import Cancelled
from instantid_demo.request import ControlKind, GenerationRequest, Person, Region, RequestError, Result, extra, region
from instantid_demo.ui.desk import STATEMENT, Desk
from instantid_demo.ui.showing import keep, run
from instantid_demo.ui.words import english

log = logging.getLogger(__name__)

NAMED = {"prompt", "style", "seed", "images", "quality"}
"""Fields that are parameters of their own."""
REFUSED = {name for name in GenerationRequest.model_fields if extra(name).get("private")} | {
    "person",
    "control",
    "consent",
}
"""Fields that hold paths, or a record that only the program makes."""


CONTROLS: dict[str, ControlKind] = {"canny": "canny", "depth": "depth", "body": "pose"}
"""Parameter -> the extra ControlNet that it feeds; `pose` is the head's already."""
TUNED = {"strength", "start", "end", "is_map", "net"}

_FLAG = re.compile(r"--([a-z][a-z-]*)")
_PATH = re.compile(r"(?<![\w:/.\\])(?:~|[A-Za-z]:)?(?:[\\/][^\\/\s:'\"“”]+)+[\\/]([^\\/\s:'\"“”,]+)")


def answering(handler: Callable[..., Any]) -> Callable[..., Any]:
    """An endpoint whose errors are one sentence each, for a program: no HTML, no flags, no folders of the host."""
    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def several(*values: Any, **named: Any) -> Iterator[Any]:
            try:
                yield from handler(*values, **named)
            except Exception as error:
                raise _answer(error) from error

        return several

    @wraps(handler)
    def one(*values: Any, **named: Any) -> Any:
        try:
            return handler(*values, **named)
        except Exception as error:
            raise _answer(error) from error

    return one


def _answer(error: Exception) -> gr.Error:
    said = english("error.ours")
    if isinstance(error, gr.Error):
        said = str(error.message)
    elif isinstance(error, RequestError):
        said = str(error)
    else:
        log.exception("a request of the API failed", exc_info=error)
    # The sentences were written for the command line as well.
    said = _FLAG.sub(lambda flag: "photo" if flag[1] == "face" else flag[1].replace("-", "_"), said)
    return gr.Error(_PATH.sub(r"\1", said), print_exception=False)


class Api:
    """Registers the endpoints; draws nothing."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Column(visible=False):
            words = [
                _as_sent(gr.Textbox("", label="prompt")),
                _as_sent(gr.Textbox("none", label="style")),
                _as_sent(gr.Number(None, label="seed", precision=0)),
                _as_sent(gr.Number(1, label="images", precision=0)),
                _as_sent(gr.Dropdown(["quality", "fast", "draft"], value="quality", label="quality")),
                _json("settings", {"type": "object"}, {}),
            ]
            files = gr.File(label="files", file_count="multiple", file_types=["image"])
            report = gr.JSON(label="report")
            photo = _upload("photo")
            more = _upload("more_photos", file_count="multiple")
            # Gradio's own schema of several files points to definitions that MCP clients do not get.
            more.api_info = lambda: {"type": "array", "items": {"type": "object"}}  # type: ignore[method-assign]
            people = [photo, *(_upload(f"photo_{number}") for number in (2, 3, 4))]
            others = [_upload(name) for name in ("blend_with", "pose", "init", "mask", *CONTROLS)]
            one = _upload("picture")
            boxes = _json("regions", {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, [])
            button = gr.Button()
        endpoint: dict[str, Any] = {"api_visibility": "public"}
        button.click(self.generate, [photo, *words, *others, more], [files, report], api_name="generate", **endpoint)
        button.click(self.group, [*people, boxes, *words], [files, report], api_name="group", **endpoint)
        button.click(self.faces, [one], report, api_name="faces", **endpoint)
        button.click(self.verify, [one], report, api_name="verify", **endpoint)
        button.click(self.styles, None, report, api_name="styles", **endpoint)

    @answering
    def generate(
        self,
        photo: str,
        prompt: str = "",
        style: str = "none",
        seed: int | None = None,
        images: int = 1,
        quality: str = "quality",
        settings: dict[str, Any] | None = None,
        blend_with: str | None = None,
        pose: str | None = None,
        init: str | None = None,
        mask: str | None = None,
        canny: str | None = None,
        depth: str | None = None,
        body: str | None = None,
        more_photos: list[str] | None = None,
        visitor: gr.Request | None = None,
    ) -> Iterator[tuple[list[str] | None, dict[str, Any]]]:
        """Makes new pictures of the person in a photo. By calling it you confirm that you may use this face.

        Args:
            photo: A photo of the person, an identity card (.safetensors), or another program's embedding (.npy, .pt).
            prompt: What the picture shows, such as "a portrait in a garden"; may be empty.
            style: Name of a look from the styles tool, or "none".
            seed: Whole number for a repeatable picture; empty or -1 for a random one.
            images: How many pictures, 1 to 8.
            quality: "quality", "fast" or "draft".
            settings: More request fields by name, such as {"view": {"yaw": 30}, "negative_prompt": "hat"}.
            blend_with: Photo of a second person to blend with; the share is the field "blend" of settings.
            pose: Photo whose head position is copied.
            init: Start picture into which the person is put; the field "strength" of settings says how much changes.
            mask: White where the start picture may change.
            canny: Picture whose edges the result follows; the field "controls" of settings tunes it, such as
                {"canny": {"strength": 0.5, "start": 0, "end": 1, "is_map": false}}.
            depth: Picture whose depth the result follows.
            body: Picture whose body pose the result follows.
            more_photos: Up to seven more photos of the same person; for programs, not over MCP.
        """
        _needs("photo", photo)
        settings = _object("settings", settings)
        tuned = settings.pop("controls", None)
        given = {
            "face": tuple(Path(file) for file in (photo, *(more_photos or ())) if file),
            "blend_with": (Path(blend_with),) if blend_with else (),
            "pose": pose,
            "init": init,
            "mask": mask,
            "control": _controls({"canny": canny, "depth": depth, "body": body}, tuned),
        }
        yield from self._run(_words(prompt, style, seed, images, quality, settings) | given, visitor)

    @answering
    def group(
        self,
        photo: str,
        photo_2: str,
        photo_3: str | None = None,
        photo_4: str | None = None,
        regions: list[list[float]] | None = None,
        prompt: str = "",
        style: str = "none",
        seed: int | None = None,
        images: int = 1,
        quality: str = "quality",
        settings: dict[str, Any] | None = None,
        visitor: gr.Request | None = None,
    ) -> Iterator[tuple[list[str] | None, dict[str, Any]]]:
        """Makes pictures of two to four people. By calling it you confirm that you may use these faces.

        Args:
            photo: Photo of the first person.
            photo_2: Photo of the second person.
            photo_3: Photo of the third person, if there is one.
            photo_4: Photo of the fourth person, if there is one.
            regions: One [x0, y0, x1, y1] per person in fractions of the picture; empty: side by side.
            prompt: What the picture shows; may be empty.
            style: Name of a look from the styles tool, or "none".
            seed: Whole number for a repeatable picture; empty or -1 for a random one.
            images: How many pictures, 1 to 8.
            quality: "quality", "fast" or "draft".
            settings: More request fields by name.
        """

        _needs("photo", photo)
        _needs("photo_2", photo_2)
        photos = [file for file in (photo, photo_2, photo_3, photo_4) if file]
        count = len(photos)
        boxes = regions or [[n / count, 0, (n + 1) / count, 1] for n in range(count)]
        if not isinstance(boxes, list) or len(boxes) != count:
            raise RequestError("regions: give one [x0, y0, x1, y1] for each photo.")
        people = tuple(Person(face=Path(file), region=_region(box)) for file, box in zip(photos, boxes, strict=True))
        yield from self._run(_words(prompt, style, seed, images, quality, settings) | {"person": people}, visitor)

    @answering
    def faces(self, picture: str) -> dict[str, Any]:
        """Lists the faces in a photo from left to right: box, score, five keypoints and head direction.

        Args:
            picture: A photo.
        """
        return self.desk.engine.report(Path(_needs("picture", picture)))

    @answering
    def verify(self, picture: str) -> dict[str, Any]:
        """Tells where a picture comes from: its signed content credentials, its watermark and its settings.

        Args:
            picture: A PNG, JPEG or WebP file.
        """
        from instantid_demo.provenance import verify

        settings = self.desk.settings
        found = verify.verify(Path(_needs("picture", picture)), settings.signing_certificate, settings.home)
        return {
            "manifest": found.manifest,
            "own": found.own,
            "watermark": found.watermark,
            "settings": found.settings,
            "words": found.words,
        }

    @answering
    def styles(self) -> list[str]:
        """Lists the names of the looks that `style` takes."""
        return list(styles.load(self.desk.settings.style_folders))

    def _run(
        self, values: Mapping[str, Any], visitor: gr.Request | None
    ) -> Iterator[tuple[list[str] | None, dict[str, Any]]]:
        """The engine's answer as (files, report); reports of progress come before it, without files."""
        request = _request_of({**values, "consent": self.desk.consent(True)})
        with self.desk.job(visitor, alone=False) as job:
            try:
                for event in run(self.desk, [request], job):
                    if not isinstance(event, Result):
                        yield None, {"stage": event.stage, "done": event.done, "total": event.total}
                        continue
                    if not event.pictures:
                        raise RequestError("No picture was made: give more steps, or more strength.")
                    made = keep(self.desk, [event], visitor)
                    yield made["files"], report_of(made)
            except Cancelled:
                yield None, {"stage": "cancelled"}


def _needs(name: str, file: str | None) -> str:
    """The upload of a parameter that cannot be left out."""
    if not file:
        raise RequestError(f"{name}: this picture is needed, give a file.")
    return file


def _object(name: str, value: Any) -> dict[str, Any]:
    """A copy of a JSON object; nothing is an empty one."""
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise RequestError(f'{name} must be an object such as {{"steps": 20}}, not {_short(value)}.')
    return dict(value)


def _words(prompt: Any, style: Any, seed: Any, images: Any, quality: Any, settings: Any) -> dict[str, Any]:
    """Request fields of the parameters that all pictures have, and of `settings`."""
    more = _object("settings", settings)
    if refused := sorted((REFUSED | NAMED) & more.keys()):
        raise RequestError(f"settings must not hold {', '.join(refused)}: use the parameters for it.")
    random = not isinstance(seed, (bool, str)) and seed == -1
    return more | {
        "prompt": prompt,
        "style": style,
        "seed": None if random else seed,
        "images": images,
        "quality": quality,
    }


def _request_of(values: Mapping[str, Any]) -> GenerationRequest:
    """The request of arguments as they were sent; what is null or empty is as the model has it.

    Raises:
        RequestError: with the first thing that does not fit, by the name of its field.
    """
    given = {name: value for name, value in values.items() if value is not None and value not in ("", (), [])}
    try:
        return GenerationRequest.model_validate(given)
    except ValidationError as error:
        raise RequestError(_in_words(error)) from error


def _region(box: Any) -> Region:
    try:
        return region(box)
    except RequestError as error:
        raise RequestError(f"regions: {error}") from error


def _in_words(error: ValidationError) -> str:
    """The first complaint of a validation as one sentence that names the field as programs know it."""
    first = error.errors(include_url=False)[0]
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    where = ".".join(str(part) for part in first["loc"])
    if not where:
        return f"{message}."
    if first["type"] == "extra_forbidden":
        return f"Extra inputs are not permitted: there is no field {where}."
    field = GenerationRequest.model_fields.get(str(first["loc"][0]))
    label = f"{field.title} ({where})" if field else where
    given = "" if first["type"] == "missing" else f", not {_short(first['input'])}"
    return f"{label}: {message}{given}."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _controls(files: Mapping[str, str | None], tuned: Any) -> tuple[dict[str, Any], ...]:
    """The request's extra controls from uploads and from what `settings` says about them."""
    entries = _object("controls", tuned)
    if not all(isinstance(entry, Mapping) for entry in entries.values()):
        raise RequestError('controls must be an object such as {"canny": {"strength": 0.5}}.')
    unknown = {*entries} - {*CONTROLS} | {name for entry in entries.values() for name in entry} - TUNED
    if unknown:
        raise RequestError(f"controls must not hold {', '.join(sorted(unknown))}.")
    return tuple(
        {"kind": CONTROLS[name], "image": Path(file), **entries.get(name, {})} for name, file in files.items() if file
    )


def _as_sent(component: Any) -> Any:
    """A component that hands on whatever was sent: Gradio's own conversions answer in Python's words."""
    component.preprocess = lambda payload: payload
    return component


def _upload(name: str, **more: Any) -> gr.File:
    """A file parameter that says its name where something else was sent."""
    made = gr.File(label=name, **more)
    schema, model, read = made.api_info(), made.data_model, made.preprocess

    def preprocess(payload: Any) -> Any:
        if payload is None or payload in ("", []):
            return None
        try:
            # As Gradio does it itself: only what was uploaded carries the mark that this asks for.
            return read(model.model_validate(payload, context={"validate_meta": True}))
        except ValidationError as error:
            raise _answer(RequestError(f"{name}: upload a file, as handle_file does.")) from error

    made.data_model = None
    made.preprocess = preprocess  # type: ignore[method-assign, assignment]
    made.api_info = lambda: schema  # type: ignore[method-assign]
    return made


def _json(label: str, schema: dict[str, Any], value: Any) -> gr.JSON:
    """A JSON parameter with its schema: Gradio's own says nothing, and MCP clients refuse that."""
    made = gr.JSON(value, label=label)
    made.api_info = lambda: schema  # type: ignore[method-assign]
    return made


def report_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """Seeds, likeness, seconds and notes of finished pictures."""
    return {
        "stage": "done",
        "seeds": made["seeds"],
        "likeness": made["likeness"],
        "blocked": made["blocked"],
        "seconds": made["seconds"],
        "notes": made["notes"][0] if made["notes"] else [],
        "consent": STATEMENT,
    }
