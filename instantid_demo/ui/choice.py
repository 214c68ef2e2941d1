"""Radio buttons that are pictures: style thumbnails, head positions, the faces found in a photo."""

from typing import Any, TypedDict

import gradio as gr

from instantid_demo.ui.scripts import script
from instantid_demo.ui.words import english


class Option(TypedDict, total=False):
    """One picture to choose: `picture` is a URL or data URI, `view` a head to draw; `word` is its name's key."""

    id: str
    name: str
    word: str
    picture: str
    view: dict[str, float]


# The template never holds a value: Gradio runs templates as code, so names from files must not enter them.
_DRAW = script("choice.js")


def picture_choice(
    options: list[Option], *, value: str = "", name_word: str, elem_classes: str = "", **rest: Any
) -> gr.HTML:
    """A group of picture buttons; its value is the chosen option's `id`. `name_word`: key of its accessible name."""
    english(name_word)
    return gr.HTML(
        value,
        html_template='<div class="choice" role="radiogroup"></div>',
        js_on_load=_DRAW,
        apply_default_css=False,
        options=options,
        name_word=name_word,
        elem_classes=f"picture-choice {elem_classes}".strip(),
        **rest,
    )
