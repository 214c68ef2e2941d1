"""The History tab: what was made, newest first, to search, use again, compare and delete."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo.history import Entry
from instantid_demo.history import History as Pictures
from instantid_demo.request import RequestError
from instantid_demo.ui import records, stage
from instantid_demo.ui.choice import Option, picture_choice
from instantid_demo.ui.create import Create
from instantid_demo.ui.desk import QUIET, Desk, spoken
from instantid_demo.ui.showing import served
from instantid_demo.ui.words import english, span, word

MOST = 60
_NAME_LENGTH = 60


class History:
    """Thumbnails on the left, the chosen picture with its settings on the right."""

    def __init__(self, desk: Desk, create: Create, tabs: gr.Tabs, tab: gr.Tab) -> None:
        self.desk = desk
        if not desk.settings.keeps_history:
            gr.HTML(span("history.off", "p", "note"), elem_id="history-off", apply_default_css=False)
            return
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=6, min_width=320):
                with gr.Row():
                    search = gr.Textbox(label=word("history.search"), elem_id="history-search", scale=4)
                    refresh = gr.Button(word("history.refresh"), size="sm", elem_id="history-refresh", min_width=90)
                empty = gr.HTML(elem_id="history-empty", apply_default_css=False)
                pictures = picture_choice(
                    [], name_word="history.pictures", elem_id="history-pictures", elem_classes="history"
                )
            with gr.Column(scale=5, min_width=320):
                shown = gr.Image(
                    label=word("pictures"),
                    type="filepath",
                    interactive=False,
                    visible=False,
                    elem_id="history-shown",
                    buttons=["fullscreen"],
                    height=360,
                )
                about = gr.HTML(span("history.choose", "p", "note"), elem_id="history-about", apply_default_css=False)
                with gr.Row(visible=False, elem_classes="next-row") as actions:
                    use = gr.Button(word("history.use"), variant="primary", elem_id="history-use", size="sm")
                    download = gr.DownloadButton(word("download"), elem_id="history-download", size="sm")
                    mark = gr.Button(word("history.first"), elem_id="history-mark", size="sm")
                    delete = gr.Button(word("history.delete"), variant="stop", elem_id="history-delete", size="sm")
                slider = gr.ImageSlider(
                    label=english("history.compare"),
                    visible=False,
                    interactive=False,
                    elem_id="history-slider",
                    buttons=[],
                )
        marked = gr.State("")
        listing = [pictures, empty]
        detail = [shown, about, actions, download]
        for event in (tab.select, refresh.click, search.submit, search.change):
            event(spoken(self._list), [search], listing, trigger_mode="always_last", **QUIET)
        pictures.input(spoken(self._choose), [pictures], detail, **QUIET).then(
            spoken(self._compare), [pictures, marked], [slider, marked], **QUIET
        )
        mark.click(self._mark, [pictures], [marked], **QUIET)
        use.click(spoken(self._use(create)), [pictures], create.fillable, **QUIET).success(
            lambda: gr.update(selected="create"), None, tabs, **QUIET
        )
        delete.click(spoken(self._delete), [pictures], [], **QUIET).success(
            spoken(self._list), [search], listing, **QUIET
        ).then(self._nothing, None, detail, **QUIET)

    def _pictures(self, visitor: gr.Request) -> Pictures:
        folder = self.desk.outputs(visitor)
        if folder is None:
            raise RequestError(english("history.off"))
        return Pictures(folder)

    def _list(self, search: str, visitor: gr.Request) -> tuple[Any, Any]:
        entries = self._pictures(visitor).entries(search or "", MOST)
        options: list[Option] = [
            {"id": entry.file.name, "name": name_of(entry), "picture": thumbnail(entry.file, entry.time)}
            for entry in entries
        ]
        note = "" if options else span("history.empty", "p", "note")
        # The choice is left alone: the visitor may have made one while the list was read.
        return gr.update(options=options), note

    def _entry(self, name: str, visitor: gr.Request) -> Entry:
        for entry in self._pictures(visitor).entries(most=2**31):
            if entry.file.name == name:
                return entry
        raise RequestError("That picture is not in the history any more: reload the list.")

    def _choose(self, name: str, visitor: gr.Request) -> tuple[Any, Any, Any, Any]:
        entry = self._entry(name, visitor)
        file = str(served(self.desk, entry.file, visitor))
        facts = records.settings_table(entry.settings) or span("verify.nosettings", "p")
        return (
            gr.update(value=file, visible=True),
            f'<div class="record">{facts}</div>',
            gr.update(visible=True),
            gr.update(value=file),
        )

    def _nothing(self) -> tuple[Any, Any, Any, Any]:
        hidden = gr.update(visible=False)
        return gr.update(value=None, visible=False), span("history.choose", "p", "note"), hidden, gr.skip()

    def _mark(self, name: str) -> str:
        gr.Info(span("history.marked"), title=span("history.compare"))
        return name

    def _compare(self, name: str, marked: str, visitor: gr.Request) -> tuple[Any, str]:
        if not marked or marked == name:
            return gr.update(visible=False), marked
        pair = tuple(str(served(self.desk, self._entry(each, visitor).file, visitor)) for each in (marked, name))
        return gr.update(value=pair, visible=True), ""

    def _use(self, create: Create) -> Any:
        def use(name: str, visitor: gr.Request) -> dict[Any, Any]:
            return create.fill(self._entry(name, visitor).settings)

        return use

    def _delete(self, name: str, visitor: gr.Request) -> None:
        pictures = self._pictures(visitor)
        pictures.delete(pictures.folder / Path(name).name)


def name_of(entry: Entry) -> str:
    """The prompt's beginning, or the style, or the seed, or the file's name."""
    seed = entry.settings.get("seed")
    text = entry.prompt or str(entry.settings.get("style", "")) or (f"#{seed}" if seed else entry.file.stem)
    return text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"


@lru_cache(maxsize=512)
def thumbnail(file: Path, changed: float) -> str:
    """A small picture for the list, remembered until the file changes."""
    from PIL import Image

    with Image.open(file) as picture:
        return stage.data_uri(picture, 160, 70)
