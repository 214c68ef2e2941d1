"""What a user may want of a finished picture: its seed, variations, more likeness, a comparison, ComfyUI."""

from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo.request import GenerationRequest
from instantid_demo.ui.desk import INSTANT, QUIET, Desk, spoken
from instantid_demo.ui.start_picture import StartPicture
from instantid_demo.ui.words import english, span, word

_STRONGER = "(strength) => Math.min(1.5, Math.round((strength + 0.2) * 20) / 20)"


class NextSteps:
    """A row of buttons that appears with the first result."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

        def button(name: str, key: str, **more: Any) -> gr.Button:
            return gr.Button(word(key), size="sm", elem_id=name, min_width=110, **more)

        with gr.Row(visible=False, elem_id="create-next", elem_classes="next-row") as self.row:
            self.use_seed = button("use-seed", "use_seed")
            self.vary = button("vary", "vary", elem_classes="runs")
            self.stronger = button("stronger", "stronger", elem_classes="runs", visible=False)
            self.as_start = button("as-start", "as_start")
            self.compare = button("compare", "compare")
            self.comfy = button("comfy", "comfy")
        self.slider = gr.ImageSlider(
            label=english("compare.label"), visible=False, interactive=False, elem_id="create-slider", buttons=[]
        )
        self.workflow = gr.File(label=word("comfy.file"), visible=False, interactive=False, elem_id="comfy-file")

    def listen(self, made: gr.State, photo: Any, seed: Any, advanced: Any, start: StartPicture) -> None:
        """Connects what needs no run: `made` is the record of the results, `advanced` the fold that holds `seed`."""

        def take_seed(record: dict[str, Any] | None) -> Any:
            return {seed: record["seeds"][record["chosen"]], advanced: gr.update(open=True)} if record else gr.skip()

        def start_from(record: dict[str, Any] | None) -> Any:
            return start.put(record["files"][record["chosen"]]) if record else gr.skip()

        self.use_seed.click(take_seed, [made], [seed, advanced], **INSTANT)
        self.as_start.click(start_from, [made], [start.editor, start.fold], **QUIET)
        self.compare.click(self._compare, [made, photo], [self.slider], **QUIET)
        self.comfy.click(spoken(self._export), [made], [self.workflow], **QUIET)

    def strengthen(self, strength: Any) -> Any:
        """Raises the likeness' slider when asked; gives the event to go on with."""
        return self.stronger.click(
            None,
            [strength],
            [strength],
            js=_STRONGER,
            **INSTANT,
        )

    @property
    def outputs(self) -> list[Any]:
        """Components that `hidden` and `offered` update."""
        return [self.row, self.stronger, self.slider, self.workflow]

    def hidden(self) -> dict[Any, Any]:
        """Updates before a new picture."""
        return {part: gr.update(visible=False) for part in (self.row, self.slider, self.workflow)}

    def offered(self, likeness: list[dict[str, Any]]) -> dict[Any, Any]:
        """Updates with a new picture; more likeness is offered where it is weak."""
        weak = any(entry["word"] == "weak" for entry in likeness)
        return {self.row: gr.update(visible=True), self.stronger: gr.update(visible=weak)}

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
        file = self.desk.folder(visitor) / "workflow.json"
        request, record = (made[name][made["chosen"]] for name in ("settings", "record"))
        request = GenerationRequest(**request)
        comfyui.export(request, file, record)
        if names := comfyui.left_out(request, record):
            gr.Info(span("comfy.left_out", names="; ".join(names)), title=span("comfy.file"), duration=None)
        return gr.update(value=str(file), visible=True)
