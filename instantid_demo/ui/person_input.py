"""One person of several: a photo, or folded away an identity card."""

from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo.faces.foreign import SUFFIXES
from instantid_demo.ui.photos import photo_input
from instantid_demo.ui.words import word


class PersonInput:
    """Builds both places; where both are filled, the card counts."""

    def __init__(self, name: str, label: str, *, height: int, classes: str = "") -> None:
        """`name`: the elements' id; `label`: a key of the words."""
        self._name = name
        self.photo = photo_input(label=word(label), height=height, elem_id=name, elem_classes=f"person-photo {classes}")
        with gr.Accordion(word("person.card"), open=False, elem_id=f"{name}-card-box"):
            self.card = gr.File(label=word("card.file"), file_types=list(SUFFIXES), height=90, elem_id=f"{name}-card")

    @property
    def inputs(self) -> dict[str, Any]:
        """Components by the names under which `given` reads their values."""
        return {f"{self._name}-photo": self.photo, f"{self._name}-card": self.card}

    def given(self, values: dict[str, Any]) -> Path | None:
        """The file that tells who this is, or None."""
        file = values[f"{self._name}-card"] or values[f"{self._name}-photo"]
        return Path(file) if file else None
