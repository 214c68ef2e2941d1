"""What the Blend and Group tabs ask for besides faces: words, look, quality, seed; and their running state."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from instantid_demo import styles
from instantid_demo.request import GenerationRequest, Result
from instantid_demo.ui import fields
from instantid_demo.ui.consent import Consents
from instantid_demo.ui.desk import Desk
from instantid_demo.ui.showing import Show
from instantid_demo.ui.words import style_word, word


class Asking:
    """A short form with its button, and the run that it starts."""

    def __init__(self, desk: Desk, consents: Consents, model: gr.State, name: str, go: str) -> None:
        """`model`: the visitor's choice; `name`: prefix of the elements' ids; `go`: key of the button's word."""
        self.desk = desk
        self.values: dict[str, Any] = {"model": model}
        self.consent = consents.box(name)
        self.values["prompt"] = fields.component("prompt", lines=2, info=None, elem_id=f"{name}-prompt")
        with gr.Row():
            self.values["style"] = gr.Dropdown(
                [
                    (word(key) if (key := style_word(style)) else found.name, style)
                    for style, found in styles.load(desk.settings.style_folders).items()
                ],
                value="none",
                label=word("field.style"),
                elem_id=f"{name}-style",
                min_width=120,
            )
            self.values["seed"] = fields.component("seed", info=None, elem_id=f"{name}-seed", min_width=120)
        self.values["quality"] = fields.component("quality", info=None, elem_id=f"{name}-quality")
        with gr.Row(elem_classes="go-row"):
            self.go = gr.Button(word(go), variant="primary", elem_id=f"{name}-go", elem_classes="go", scale=3)
            self.stop = gr.Button(word("cancel"), variant="stop", elem_id=f"{name}-cancel", visible=False, scale=1)
        self.stop.click(self._cancel, None, [self.stop], api_visibility="private", queue=False)

    def plain(self, values: dict[str, Any]) -> dict[str, Any]:
        """The request's fields that this form holds, consent among them.

        Raises:
            gr.Error: there is no consent.
        """
        return {name: values[name] for name in self.values} | {"consent": self.desk.consent(values["consent"])}

    def play(
        self,
        show: Show,
        requests: list[GenerationRequest],
        visitor: gr.Request,
        remark: Callable[[Result], list[str]] | None = None,
    ) -> Iterator[dict[Any, Any]]:
        """Runs the requests and yields updates for `show`, the button and Cancel."""
        idle = {self.go: gr.update(interactive=True), self.stop: gr.update(visible=False)}
        yield {self.go: gr.update(interactive=False), self.stop: gr.update(visible=True, interactive=True)}
        with contextlib.closing(show.play(self.desk, requests, visitor, remark=remark)) as play:
            try:
                yield from play
            except gr.Error:
                yield idle
                raise
        yield idle

    def _cancel(self, visitor: gr.Request) -> Any:
        self.desk.cancel(visitor)
        return gr.update(interactive=False)
