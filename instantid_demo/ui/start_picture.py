"""A picture to put the person into, and where the user painted over it."""

from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo.ui import fields
from instantid_demo.ui.desk import Desk
from instantid_demo.ui.words import span, word

_PAINTED = 8
"""Opacity of 255 from which a pixel counts as painted."""


class StartPicture:
    """The folded part for image to image and inpainting."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Accordion(word("start.title"), open=False, elem_id="start") as self.fold:
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
            self.strength = fields.component("strength")

    @property
    def inputs(self) -> dict[str, Any]:
        """Components by the name under which `given` reads their values."""
        return {"editor": self.editor}

    def given(self, values: dict[str, Any], visitor: gr.Request) -> dict[str, Any]:
        """The request's fields; the mask becomes a file in the visitor's folder."""
        editor = values["editor"]
        if not editor or not editor.get("background"):
            return {}
        mask = self._mask(editor.get("layers") or [], self.desk.folder(visitor))
        return {"init": Path(editor["background"]), "mask": mask}

    @staticmethod
    def _mask(layers: list[str], folder: Path) -> Path | None:
        """White where the user painted; None where they painted nothing."""
        from PIL import Image, ImageChops

        painted = None
        for layer in layers:
            alpha = Image.open(layer).convert("RGBA").getchannel("A").point(lambda value: 255 * (value > _PAINTED))
            painted = alpha if painted is None else ImageChops.lighter(painted, alpha)
        if painted is None or not painted.getbbox():
            return None
        mask = folder / "mask.png"
        painted.save(mask)
        return mask

    def put(self, file: str) -> dict[Any, Any]:
        """Updates that start from a picture."""
        return {self.editor: {"background": file, "layers": [], "composite": file}, self.fold: gr.update(open=True)}
