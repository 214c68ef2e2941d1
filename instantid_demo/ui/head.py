"""How the head stands: a grid of views, angles, a face to drag in the frame, or a pose photo."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from instantid_demo import presets
from instantid_demo.request import Place, View
from instantid_demo.ui import fields
from instantid_demo.ui.choice import Option, picture_choice
from instantid_demo.ui.desk import INSTANT, Desk
from instantid_demo.ui.photos import photo_input
from instantid_demo.ui.placing import face_frame
from instantid_demo.ui.words import english, span, tables, word

ANGLES = ("yaw", "pitch", "roll")
PLACE = {"x": 0.01, "y": 0.01, "size": 0.05}
"""Where the face stands, with the sliders' steps."""
_TO_FRAME = """(yaw, pitch, roll, x, y, size, frame) => ({...frame, yaw, pitch, roll, x, y, size})"""


def named_views() -> Mapping[str, View]:
    """The head positions to choose from."""
    from instantid_demo.faces import views

    return views.NAMED_VIEWS


def view_options() -> list[Option]:
    """Head positions drawn as heads; the first is: as in the photo."""
    known = tables()["en"]
    found: list[Option] = [{"id": "", "name": english("view.photo"), "word": "view.photo"}]
    for name, view in named_views().items():
        key = f"view.{name}"
        found.append({"id": name, "name": name, "word": key if key in known else "", "view": view.model_dump()})
    return found


def usual_size(desk: Desk) -> tuple[int, int]:
    """Width and height of the usual picture of the model that would run."""
    family = desk.engine.badge().family
    usual = presets.of(family, desk.settings.pocket if family == "pocket" else None)
    return usual.width, usual.height


class Head:
    """The folded part for the head's position."""

    def __init__(self, desk: Desk) -> None:
        self.usual = usual_size(desk)
        self.view = picture_choice(
            view_options(), value="", name_word="view.title", elem_id="views", elem_classes="views"
        )
        turns = presets.pocket(desk.settings.pocket).turns
        if turns:
            known = span("view.range", "p", "note", degrees=f"{turns['yaw']:g}")
            gr.HTML(known, elem_id="range-note", apply_default_css=False)
        with gr.Row():
            with gr.Column(min_width=200):
                self.angles = {
                    name: fields.slider(View, name, step=1, label=word(f"view.{name}"), elem_id=name) for name in ANGLES
                }
            with gr.Column(min_width=200):
                self.frame = face_frame(self.usual, elem_id="frame")
        with gr.Row():
            self.place = {
                name: fields.slider(
                    Place, name, step=step, label=word(f"view.{name}"), elem_id=f"place-{name}", min_width=100
                )
                for name, step in PLACE.items()
            }
        self.pose = photo_input(label=word("field.pose"), height=180, elem_id="pose")
        self.turnaround = gr.Button(word("turnaround"), size="sm", elem_id="turnaround", elem_classes="runs")
        gr.HTML(span("turnaround.help", "p", "note"), apply_default_css=False)
        self._events()

    def _events(self) -> None:
        angles, place = list(self.angles.values()), list(self.place.values())
        drawn = [*angles, *place, self.frame]
        self.view.input(self._named_view, [self.view], angles, **INSTANT).then(
            None, drawn, self.frame, js=_TO_FRAME, **INSTANT
        )
        for slider in angles:
            slider.input(None, [self.view], [self.view], js="() => 'custom'", **INSTANT)
        for slider in (*angles, *place):
            slider.input(None, drawn, self.frame, js=_TO_FRAME, **INSTANT)
        self.frame.input(None, [self.frame], place, js="(frame) => [frame.x, frame.y, frame.size]", **INSTANT)

    def follow(self, width: Any, height: Any) -> None:
        """Lets the frame take the shape of these two components."""
        for side in (width, height):
            side.change(
                None,
                [width, height, self.frame],
                self.frame,
                js="(width, height, frame) => ({...frame, "
                f"width: Number(width) || {self.usual[0]}, height: Number(height) || {self.usual[1]}}})",
                **INSTANT,
            )

    @property
    def inputs(self) -> dict[str, Any]:
        """Components by the name under which `given` reads their values."""
        placed = {f"place_{name}": slider for name, slider in self.place.items()}
        return {"view_choice": self.view, "pose": self.pose, **self.angles, **placed}

    @property
    def fillable(self) -> list[Any]:
        """Components that `fill` updates."""
        return [self.view, *self.angles.values(), *self.place.values()]

    @staticmethod
    def given(values: dict[str, Any]) -> dict[str, Any]:
        """The request's fields; a pose photo goes before a chosen view."""
        found: dict[str, Any] = {"pose": values["pose"]}
        if values["view_choice"] and not values["pose"]:
            found["view"] = View(**{name: values[name] for name in ANGLES})
        place = Place(**{name: values[f"place_{name}"] for name in PLACE})
        return found if place == Place() else found | {"place": place}

    def fill(self, settings: Mapping[str, Any]) -> dict[Any, Any]:
        """Updates that show the view and place of a request's public settings."""
        view = View(**settings.get("view") or {})
        place = Place(**settings.get("place") or {})
        updates = {slider: getattr(view, name) for name, slider in self.angles.items()}
        updates |= {slider: getattr(place, name) for name, slider in self.place.items()}
        return updates | {self.view: "custom" if settings.get("view") else ""}

    @staticmethod
    def _named_view(choice: str) -> tuple[float, float, float]:
        view = named_views().get(choice, View())
        return view.yaw, view.pitch, view.roll
