"""Canvases to drag on: where one face stands in the frame, and which part of the picture belongs to whom."""

from typing import Any

import gradio as gr

from instantid_demo.ui.scripts import script

_FRAME = script("frame.js")

_REGIONS = script("regions.js")


# Both are functions, not classes: Gradio writes a .pyi file beside the source of every class of components.


def face_frame(size: tuple[int, int], **rest: Any) -> gr.HTML:
    """The frame with a head in it to drag and resize.

    Its value: `{yaw, pitch, roll}` in degrees, `{x, y}` in fractions, `size` as a factor, `{width, height}` in px.
    """
    return gr.HTML(
        {"yaw": 0, "pitch": 0, "roll": 0, "x": 0.5, "y": 0.5, "size": 1, "width": size[0], "height": size[1]},
        html_template=(
            '<div class="surface"><div class="face" tabindex="0" role="group" data-word-aria-label="view.frame">'
            '<span class="drawing"></span><span class="grip"></span></div></div>'
        ),
        js_on_load=_FRAME,
        apply_default_css=False,
        elem_classes="face-frame",
        **rest,
    )


def region_canvas(boxes: list[dict[str, float]], size: tuple[int, int], **rest: Any) -> gr.HTML:
    """Boxes to drag and resize; its value: `{boxes: [{x0, y0, x1, y1}], width, height}`, boxes in fractions."""
    return gr.HTML(
        {"boxes": boxes, "width": size[0], "height": size[1]},
        html_template='<div class="surface"></div>',
        js_on_load=_REGIONS,
        apply_default_css=False,
        elem_classes="region-canvas",
        **rest,
    )
