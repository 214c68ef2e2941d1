"""The Create tab: photo, words, look, head position, and everything else folded away."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo import presets, series, styles
from instantid_demo.request import Control, ControlKind, GenerationRequest, Lora, Place, RequestError, View, extra
from instantid_demo.ui import fields, people, stage
from instantid_demo.ui.choice import Option, picture_choice
from instantid_demo.ui.consent import Consents
from instantid_demo.ui.desk import Desk, spoken
from instantid_demo.ui.placing import face_frame
from instantid_demo.ui.showing import Show
from instantid_demo.ui.words import english, span, style_word, tables, word

PHOTO_TYPES = ["image"]
CARD = ".safetensors"
SHAPES: dict[str, tuple[float, float]] = {
    "square": (1, 1),
    "portrait": (7, 9),
    "tall": (9, 16),
    "landscape": (9, 7),
    "wide": (16, 9),
}
CONTROL_KINDS: tuple[ControlKind, ...] = ("pose", "depth", "canny")


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


def named_views() -> Mapping[str, View]:
    """The head positions to choose from."""
    from instantid_demo.faces import views

    return views.NAMED_VIEWS


def view_options(*, first: bool = True) -> list[Option]:
    """Head positions drawn as heads; the first is: as in the photo."""
    english_words = tables()["en"]
    found: list[Option] = [{"id": "", "name": english("view.photo"), "word": "view.photo"}] if first else []
    for name, view in named_views().items():
        key = f"view.{name}"
        found.append({"id": name, "name": name, "word": key if key in english_words else "", "view": view.model_dump()})
    return found


class Create:
    """Builds the tab and holds its components; other tabs fill it with settings of older pictures."""

    def __init__(self, desk: Desk, consents: Consents, model: gr.State) -> None:
        """`model` holds the visitor's choice of model."""
        self.desk = desk
        self.consents = consents
        self.model = model
        self.values: dict[str, Any] = {}
        """Components by the request field they stand for."""
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320, elem_classes="asking"):
                self._who()
                self._what()
                self._how()
                self._go()
                self._folded()
            with gr.Column(scale=6, min_width=320, elem_classes="answering"):
                self.show = Show("create")
                self._after()
        self._events()

    # ---- building ----

    def _who(self) -> None:
        with gr.Column(elem_id="who", elem_classes="card"):
            gr.HTML(span("who.title", "h2"), elem_classes="card-title", apply_default_css=False)
            self.photo = gr.Image(
                label=word("field.face"),
                type="filepath",
                image_mode=None,
                sources=["upload", "webcam", "clipboard"],
                height=260,
                elem_id="photo",
                buttons=["fullscreen"],
                placeholder=word("who.placeholder"),
            )
            self.consent = self.consents.box("create")
            with gr.Column(visible=False, elem_id="faces-box") as self.faces_box:
                gr.HTML(span("faces.title", "p", "small-title"), apply_default_css=False)
                self.faces = picture_choice([], name_word="faces.title", elem_id="faces", elem_classes="faces")
            self.faces_note = gr.HTML("", elem_id="faces-note", apply_default_css=False)
            with gr.Accordion(word("more.title"), open=False, elem_id="more-photos"):
                self.more = gr.File(
                    label=word("more.label"),
                    file_count="multiple",
                    file_types=[*PHOTO_TYPES, CARD],
                    height=120,
                    elem_id="more-files",
                )
                self.more_note = gr.HTML("", elem_id="more-note", apply_default_css=False)
                self.values["combine"] = fields.component("combine")
                with gr.Row():
                    self.save_card = gr.Button(word("card.save"), size="sm", elem_id="save-card")
                self.card = gr.File(label=word("card.file"), visible=False, elem_id="card-file", interactive=False)
                gr.HTML(span("card.note", "p", "note"), apply_default_css=False)

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
            self._view()
        with gr.Accordion(word("start.title"), open=False, elem_id="start") as self.start:
            gr.HTML(span("start.help", "p", "note"), apply_default_css=False)
            self.editor = gr.ImageEditor(
                label=word("field.init"),
                type="filepath",
                image_mode="RGBA",
                format="png",
                sources=["upload", "clipboard"],
                brush=gr.Brush(colors=["#24967cb0"], default_color="#24967cb0", color_mode="fixed", default_size=28),
                transforms=(),
                layers=False,
                height=360,
                elem_id="init",
            )
            self.values["strength"] = fields.component("strength")
        with gr.Accordion(word("controls.title"), open=False, elem_id="controls"):
            self._controls()
        with gr.Accordion(word("advanced.title"), open=False, elem_id="advanced") as self.advanced:
            self._advanced()
        with gr.Accordion(word("restore.title"), open=False, elem_id="restore"):
            self.restore = gr.File(
                label=word("restore.label"), file_types=["image"], height=110, elem_id="restore-file"
            )

    def _view(self) -> None:
        self.view = picture_choice(
            view_options(), value="", name_word="view.title", elem_id="views", elem_classes="views"
        )
        turns = presets.pocket(self.desk.settings.pocket).turns
        if turns:
            known = span("view.range", "p", "note", degrees=f"{turns['yaw']:g}")
            gr.HTML(known, elem_id="range-note", apply_default_css=False)
        with gr.Row():
            with gr.Column(min_width=200):
                self.yaw = gr.Slider(-90, 90, 0, step=1, label=word("view.yaw"), elem_id="yaw")
                self.pitch = gr.Slider(-60, 60, 0, step=1, label=word("view.pitch"), elem_id="pitch")
                self.roll = gr.Slider(-180, 180, 0, step=1, label=word("view.roll"), elem_id="roll")
            with gr.Column(min_width=200):
                self.frame = face_frame(usual_size(self.desk), elem_id="frame")
        with gr.Row():
            self.x = gr.Slider(0, 1, 0.5, step=0.01, label=word("view.x"), elem_id="place-x", min_width=100)
            self.y = gr.Slider(0, 1, 0.5, step=0.01, label=word("view.y"), elem_id="place-y", min_width=100)
            self.size = gr.Slider(0.2, 2, 1, step=0.05, label=word("view.size"), elem_id="place-size", min_width=100)
        self.pose = gr.Image(
            label=word("field.pose"),
            type="filepath",
            image_mode=None,
            sources=["upload", "webcam", "clipboard"],
            height=180,
            elem_id="pose",
            buttons=[],
        )
        self.turnaround = gr.Button(word("turnaround"), size="sm", elem_id="turnaround")
        gr.HTML(span("turnaround.help", "p", "note"), apply_default_css=False)

    def _controls(self) -> None:
        gr.HTML(span("controls.help", "p", "note"), apply_default_css=False)
        self.control: dict[str, dict[str, Any]] = {}
        with gr.Tabs():
            for kind in CONTROL_KINDS:
                with gr.Tab(word(f"control.{kind}"), id=f"control-{kind}"):
                    with gr.Row():
                        image = gr.Image(
                            label=word("control.image"),
                            type="filepath",
                            image_mode=None,
                            sources=["upload", "clipboard"],
                            height=180,
                            elem_id=f"control-{kind}-image",
                            buttons=[],
                        )
                        shown = gr.Image(
                            label=word("control.map"),
                            height=180,
                            interactive=False,
                            elem_id=f"control-{kind}-map",
                            buttons=[],
                            format="png",
                        )
                    ready = gr.Checkbox(False, label=word("control.is_map"), elem_id=f"control-{kind}-ready")
                    with gr.Row():
                        strength = gr.Slider(0, 2, 0.5, step=0.05, label=word("control.strength"), min_width=90)
                        start = gr.Slider(0, 1, 0, step=0.05, label=word("control.start"), min_width=90)
                        end = gr.Slider(0, 1, 1, step=0.05, label=word("control.end"), min_width=90)
                    look = gr.Button(word("control.preview"), size="sm", elem_id=f"control-{kind}-preview")
                    self.control[kind] = {
                        "image": image,
                        "is_map": ready,
                        "strength": strength,
                        "start": start,
                        "end": end,
                    }
                    look.click(
                        spoken(self._map_of(kind)), [image, ready], shown, api_visibility="private", concurrency_limit=1
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

    def _after(self) -> None:
        with gr.Row(visible=False, elem_id="create-next", elem_classes="next-row") as self.next_row:
            self.use_seed = gr.Button(word("use_seed"), size="sm", elem_id="use-seed", min_width=110)
            self.vary = gr.Button(word("vary"), size="sm", elem_id="vary", min_width=110)
            self.stronger = gr.Button(word("stronger"), size="sm", elem_id="stronger", min_width=110, visible=False)
            self.as_start = gr.Button(word("as_start"), size="sm", elem_id="as-start", min_width=110)
            self.compare = gr.Button(word("compare"), size="sm", elem_id="compare", min_width=110)
            self.comfy = gr.Button(word("comfy"), size="sm", elem_id="comfy", min_width=110)
        self.slider = gr.ImageSlider(
            label=english("compare.label"), visible=False, interactive=False, elem_id="create-slider", buttons=[]
        )
        self.workflow = gr.File(label=word("comfy.file"), visible=False, interactive=False, elem_id="comfy-file")
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
        """Every component that decides the picture, by the name under which `_requests` gets its value."""
        special = {
            "model": self.model,
            "photo": self.photo,
            "face_choice": self.faces,
            "more": self.more,
            "consent": self.consent,
            "view_choice": self.view,
            "yaw": self.yaw,
            "pitch": self.pitch,
            "roll": self.roll,
            "x": self.x,
            "y": self.y,
            "face_size": self.size,
            "pose": self.pose,
            "editor": self.editor,
            "loras": self.loras,
        }
        controls = {
            f"{kind}_{name}": component for kind, parts in self.control.items() for name, component in parts.items()
        }
        return special | controls | self.values

    def _events(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        instant = quiet | {"queue": False}
        # Nothing is read from a photo before consent is given.
        found = [self.faces, self.faces_box, self.faces_note]
        for event in (self.photo.change, self.consent.change):
            event(spoken(self._find_faces), [self.photo, self.consent, self.model], found, **quiet)
        self.more.change(
            spoken(self._check_photos), [self.photo, self.more, self.consent, self.model], self.more_note, **quiet
        )
        self.save_card.click(
            spoken(self._save_card),
            [self.photo, self.more, self.faces, self.values["combine"], self.consent, self.model],
            self.card,
            **quiet,
        )

        angles = [self.yaw, self.pitch, self.roll]
        place = [self.x, self.y, self.size]
        self.view.input(self._named_view, [self.view], angles, **instant).then(
            None, [*angles, *place, self.frame], self.frame, js=_TO_FRAME, **instant
        )
        for slider in angles:
            slider.input(None, [self.view], [self.view], js="() => 'custom'", **instant)
        for slider in (*angles, *place):
            slider.input(None, [*angles, *place, self.frame], self.frame, js=_TO_FRAME, **instant)
        self.frame.input(None, [self.frame], place, js="(frame) => [frame.x, frame.y, frame.size]", **instant)
        usual = usual_size(self.desk)
        sides = [self.values["width"], self.values["height"]]
        self.shape.input(self._sides, [self.shape], sides, **instant)
        for side in sides:
            side.change(
                None,
                [*sides, self.frame],
                self.frame,
                js="(width, height, frame) => ({...frame, "
                f"width: Number(width) || {usual[0]}, height: Number(height) || {usual[1]}}})",
                **instant,
            )
        self.random.click(None, None, [self.values["seed"]], js="() => null", **instant)

        outputs = [*self.show.outputs, self.go, self.stop, self.next_row, self.stronger, self.slider, self.workflow]
        running: dict[str, Any] = quiet | {"inputs_kwargs": self.inputs, "outputs": outputs}
        self.go.click(self._generate, **running)
        self.turnaround.click(self._turnaround, **running)
        self.vary.click(self._vary, **running)
        self.stronger.click(
            None, [self.values["adapter_strength"]], [self.values["adapter_strength"]], js=_STRONGER, **instant
        ).then(self._generate, **running)
        self.stop.click(self._cancel, None, [self.stop], **instant)

        self.use_seed.click(self._use_seed, [self.show.made], [self.values["seed"], self.advanced], **instant)
        self.as_start.click(self._as_start, [self.show.made], [self.editor, self.start], **quiet)
        self.compare.click(self._compare, [self.show.made, self.photo], [self.slider], **quiet)
        self.comfy.click(spoken(self._export), [self.show.made], [self.workflow], **quiet)
        self.restore.upload(spoken(self._restore), [self.restore], self.fillable, **quiet)
        self.examples.click(
            self._example, [self.examples], [self.photo, self.values["prompt"], self.values["style"]], **quiet
        )

    @property
    def fillable(self) -> list[Any]:
        """Components that settings of an older picture fill."""
        return [
            *self.values.values(),
            self.view,
            self.yaw,
            self.pitch,
            self.roll,
            self.x,
            self.y,
            self.size,
            self.loras,
        ]

    def fill(self, settings: Mapping[str, Any]) -> dict[Any, Any]:
        """Updates that put the settings of an older picture into the form; what they leave out becomes the default."""
        known = GenerationRequest.model_fields
        settings = fields.request_of(settings).public()
        updates = {component: settings.get(name, known[name].default) for name, component in self.values.items()}
        view = settings.get("view") or {}
        place = settings.get("place") or {}
        updates[self.view] = "custom" if view else ""
        for name, slider in (("yaw", self.yaw), ("pitch", self.pitch), ("roll", self.roll)):
            updates[slider] = view.get(name, 0)
        for name, slider, usual in (("x", self.x, 0.5), ("y", self.y, 0.5), ("size", self.size, 1)):
            updates[slider] = place.get(name, usual)
        updates[self.loras] = "\n".join(f"{lora['source']}:{lora['weight']:g}" for lora in settings.get("lora", ()))
        return updates

    # ---- handlers ----

    def _requests(self, visitor: gr.Request, values: dict[str, Any]) -> GenerationRequest:
        consent = self.desk.consent(values["consent"])
        photo, more = values["photo"], values["more"] or []
        faces = ([photo] if photo else []) + list(more)
        if not faces:
            raise RequestError(english("error.photo"))
        plain = {name: values[name] for name in self.values}
        plain |= {
            "face": tuple(Path(path) for path in faces),
            "face_index": int(values["face_choice"]) if values["face_choice"] and photo else None,
            "pose": values["pose"],
            "consent": consent,
            "model": values["model"],
            "control": self._given_controls(values),
            "lora": lora_lines(values["loras"]),
        }
        if values["view_choice"] and not values["pose"]:
            plain["view"] = View(yaw=values["yaw"], pitch=values["pitch"], roll=values["roll"])
        place = Place(x=values["x"], y=values["y"], size=values["face_size"])
        if place != Place():
            plain["place"] = place
        init, mask = start_and_mask(values["editor"], self.desk.folder(visitor))
        plain |= {"init": init, "mask": mask}
        return fields.request_of(plain)

    @staticmethod
    def _given_controls(values: dict[str, Any]) -> tuple[Control, ...]:
        return tuple(
            Control(
                kind=kind,
                image=Path(values[f"{kind}_image"]),
                **{name: values[f"{kind}_{name}"] for name in ("is_map", "strength", "start", "end")},
            )
            for kind in CONTROL_KINDS
            if values[f"{kind}_image"]
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
        request = spoken(self._requests)(visitor, values)
        busy = {self.go: gr.update(interactive=False), self.stop: gr.update(visible=True, interactive=True)}
        idle = {self.go: gr.update(interactive=True), self.stop: gr.update(visible=False)}
        clear = {
            self.next_row: gr.update(visible=False),
            self.slider: gr.update(visible=False),
            self.workflow: gr.update(visible=False),
        }
        yield busy | clear
        with contextlib.closing(self.show.play(self.desk, requests_of(request), visitor, as_sheet=as_sheet)) as play:
            try:
                for update in play:
                    if self.show.made in update:
                        entries = update[self.show.made]["likeness"][0]
                        weak = any(entry["word"] == "weak" for entry in entries)
                        update |= idle | {
                            self.next_row: gr.update(visible=True),
                            self.stronger: gr.update(visible=weak),
                        }
                    yield update
            except gr.Error:
                yield idle
                raise
            yield idle

    def _cancel(self, visitor: gr.Request) -> Any:
        self.desk.cancel(visitor)
        return gr.update(interactive=False)

    def _find_faces(self, photo: str | None, given: bool, model: str) -> tuple[Any, Any, str]:
        hidden = gr.update(options=[], value="")
        if not photo or (self.desk.settings.consent and not given):
            return hidden, gr.update(visible=False), ""
        found = self.desk.engine.analyse(Path(photo), model)
        if not found:
            return hidden, gr.update(visible=False), span("faces.none", "p", "hint")
        if len(found) == 1:
            return hidden, gr.update(visible=False), ""
        largest = people.largest(found)
        options = [
            {
                "id": str(index),
                "name": english("faces.number", n=index + 1),
                "word": "faces.number",
                "values": {"n": index + 1},
                "picture": stage.data_uri(face.crop, 128),
            }
            for index, face in enumerate(found)
        ]
        return gr.update(options=options, value=str(largest)), gr.update(visible=True), ""

    def _check_photos(self, photo: str | None, more: list[str] | None, given: bool, model: str) -> str:
        """Says which of several photos looks like someone else."""
        files = ([photo] if photo else []) + list(more or [])
        if len(files) < 2 or (self.desk.settings.consent and not given):
            return ""
        photos = [file for file in files if not file.endswith(CARD)]
        faces, lines = [], []
        numbers = []
        for number, file in enumerate(photos, start=1):
            found = self.desk.engine.analyse(Path(file), model)
            if not found:
                lines.append(span("more.noface", "p", "hint", n=number))
                continue
            faces.append(found[people.largest(found)])
            numbers.append(number)
        if len(faces) > 1:
            outliers = people.identity_of(faces).outliers
            lines += [span("more.outlier", "p", "hint", n=numbers[index]) for index in outliers]
        return "".join(lines) or span("more.fine", "p", "note", n=len(faces))

    def _save_card(
        self,
        photo: str | None,
        more: list[str] | None,
        choice: str,
        combine: Any,
        given: bool,
        model: str,
        visitor: gr.Request,
    ) -> Any:
        self.desk.consent(given)
        files = ([photo] if photo else []) + [file for file in more or [] if not file.endswith(CARD)]
        if not files:
            raise RequestError(english("error.photo"))
        chosen = []
        for index, file in enumerate(files):
            found = self.desk.engine.analyse(Path(file), model)
            if not found:
                raise RequestError(english("more.noface", n=index + 1))
            if index == 0 and photo and choice:
                chosen.append(found[min(int(choice), len(found) - 1)])
            else:
                chosen.append(found[people.largest(found)])
        identity = people.identity_of(chosen, combine)
        card = self.desk.folder(visitor) / "identity.safetensors"
        identity.save(card)
        return gr.update(value=str(card), visible=True)

    def _map_of(self, kind: ControlKind) -> Any:
        def preview(image: str | None, is_map: bool) -> Any:
            from instantid_demo.faces.photo import open_photo

            if not image:
                raise RequestError(english("error.control"))
            if is_map:
                return open_photo(Path(image))
            from instantid_demo.controls import maps

            return maps.draw(kind, open_photo(Path(image)), self.desk.settings.models)

        return preview

    @staticmethod
    def _named_view(choice: str) -> tuple[float, float, float]:
        view = named_views().get(choice, View())
        return view.yaw, view.pitch, view.roll

    def _sides(self, shape: str) -> tuple[int | None, int | None]:
        width, height = usual_size(self.desk)
        return sides(shape, width * height)

    @staticmethod
    def _use_seed(made: dict[str, Any] | None) -> tuple[Any, Any]:
        return (made["seeds"][made["chosen"]], gr.update(open=True)) if made else (gr.skip(), gr.skip())

    @staticmethod
    def _as_start(made: dict[str, Any] | None) -> tuple[Any, Any]:
        if not made:
            return gr.skip(), gr.skip()
        file = made["files"][made["chosen"]]
        return {"background": file, "layers": [], "composite": file}, gr.update(open=True)

    @staticmethod
    def _compare(made: dict[str, Any] | None, photo: str | None) -> Any:
        if not made or not photo:
            return gr.skip()
        from instantid_demo.faces.photo import open_photo

        return gr.update(value=(open_photo(Path(photo)), made["files"][made["chosen"]]), visible=True)

    def _export(self, made: dict[str, Any] | None, visitor: gr.Request) -> Any:
        from instantid_demo import comfyui

        if not made:
            return gr.skip()
        request = GenerationRequest(**made["settings"][made["chosen"]])
        file = self.desk.folder(visitor) / "workflow.json"
        comfyui.export(request, file)
        return gr.update(value=str(file), visible=True)

    def _restore(self, file: str | None) -> dict[Any, Any]:
        from instantid_demo.provenance import metadata

        if not file:
            return {}
        settings = metadata.restored(Path(file))
        gr.Success(span("restore.done"), title=span("restore.title"))
        return self.fill(settings)

    def _example(self, index: int) -> tuple[Any, Any, Any]:
        photo, prompt, style = self._samples[index]
        return photo, prompt, style


_TO_FRAME = """(yaw, pitch, roll, x, y, size, frame) => ({...frame, yaw, pitch, roll, x, y, size})"""
_STRONGER = "(strength) => Math.min(1.5, Math.round((strength + 0.2) * 20) / 20)"


def usual_size(desk: Desk) -> tuple[int, int]:
    """Width and height of the usual picture of the model that would run."""
    from instantid_demo import presets

    family = desk.engine.badge().family
    usual = presets.of(family, desk.settings.pocket if family == "pocket" else None)
    return usual.width, usual.height


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


def start_and_mask(editor: Any, folder: Path) -> tuple[Path | None, Path | None]:
    """The start picture, and a mask file (white where the user painted) if they painted anything."""
    from PIL import Image

    if not editor or not editor.get("background"):
        return None, None
    background = Path(editor["background"])
    painted = None
    for layer in editor.get("layers") or []:
        alpha = Image.open(layer).convert("RGBA").getchannel("A").point(lambda value: 255 if value > 8 else 0)
        if alpha.getbbox():
            painted = alpha
    if painted is None:
        return background, None
    mask = folder / "mask.png"
    painted.save(mask)
    return background, mask
