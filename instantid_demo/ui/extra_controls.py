"""Extra ControlNets: body pose, depth and edges, each with its picture, its map and its strength."""

from pathlib import Path
from typing import Any, get_args

import gradio as gr

from instantid_demo.request import Control, ControlKind, RequestError
from instantid_demo.ui import fields
from instantid_demo.ui.desk import Desk, spoken
from instantid_demo.ui.photos import photo_input
from instantid_demo.ui.words import english, span, word

_NUMBERS = ("strength", "start", "end")


class ExtraControls:
    """The folded part with one tab per kind of map."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._parts: dict[ControlKind, dict[str, Any]] = {}
        gr.HTML(span("controls.help", "p", "note"), apply_default_css=False)
        with gr.Tabs():
            for kind in get_args(ControlKind):
                with gr.Tab(word(f"control.{kind}"), id=f"control-{kind}"):
                    self._parts[kind] = self._tab(kind)

    def _tab(self, kind: ControlKind) -> dict[str, Any]:
        with gr.Row():
            image = photo_input(webcam=False, label=word("control.image"), height=180, elem_id=f"control-{kind}-image")
            drawn = gr.Image(
                label=word("control.map"),
                height=180,
                interactive=False,
                elem_id=f"control-{kind}-map",
                buttons=[],
                format="png",
            )
        ready = gr.Checkbox(False, label=word("control.is_map"), elem_id=f"control-{kind}-ready")
        with gr.Row():
            numbers = {
                name: fields.slider(Control, name, step=0.05, label=word(f"control.{name}"), min_width=90)
                for name in _NUMBERS
            }
        # A host for others does not read what its visitors name.
        net = gr.Textbox(
            "",
            max_lines=1,
            label=word("control.net"),
            info=word("control.net.help"),
            elem_id=f"control-{kind}-net",
            visible=not self.desk.settings.hosted,
        )
        look = gr.Button(word("control.preview"), size="sm", elem_id=f"control-{kind}-preview")
        look.click(spoken(self._map_of(kind)), [image, ready], drawn, api_visibility="private", concurrency_limit=1)
        return {"image": image, "is_map": ready, "net": net, **numbers}

    @property
    def inputs(self) -> dict[str, Any]:
        """Components by the name under which `given` reads their values."""
        return {f"{kind}_{name}": part for kind, parts in self._parts.items() for name, part in parts.items()}

    def given(self, values: dict[str, Any]) -> dict[str, Any]:
        """The request's field: a control for each kind that has a picture."""
        found = (
            Control(
                kind=kind,
                image=Path(values[f"{kind}_image"]),
                net=(values[f"{kind}_net"] or "").strip(),
                **{name: values[f"{kind}_{name}"] for name in ("is_map", *_NUMBERS)},
            )
            for kind in self._parts
            if values[f"{kind}_image"]
        )
        return {"control": tuple(found)}

    def _map_of(self, kind: ControlKind) -> Any:
        def preview(image: str | None, is_map: bool) -> Any:
            from instantid_demo.faces.photo import open_photo

            if not image:
                raise RequestError(english("error.control"))
            from instantid_demo.controls import maps, ready

            if is_map:
                return ready.read(Path(image))

            return maps.draw(kind, open_photo(Path(image)), self.desk.settings.models)

        return preview
