"""The consent box: one per tab that takes faces, all of them the same answer, remembered in the browser."""

import gradio as gr

from instantid_demo.settings import Settings
from instantid_demo.ui.desk import INSTANT
from instantid_demo.ui.words import word


class Consents:
    """Makes the boxes and keeps them alike."""

    def __init__(self, settings: Settings) -> None:
        self._info = settings.own_photos_only or word("consent.info")
        self._asked = settings.consent
        self._remembered = gr.BrowserState(False, storage_key="studio-consent")
        self._boxes: list[gr.Checkbox] = []

    def box(self, name: str) -> gr.Checkbox:
        """A box with the element id `consent` or `consent-name`; invisible where the host asks for no consent."""
        made = gr.Checkbox(
            False,
            label=word("consent.label"),
            info=self._info,
            elem_id="consent" if name == "create" else f"consent-{name}",
            elem_classes="consent",
            visible=self._asked,
        )
        self._boxes.append(made)
        return made

    def connect(self, page: gr.Blocks) -> None:
        """Restores the answer when the page opens, and passes a change of one box on to the others."""
        count = len(self._boxes)
        page.load(None, [self._remembered], self._boxes, js=f"(given) => Array({count}).fill(!!given)", **INSTANT)
        for box in self._boxes:
            box.input(
                None,
                [box],
                [self._remembered, *self._boxes],
                js=f"(given) => Array({count + 1}).fill(given)",
                **INSTANT,
            )
