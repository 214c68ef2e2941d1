"""The Create tab: photo, words, look, head position, and everything else folded away."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo import series, styles
from instantid_demo.request import GenerationRequest, Lora, RequestError, extra
from instantid_demo.ui import fields
from instantid_demo.ui.choice import Option, picture_choice
from instantid_demo.ui.consent import Consents
from instantid_demo.ui.desk import INSTANT, QUIET, Desk, spoken
from instantid_demo.ui.extra_controls import ExtraControls
from instantid_demo.ui.head import Head, named_views, usual_size
from instantid_demo.ui.next_steps import NextSteps
from instantid_demo.ui.photos import Photos
from instantid_demo.ui.showing import Show
from instantid_demo.ui.start_picture import StartPicture
from instantid_demo.ui.words import span, style_word, tables, word

SHAPES: dict[str, tuple[float, float]] = {
    "square": (1, 1),
    "portrait": (7, 9),
    "tall": (9, 16),
    "landscape": (9, 7),
    "wide": (16, 9),
}


def style_options(desk: Desk) -> list[Option]:
    """Styles with their thumbnails; a user's own style without one gets a plain tile."""
    import base64

    found = []
    for key, style in styles.load(desk.settings.style_folders).items():
        file = desk.settings.assets / "styles" / f"{key.replace(' ', '-')}.webp"
        option: Option = {"id": key, "name": style.name, "word": style_word(key)}
        if file.is_file():
            option["picture"] = "data:image/webp;base64," + base64.b64encode(file.read_bytes()).decode()
        found.append(option)
    return found


class Create:
    """Builds the tab and holds its components; other tabs fill it with settings of older pictures."""

    def __init__(self, desk: Desk, consents: Consents, model: gr.State) -> None:
        """`model` holds the visitor's choice of model."""
        self.desk = desk
        self.model = model
        self.values: dict[str, Any] = {}
        """Components by the request field they stand for."""
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320, elem_classes="asking"):
                self.photos = Photos(desk, consents, model)
                self._what()
                self._how()
                self._go()
                self._folded()
            with gr.Column(scale=6, min_width=320, elem_classes="answering"):
                self.show = Show("create")
                self.next = NextSteps(desk)
                self._examples()
        self._events()

    # ---- building ----

    def _what(self) -> None:
        with gr.Column(elem_id="what", elem_classes="card"):
            gr.HTML(span("what.title", "h2"), elem_classes="card-title", apply_default_css=False)
            self.values["prompt"] = fields.component(
                "prompt", lines=2, max_lines=6, placeholder=word("prompt.placeholder"), info=None
            )
            self.values["style"] = picture_choice(
                style_options(self.desk), value="none", name_word="field.style", elem_id="styles", elem_classes="styles"
            )

    def _how(self) -> None:
        with gr.Column(elem_id="how", elem_classes="card"):
            self.values["quality"] = fields.component("quality", info=None)
            with gr.Row():
                self.shape = gr.Dropdown(
                    [(word("shape.auto"), "auto"), *((word(f"shape.{name}"), name) for name in SHAPES)],
                    value="auto",
                    label=word("shape.label"),
                    elem_id="shape",
                    min_width=120,
                )
                self.values["images"] = fields.component(
                    "images", info=None, maximum=self.desk.settings.max_images, min_width=120
                )

    def _go(self) -> None:
        with gr.Row(elem_classes="go-row"):
            self.go = gr.Button(word("generate"), variant="primary", elem_id="generate", elem_classes="go", scale=3)
            self.stop = gr.Button(word("cancel"), variant="stop", elem_id="cancel", visible=False, scale=1)

    def _folded(self) -> None:
        with gr.Accordion(word("view.title"), open=False, elem_id="view"):
            self.head = Head(self.desk)
        self.start = StartPicture(self.desk)
        with gr.Accordion(word("controls.title"), open=False, elem_id="controls"):
            self.controls = ExtraControls(self.desk)
        self.values |= {"combine": self.photos.combine, "strength": self.start.strength}
        with gr.Accordion(word("advanced.title"), open=False, elem_id="advanced") as self.advanced:
            self._advanced()
        with gr.Accordion(word("restore.title"), open=False, elem_id="restore"):
            self.restore = gr.File(
                label=word("restore.label"), file_types=["image"], height=110, elem_id="restore-file"
            )

    def _advanced(self) -> None:
        for group, names in itertools.groupby(
            (name for name in fields.advanced_fields() if name not in self.values),
            lambda name: str(extra(name)["group"]),
        ):
            gr.HTML(span(f"group.{group}", "h3"), elem_classes="group-title", apply_default_css=False)
            with gr.Row(elem_classes="settings-row"):
                for name in names:
                    self.values[name] = fields.component(name, min_width=200)
        gr.HTML(span("group.size", "h3"), elem_classes="group-title", apply_default_css=False)
        with gr.Row():
            for name in ("width", "height"):
                self.values[name] = fields.component(name, min_width=100)
        gr.HTML(span("group.seed", "h3"), elem_classes="group-title", apply_default_css=False)
        with gr.Row():
            self.values["seed"] = fields.component("seed", scale=3)
            self.random = gr.Button(word("seed.random"), size="sm", elem_id="random-seed", min_width=90)
        gr.HTML(span("group.model", "h3"), elem_classes="group-title", apply_default_css=False)
        self.loras = gr.Textbox(
            label=word("field.lora"), info=word("lora.help"), lines=2, elem_id="loras", placeholder="name:0.8"
        )

    def _examples(self) -> None:
        with gr.Column(elem_id="examples"):
            examples = self.desk.settings.assets / "examples"
            samples = [
                [str(examples / name), tables()["en"][prompt], style]
                for name, prompt, style in (
                    ("woman.jpg", "example.1", "film noir"),
                    ("man.jpg", "example.2", "watercolor"),
                    ("elder.jpg", "example.3", "neon"),
                )
                if (examples / name).is_file()
            ]
            self.examples = gr.Dataset(
                label=word("examples"),
                components=[gr.Image(visible=False), gr.Textbox(visible=False)],
                samples=[sample[:2] for sample in samples],
                type="index",
                elem_id="example-rows",
                visible=bool(samples),
            )
            self._samples = samples

    # ---- events ----

    @property
    def inputs(self) -> dict[str, Any]:
        """Every component that decides the picture, by the name under which `_request` gets its value."""
        return {
            "model": self.model,
            "loras": self.loras,
            **self.photos.inputs,
            **self.head.inputs,
            **self.start.inputs,
            **self.controls.inputs,
            **self.values,
        }

    def _events(self) -> None:
        width, height, seed = (self.values[name] for name in ("width", "height", "seed"))
        self.shape.input(self._sides, [self.shape], [width, height], **INSTANT)
        self.head.follow(width, height)
        self.random.click(None, None, [seed], js="() => null", **INSTANT)

        outputs = [*self.show.outputs, self.go, self.stop, *self.next.outputs]
        running: dict[str, Any] = QUIET | {"inputs_kwargs": self.inputs, "outputs": outputs}
        self.go.click(self._generate, **running)
        self.head.turnaround.click(self._turnaround, **running)
        self.next.vary.click(self._vary, **running)
        self.next.strengthen(self.values["adapter_strength"]).then(self._generate, **running)
        self.stop.click(self._cancel, None, [self.stop], **INSTANT)
        self.next.listen(self.show.made, self.photos.photo, seed, self.advanced, self.start)
        self.restore.upload(spoken(self._restore), [self.restore], self.fillable, **QUIET)
        self.examples.click(
            self._example, [self.examples], [self.photos.photo, self.values["prompt"], self.values["style"]], **QUIET
        )

    @property
    def fillable(self) -> list[Any]:
        """Components that settings of an older picture fill."""
        return [*self.values.values(), *self.head.fillable, self.loras]

    def fill(self, settings: Mapping[str, Any]) -> dict[Any, Any]:
        """Updates that put the settings of an older picture into the form; what they leave out becomes the default."""
        known = GenerationRequest.model_fields
        request = fields.request_of(settings)
        settings = request.public()
        updates = {component: settings.get(name, known[name].default) for name, component in self.values.items()}
        loras = (f"{lora.source}:{lora.weight:g}" for lora in request.lora)
        return updates | self.head.fill(settings) | {self.loras: "\n".join(loras)}

    # ---- handlers ----

    def _request(self, visitor: gr.Request, values: dict[str, Any]) -> GenerationRequest:
        return fields.request_of(
            {name: values[name] for name in self.values}
            | {"model": values["model"], "lora": lora_lines(values["loras"])}
            | self.photos.given(values)
            | self.head.given(values)
            | self.start.given(values, visitor)
            | self.controls.given(values)
        )

    def _generate(self, visitor: gr.Request, **values: Any) -> Iterator[dict[Any, Any]]:
        yield from self._play(visitor, values, lambda request: [request])

    def _vary(self, visitor: gr.Request, **values: Any) -> Iterator[dict[Any, Any]]:
        most = min(4, self.desk.settings.max_images)
        yield from self._play(
            visitor, values, lambda request: [request.model_copy(update={"seed": None, "images": most})]
        )

    def _turnaround(self, visitor: gr.Request, **values: Any) -> Iterator[dict[Any, Any]]:
        available = named_views()
        chosen = {name: available[name] for name in series.TURNAROUND if name in available}
        for name, view in available.items():
            if len(chosen) < len(series.TURNAROUND):
                chosen.setdefault(name, view)
        yield from self._play(visitor, values, lambda request: series.turnaround(request, chosen), as_sheet=True)

    def _play(
        self, visitor: gr.Request, values: dict[str, Any], requests_of: Any, *, as_sheet: bool = False
    ) -> Iterator[dict[Any, Any]]:
        request = spoken(self._request)(visitor, values)
        busy = {self.go: gr.update(interactive=False), self.stop: gr.update(visible=True, interactive=True)}
        idle = {self.go: gr.update(interactive=True), self.stop: gr.update(visible=False)}
        yield busy | self.next.hidden()
        with contextlib.closing(self.show.play(self.desk, requests_of(request), visitor, as_sheet=as_sheet)) as play:
            try:
                for update in play:
                    if self.show.made in update:
                        update |= idle | self.next.offered(update[self.show.made]["likeness"][0])
                    yield update
            except gr.Error:
                yield idle
                raise
            yield idle

    def _cancel(self, visitor: gr.Request) -> Any:
        self.desk.cancel(visitor)
        return gr.update(interactive=False)

    def _sides(self, shape: str) -> tuple[int | None, int | None]:
        width, height = usual_size(self.desk)
        return sides(shape, width * height)

    def _restore(self, file: str | None) -> Any:
        from instantid_demo.provenance import metadata

        if not file:
            return gr.skip()
        settings = metadata.restored(Path(file))
        gr.Success(span("restore.done"), title=span("restore.title"))
        if settings.names:
            gr.Info(span("restore.left_out", names=settings.names), title=span("restore.title"), duration=None)
        return self.fill(settings)

    def _example(self, index: int) -> tuple[Any, Any, Any]:
        photo, prompt, style = self._samples[index]
        return photo, prompt, style


def sides(shape: str, pixels: int) -> tuple[int | None, int | None]:
    """Width and height of a shape with about `pixels` pixels, in multiples of 8; None as the model has it."""
    if shape not in SHAPES:
        return None, None
    across, down = SHAPES[shape]
    unit = (pixels / (across * down)) ** 0.5
    return round(across * unit / 8) * 8, round(down * unit / 8) * 8


def lora_lines(text: str | None) -> tuple[Lora, ...]:
    """LoRAs from lines of `source:weight`; the weight may be left out.

    Raises:
        RequestError: a weight is no number.
    """
    found = []
    for line in (text or "").splitlines():
        if not line.strip():
            continue
        source, colon, weight = line.strip().rpartition(":")
        if not colon:
            source, weight = line.strip(), "1"
        try:
            found.append(Lora(source=source, weight=float(weight)))
        except ValueError:
            raise RequestError(f"“{line.strip()}” is no LoRA: write name:weight, such as name:0.8.") from None
    return tuple(found)
