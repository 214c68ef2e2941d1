"""The place where a picture appears: what happens now, how far it is, and the state so far."""

import base64
import io
from typing import TYPE_CHECKING, Any

import gradio as gr

from instantid_demo.request import Progress
from instantid_demo.ui.scripts import script
from instantid_demo.ui.words import english

if TYPE_CHECKING:
    from PIL import Image

_PREVIEW_SIDE = 384
_DRAW = script("stage.js")
_TEMPLATE = """<div class="stage" data-state="empty" aria-live="polite"><img alt="" hidden>
<div class="empty"><svg viewBox="0 0 96 96" aria-hidden="true"><rect x="14" y="10" width="68" height="76" rx="10"/>
<ellipse cx="48" cy="43" rx="15" ry="19"/><path d="M22 86c3-15 13-20 26-20s23 5 26 20"/></svg>
<p data-word="stage.empty"></p></div>
<div class="working" hidden><div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100"><i></i></div>
<p><span class="text"></span> <span class="detail"></span></p></div></div>"""


def component(**rest: Any) -> gr.HTML:
    """Shows progress and preview; its value is a dict made by `empty` or `shown`."""
    return gr.HTML(
        empty(),
        html_template=_TEMPLATE,
        js_on_load=_DRAW,
        apply_default_css=False,
        elem_classes="stage-holder",
        **rest,
    )


def empty(word: str = "stage.empty") -> dict[str, Any]:
    """The stage before the first picture, or after a cancelled run."""
    english(word)
    return {"state": "empty", "word": word}


def shown(progress: Progress) -> dict[str, Any]:
    """The stage of a sign of life."""
    word = f"stage.{progress.stage}"
    if progress.stage == "queued":
        word = "stage.queued" if progress.total else "stage.waiting"
    return {
        "state": "running",
        "word": word,
        "done": progress.done,
        "total": 0 if progress.stage == "queued" else progress.total,
        "place": max(progress.total, 1) if progress.stage == "queued" else 0,
        "message": progress.message if progress.stage == "loading" else "",
        "preview": data_uri(progress.preview) if progress.preview is not None else None,
    }


def data_uri(picture: "Image.Image", side: int = _PREVIEW_SIDE, quality: int = 80) -> str:
    """A small WebP of a picture for the page itself; at most `side` px, never for saving."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
