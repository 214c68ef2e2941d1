"""The page's place for a photo. In a module of its own: beside every component's source Gradio writes a stub of it."""

from typing import Any

import gradio as gr


class PhotoInput(gr.Image):
    """An image component that hands on the file as the user gave it.

    Gradio would open the file before any handler, and its own words for a damaged one name paths and classes. A class
    and no method put on one component: Gradio makes the component anew for a visitor who had it changed.
    """

    is_template = True
    """In the browser it is Gradio's own image component."""

    def preprocess(self, payload: Any) -> Any:
        """The file's path; what has none, such as a webcam's picture, as Gradio reads it."""
        return payload.path if payload and payload.path else super().preprocess(payload)
