"""The stable endpoints for `gradio_client` and MCP: generate, group, faces, verify, styles. See docs/api.md.

Files come as uploads only. Everything else of a request comes as JSON under the names of its fields, of which those
that hold paths are refused: nobody may read the host's files through them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo import styles
from instantid_demo.jobs import Cancelled
from instantid_demo.request import ControlKind, GenerationRequest, Person, RequestError, Result, extra, region
from instantid_demo.ui import fields
from instantid_demo.ui.desk import STATEMENT, Desk, as_error, spoken
from instantid_demo.ui.showing import keep, run

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


class Api:
    """Registers the endpoints; draws nothing."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Column(visible=False):
            words = [
                gr.Textbox("", label="prompt"),
                gr.Textbox("none", label="style"),
                gr.Number(None, label="seed", precision=0),
                gr.Number(1, label="images", precision=0),
                gr.Dropdown(["quality", "fast", "draft"], value="quality", label="quality"),
                _json("settings", {"type": "object"}, {}),
            ]
            files = gr.File(label="files", file_count="multiple", file_types=["image"])
            report = gr.JSON(label="report")
            photo = gr.File(label="photo")
            more = gr.File(label="more_photos", file_count="multiple")
            # Gradio's own schema of several files points to definitions that MCP clients do not get.
            more.api_info = lambda: {"type": "array", "items": {"type": "object"}}  # type: ignore[method-assign]
            people = [photo, *(gr.File(label=f"photo_{number}") for number in (2, 3, 4))]
            others = [gr.File(label=name) for name in ("blend_with", "pose", "init", "mask", *CONTROLS)]
            one = gr.File(label="picture")
            boxes = _json("regions", {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, [])
            button = gr.Button()
        endpoint: dict[str, Any] = {"api_visibility": "public"}
        button.click(self.generate, [photo, *words, *others, more], [files, report], api_name="generate", **endpoint)
        button.click(self.group, [*people, boxes, *words], [files, report], api_name="group", **endpoint)
        button.click(self.faces, [one], report, api_name="faces", **endpoint)
        button.click(self.verify, [one], report, api_name="verify", **endpoint)
        button.click(self.styles, None, report, api_name="styles", **endpoint)

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
            seed: Whole number for a repeatable picture; empty for a random one.
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
        settings = dict(settings or {})
        tuned = settings.pop("controls", {})
        given = {
            "face": tuple(Path(file) for file in (photo, *(more_photos or ())) if file),
            "blend_with": (Path(blend_with),) if blend_with else (),
            "pose": pose,
            "init": init,
            "mask": mask,
            "control": _controls({"canny": canny, "depth": depth, "body": body}, tuned),
        }
        words = self._words(prompt, style, seed, images, quality, settings)
        yield from self._run(lambda: words | given, visitor)

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
            seed: Whole number for a repeatable picture; empty for a random one.
            images: How many pictures, 1 to 8.
            quality: "quality", "fast" or "draft".
            settings: More request fields by name.
        """

        photos = [file for file in (photo, photo_2, photo_3, photo_4) if file]

        def plain() -> dict[str, Any]:
            count = len(photos)
            boxes = regions or [[n / count, 0, (n + 1) / count, 1] for n in range(count)]
            if not isinstance(boxes, list) or len(boxes) != count:
                raise RequestError("Give one region x0, y0, x1, y1 for each photo.")
            people = [Person(face=Path(file), region=region(box)) for file, box in zip(photos, boxes, strict=True)]
            return self._words(prompt, style, seed, images, quality, settings) | {"person": tuple(people)}

        yield from self._run(plain, visitor)

    def faces(self, picture: str) -> dict[str, Any]:
        """Lists the faces in a photo from left to right: box, score, five keypoints and head direction.

        Args:
            picture: A photo.
        """
        return spoken(self.desk.engine.report)(Path(picture))

    def verify(self, picture: str) -> dict[str, Any]:
        """Tells where a picture comes from: its signed content credentials, its watermark and its settings.

        Args:
            picture: A PNG, JPEG or WebP file.
        """
        from instantid_demo.provenance import verify

        found = spoken(verify.verify)(Path(picture))
        return {
            "manifest": found.manifest,
            "watermark": found.watermark,
            "settings": found.settings,
            "words": found.words,
        }

    def styles(self) -> list[str]:
        """Lists the names of the looks that `style` takes."""
        return list(styles.load(self.desk.settings.style_folders))

    @staticmethod
    def _words(
        prompt: str, style: str, seed: int | None, images: int, quality: str, settings: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        more = dict(settings or {})
        if refused := sorted((REFUSED | NAMED) & more.keys()):
            raise as_error(RequestError(f"settings must not hold {', '.join(refused)}: use the parameters for it."))
        return more | {"prompt": prompt, "style": style, "seed": seed, "images": int(images), "quality": quality}

    def _run(self, plain: Any, visitor: gr.Request | None) -> Iterator[tuple[list[str] | None, dict[str, Any]]]:
        """The engine's answer as (files, report); reports of progress come before it, without files."""
        request = spoken(lambda: fields.request_of(plain() | {"consent": self.desk.consent(True)}))()
        with self.desk.job(visitor, alone=False) as job:
            try:
                for event in run(self.desk, [request], job):
                    if isinstance(event, Result):
                        made = keep(self.desk, [event], visitor)
                        yield made["files"], report_of(made)
                    else:
                        yield None, {"stage": event.stage, "done": event.done, "total": event.total}
            except Cancelled:
                yield None, {"stage": "cancelled"}
            except Exception as error:
                raise as_error(error) from error


def _controls(files: Mapping[str, str | None], tuned: Any) -> tuple[dict[str, Any], ...]:
    """The request's extra controls from uploads and from what `settings` says about them."""
    if not isinstance(tuned, Mapping) or not all(isinstance(entry, Mapping) for entry in tuned.values()):
        raise as_error(RequestError('controls must be an object such as {"canny": {"strength": 0.5}}.'))
    if unknown := sorted({*tuned} - {*CONTROLS} | {name for entry in tuned.values() for name in entry} - TUNED):
        raise as_error(RequestError(f"controls must not hold {', '.join(unknown)}."))
    return tuple(
        {"kind": CONTROLS[name], "image": Path(file), **tuned.get(name, {})} for name, file in files.items() if file
    )


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
