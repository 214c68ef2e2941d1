"""The Verify tab: signed? watermarked? with which settings?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from instantid_demo.ui import records
from instantid_demo.ui.create import Create
from instantid_demo.ui.desk import QUIET, Desk, spoken
from instantid_demo.ui.words import span, word

if TYPE_CHECKING:
    from instantid_demo.provenance.verify import Verification

_MARK = {"trusted": "good", "untrusted": "unsure", "tampered": "bad", "absent": "unsure"}


class Verify:
    """Takes a picture file and says in words what it tells about its origin."""

    def __init__(self, desk: Desk, create: Create, tabs: gr.Tabs) -> None:
        self.desk = desk
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320), gr.Column(elem_classes="card"):
                gr.HTML(span("verify.title", "h2"), elem_classes="card-title", apply_default_css=False)
                # A file, not a picture: Gradio may encode pictures anew, which would strip what is looked for.
                file = gr.File(
                    label=word("verify.file"), file_types=[".png", ".jpg", ".jpeg", ".webp"], elem_id="verify-file"
                )
            with gr.Column(scale=6, min_width=320):
                found = gr.HTML(elem_id="verify-result", apply_default_css=False)
                restore = gr.Button(word("verify.restore"), visible=False, elem_id="verify-restore")
        settings = gr.State({})
        file.change(spoken(self._look), [file], [found, restore, settings], **(QUIET | {"show_progress": "minimal"}))
        restore.click(create.fill, [settings], create.fillable, **QUIET).then(
            lambda: gr.update(selected="create"), None, tabs, **QUIET
        )

    def _look(self, file: str | None) -> tuple[str, Any, Mapping[str, Any]]:
        from instantid_demo.provenance import verify

        if not file:
            return "", gr.update(visible=False), {}
        found = verify.verify(Path(file), self.desk.settings.signing_certificate, self.desk.settings.home)
        return shown(found), gr.update(visible=bool(found.settings)), dict(found.settings)


def shown(found: "Verification") -> str:
    """What was found, as HTML."""
    manifest = span("verify.manifest.own" if found.own else f"verify.manifest.{found.manifest}", "p")
    models = records.table([("models", ", ".join(found.models))]) if found.models else ""
    mark = span("verify.watermark.yes" if found.watermark else "verify.watermark.no", "p")
    settings = records.settings_table(found.settings) or span("verify.nosettings", "p")
    return (
        '<div class="records">'
        f'<div class="record {"good" if found.own else _MARK[found.manifest]}" data-manifest="{found.manifest}">'
        f"{span('verify.credentials', 'h3')}{manifest}{models}</div>"
        f'<div class="record {"good" if found.watermark else "unsure"}" data-watermark="{found.watermark}">'
        f"{span('verify.watermark', 'h3')}{mark}</div>"
        f'<div class="record">{span("verify.settings", "h3")}{settings}</div></div>'
    )
