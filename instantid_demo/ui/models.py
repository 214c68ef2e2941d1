"""The Models tab: which model paints, what else there is with size and licence, download and delete."""

import html
import shutil
import threading
from collections.abc import Iterator
from typing import Any, get_args

import gradio as gr

from instantid_demo.backends import converted
from instantid_demo.models import catalogue, download
from instantid_demo.request import RequestError
from instantid_demo.ui.desk import QUIET, Desk, as_error, spoken
from instantid_demo.ui.words import english, span, word

BUILT_IN = ("auto", "pocket")


class Models:
    """The chooser on top, the catalogue with its actions below it; a host for others shows the chooser alone."""

    def __init__(self, desk: Desk, model: gr.State, badge: gr.HTML, tab: gr.Tab, header: Any) -> None:
        """`model` holds the visitor's choice for all tabs; `header(model)` is the page's head for it."""
        self.desk = desk
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320):
                with gr.Column(elem_classes="card"):
                    gr.HTML(span("models.title", "h2"), elem_classes="card-title", apply_default_css=False)
                    gr.HTML(span("models.help", "p", "note"), elem_classes="card-title", apply_default_css=False)
                    chosen = gr.Dropdown(
                        self._ready(),
                        value="auto",
                        label=word("models.choose"),
                        allow_custom_value=not desk.settings.hosted,
                        elem_id="models-choose",
                    )
                    note = gr.HTML(elem_id="models-note", elem_classes="card-title", apply_default_css=False)
                if not desk.settings.hosted:
                    with gr.Column(elem_classes="card"):
                        pick = gr.Dropdown(
                            [(entry.label, entry.name) for entry in catalogue.ENTRIES],
                            value=None,
                            label=word("models.pick"),
                            info=word("models.name"),
                            allow_custom_value=True,
                            elem_id="models-pick",
                        )
                        facts = gr.HTML(elem_id="models-facts", elem_classes="card-title", apply_default_css=False)
                        agree = gr.Checkbox(False, label=word("models.agree"), elem_id="models-agree", visible=False)
                        with gr.Row():
                            get = gr.Button(
                                word("models.download"), variant="primary", elem_id="models-download", interactive=False
                            )
                            delete = gr.Button(
                                word("models.delete"), variant="stop", elem_id="models-delete", interactive=False
                            )
                        progress = gr.HTML(
                            elem_id="models-progress", elem_classes="card-title", apply_default_css=False
                        )
                        convert = gr.Checkbox(
                            not converted.declined(desk.settings),
                            label=word("models.convert"),
                            elem_id="models-convert",
                        )
            with gr.Column(scale=6, min_width=320):
                listing = gr.HTML(elem_id="models-list", apply_default_css=False)
        chosen.change(spoken(self._choose), [chosen, model], [model, note, chosen], **QUIET).then(
            lambda name: header(desk, name), [model], badge, **QUIET
        )
        refreshed = [chosen, listing]
        tab.select(self._refresh, [model], refreshed, **QUIET)
        if desk.settings.hosted:
            return
        tab.select(lambda: not converted.declined(desk.settings), None, [convert], **QUIET)
        convert.input(spoken(self._convert), [convert], None, **QUIET)
        actions = [facts, agree, get, delete]
        pick.change(spoken(self._facts), [pick], actions, **QUIET)
        agree.change(lambda given: gr.update(interactive=given), [agree], [get], queue=False, **QUIET)
        get.click(self._download, [pick, agree], [progress, get], concurrency_limit=1, **QUIET).then(
            self._refresh, [model], refreshed, **QUIET
        ).then(spoken(self._facts), [pick], actions, **QUIET)
        delete.click(spoken(self._delete), [pick], [progress], **QUIET).success(
            self._refresh, [model], refreshed, **QUIET
        ).then(spoken(self._facts), [pick], actions, **QUIET)

    def _ready(self) -> list[tuple[Any, str]]:
        """Models that can paint now."""
        found = [(word(f"models.{name}"), name) for name in BUILT_IN]
        for name, _ in download.present(self.desk.settings):
            if not catalogue.knows(name) or catalogue.entry(name).kind == "base":
                found.append((catalogue.label(name), name))
        return found

    def _refresh(self, model: str) -> tuple[Any, str]:
        choices = self._ready()
        if model not in [name for _, name in choices]:
            choices.append((model, model))
        return gr.update(choices=choices, value=model), self._listing()

    def _choose(self, name: str | None, before: str) -> tuple[str, Any, Any]:
        """Takes a model that is complete, or says what it lacks and keeps the one before."""
        name = (name or "auto").strip()
        if name == before:
            return before, gr.skip(), gr.skip()
        if self.desk.settings.hosted and name not in [known for _, known in self._ready()]:
            raise RequestError(f"This host does not offer {name}: choose a model of its list.")
        try:
            label = self.desk.engine.badge(name).label
        except RequestError as error:
            return before, f'<p class="hint">{html.escape(str(error))}</p>', before
        return name, f'<p class="note">{html.escape(label)}: {span("models.chosen")}</p>', gr.skip()

    def _listing(self) -> str:
        here = dict(download.present(self.desk.settings))
        models = self.desk.settings.models
        place = next(folder for folder in (models, *models.parents) if folder.is_dir())
        parts = [span("models.disk", "p", "note", free=f"{shutil.disk_usage(place).free / 1e9:.0f}")]
        parts.append(_record(english("models.pocket"), span("models.pocket.about"), 0.0, "Apache-2.0", True))
        for kind in get_args(catalogue.Kind):
            for entry in catalogue.ENTRIES:
                if entry.kind == kind:
                    ready = entry.name in here
                    size = here.get(entry.name, entry.gigabytes)
                    parts.append(_record(entry.label, html.escape(entry.about), size, entry.licence, ready))
        parts += [_record(name, "", size, "", True) for name, size in here.items() if not catalogue.knows(name)]
        for name, size in converted.kept(self.desk.settings):
            about = span("models.converted", size=f"{size:.1f}")
            parts.append(_record(catalogue.label(name), about, 0.0, "", True))
        return f'<div class="records">{"".join(parts)}</div>'

    def _facts(self, name: str | None) -> tuple[str, Any, Any, Any]:
        if not name:
            off = gr.update(interactive=False)
            return "", gr.update(visible=False, value=False), off, off
        entry = download.wanted(name.strip())
        ready = catalogue.local(entry.name, self.desk.settings) is not None
        size, licence = entry.gigabytes, entry.licence
        if not size and not ready:
            # A stranger's: size, licence and kind are asked before anybody agrees to it.
            self._require_online()
            planned = download.plan(entry)
            size, licence = planned.size / download.GIGABYTE, planned.licence
        return (
            _record(entry.label, html.escape(entry.about), size, licence, ready),
            gr.update(visible=not ready, value=False),
            gr.update(interactive=False),
            gr.update(interactive=ready or self._begun(entry.name)),
        )

    def _begun(self, name: str) -> bool:
        return name in dict(download.unfinished(self.desk.settings))

    def _require_online(self) -> None:
        if self.desk.settings.offline:
            raise RequestError("Downloads are switched off here: unset INSTANTID_OFFLINE first.")

    def _download(self, name: str, agreed: bool) -> Iterator[tuple[Any, Any]]:
        """Fetches in a thread of its own and tells how much of it is here already."""
        settings = self.desk.settings
        if not agreed:
            return
        failed: list[Exception] = []
        told = {"done": 0, "total": 0}

        def fetch() -> None:
            try:
                self._require_online()
                entry = download.wanted(name.strip())
                download.fetch(entry, settings.models, lambda done, total: told.update(done=done, total=total))
            except Exception as error:  # shown to the user by the loop below
                failed.append(error)

        thread = threading.Thread(target=fetch, name="download", daemon=True)
        thread.start()
        while thread.is_alive():
            done, total = (count / download.GIGABYTE for count in told.values())
            yield _bar(done, total), gr.update(interactive=False)
            thread.join(1.0)
        if failed:
            yield "", gr.update(interactive=True)
            raise as_error(failed[0])
        yield span("models.done", "p", "note"), gr.update(interactive=False)

    def _convert(self, wanted: bool) -> None:
        try:
            converted.decline(self.desk.settings, not wanted)
        except OSError as error:
            raise RequestError(f"This wish could not be kept: {error.strerror or error}.") from error

    def _delete(self, name: str) -> str:
        name = name.strip()
        download.delete(download.wanted(name).name if "/" in name else name, self.desk.settings)
        return span("models.done", "p", "note")


def _record(label: str, about: str, size: float, licence: str, ready: bool) -> str:
    """One model; `about` is HTML, the rest plain text."""
    facts = [span("models.present" if ready else "models.absent", css="fact ready" if ready else "fact")]
    if size:
        facts.append(span("models.size", css="fact", size=f"{size:.1f}"))
    if licence:
        facts.append(span("models.licence", css="fact", licence=licence))
    return (
        f'<div class="record{" good" if ready else ""}"><h3>{html.escape(label)}</h3>'
        f'{f"<p>{about}</p>" if about else ""}<div class="facts">{"".join(facts)}</div></div>'
    )


def _bar(done: float, total: float) -> str:
    share = min(100, round(100 * done / total)) if total else 0
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{share}"><i style="width:{share}%"></i></div>'
        f"{span('models.progress', 'p', 'note', done=f'{done:.1f}', total=f'{total:.1f}')}"
    )
