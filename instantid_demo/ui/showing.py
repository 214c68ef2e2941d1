"""Runs requests for a tab and shows what comes: progress, saved pictures, likeness in words."""

import html
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo import series
from instantid_demo.jobs import Cancelled, Job
from instantid_demo.request import GenerationRequest, Likeness, Progress, RequestError, Result
from instantid_demo.ui import stage
from instantid_demo.ui.desk import Desk, as_error
from instantid_demo.ui.words import attributes, span, word

LIKENESS_WORDS = {
    "strong": "likeness.strong",
    "fair": "likeness.fair",
    "weak": "likeness.weak",
    "profile: not comparable": "likeness.profile",
    "no face found": "likeness.none",
}


class Show:
    """The right side of a tab: stage, gallery, what is known about the chosen picture, and its file."""

    def __init__(self, name: str) -> None:
        """`name`: prefix of the elements' ids, such as `create`."""
        with gr.Column(elem_classes="show"):
            self.stage = stage.component(elem_id=f"{name}-stage")
            self.gallery = gr.Gallery(
                label=word("pictures"),
                elem_id=f"{name}-gallery",
                elem_classes="made",
                visible=False,
                columns=2,
                height="auto",
                object_fit="contain",
                interactive=False,
                buttons=["fullscreen"],
                preview=False,
            )
            self.about = gr.HTML(elem_id=f"{name}-about", elem_classes="about-picture", apply_default_css=False)
            self.download = gr.DownloadButton(
                word("download"), elem_id=f"{name}-download", variant="primary", visible=False, size="md"
            )
            self.made = gr.State(None)
        self.gallery.select(
            self._choose, [self.made], [self.made, self.about, self.download], api_visibility="private", queue=False
        )

    @property
    def outputs(self) -> list[Any]:
        """The components that `play` updates."""
        return [self.stage, self.gallery, self.about, self.download, self.made]

    @staticmethod
    def _choose(made: dict[str, Any] | None, event: gr.SelectData) -> tuple[Any, Any, Any]:
        if not made:
            return made, gr.skip(), gr.skip()
        index = min(int(event.index), len(made["files"]) - 1)
        made = {**made, "chosen": index}
        return made, about(made), gr.update(value=made["files"][index])

    def starting(self) -> dict[Any, Any]:
        """What the page shows from the click until the first sign of life."""
        waiting = Progress(stage="queued")
        return {
            self.stage: gr.update(value=stage.shown(waiting), visible=True),
            self.gallery: gr.update(visible=False, selected_index=None),
            self.about: "",
            self.download: gr.update(visible=False),
        }

    def play(
        self,
        desk: Desk,
        requests: list[GenerationRequest],
        visitor: gr.Request,
        *,
        as_sheet: bool = False,
        remark: Callable[[Result], list[str]] | None = None,
    ) -> Generator[dict[Any, Any], None, None]:
        """Runs the requests in a row and yields updates of `outputs`, the last with the saved pictures.

        Args:
            desk: Settings and engine.
            requests: Run one after another with one seed.
            visitor: Whose job it is.
            as_sheet: Lay all pictures on one sheet.
            remark: More HTML about each picture of a result.

        Raises:
            gr.Error: with one sentence; the stage is empty again by then.
        """
        yield self.starting()
        results: list[Result] = []
        try:
            with desk.job(visitor) as job:
                for event in run(desk, requests, job):
                    if isinstance(event, Result):
                        results.append(event)
                        continue
                    if event.stage == "queued" and not desk.engine.loaded_model:
                        # The model is being read ahead of the first request; nobody else is in the line.
                        event = Progress(stage="loading")
                    yield {self.stage: stage.shown(event)}
                yield {self.stage: stage.shown(Progress(stage="checking"))}
                yield self.finished(desk, results, visitor, as_sheet, remark)
        except Cancelled:
            yield self.back("stage.cancelled")
        except Exception as error:
            yield self.back()
            raise as_error(error) from error

    def back(self, text: str = "stage.empty") -> dict[Any, Any]:
        """The empty stage after a run that gave nothing."""
        return {self.stage: gr.update(value=stage.empty(text), visible=True)}

    def finished(
        self,
        desk: Desk,
        results: list[Result],
        visitor: gr.Request,
        as_sheet: bool,
        remark: Callable[[Result], list[str]] | None = None,
    ) -> dict[Any, Any]:
        """Saves the results and shows them."""
        made = keep(desk, [series.sheet(results)] if as_sheet else results, visitor)
        made["sheet"] = as_sheet
        made["remarks"] = [text for result in results for text in remark(result)] if remark else []
        pictures = [(file, caption(made, index)) for index, file in enumerate(made["files"])]
        return {
            self.stage: gr.update(value=stage.empty(), visible=False),
            self.gallery: gr.update(
                value=pictures, visible=True, columns=1 if len(pictures) == 1 else 2 if len(pictures) < 5 else 3
            ),
            self.about: about(made),
            self.download: gr.update(value=made["files"][0], visible=True),
            self.made: made,
        }


def run(desk: Desk, requests: list[GenerationRequest], job: Job) -> Iterator[Progress | Result]:
    """The engine's events of one request, or of several in a row.

    Raises:
        RequestError: on a host for others a request names a file, or a model that the host does not offer.
    """
    if desk.settings.hosted:
        from instantid_demo.models import catalogue

        for name in {name for request in requests for name in _models_of(request)}:
            if name not in ("auto", "pocket") and not catalogue.knows(name):
                raise RequestError(f"This host does not offer {name}: choose a model of its list.")
    if len(requests) == 1:
        yield from desk.engine.run(requests[0], job=job)
    else:
        yield from series.run(desk.engine, requests, job)


def _models_of(request: GenerationRequest) -> tuple[str, ...]:
    """Everything that a request loads by name."""
    nets = (control.net for control in request.control if control.net)
    return (request.model, *(lora.source for lora in request.lora), *nets)


def keep(desk: Desk, results: list[Result], visitor: gr.Request | None) -> dict[str, Any]:
    """Saves results as signed files and notes them in the history; a JSON-ready record for the page."""
    from instantid_demo import saving

    record: dict[str, Any] = {
        key: [] for key in ("files", "seeds", "likeness", "notes", "blocked", "settings", "record", "seconds")
    }
    record["chosen"] = 0
    for result in results:
        saved = saving.save(result, desk.outputs(visitor) or desk.folder(visitor), desk.settings)
        record["files"] += [str(served(desk, file, visitor)) for file in saved]
        record["seeds"] += list(result.seeds)
        record["likeness"] += [[entry.model_dump() for entry in entries] for entries in result.likeness]
        record["blocked"] += list(result.blocked) or [False] * len(saved)
        record["settings"] += [result.request.public()] * len(saved)
        record["record"] += [result.request.arranged()] * len(saved)
        record["seconds"] += [round(result.seconds.get("total", 0), 1)] * len(saved)
        record["notes"] += [list(result.notes)] * len(saved)
    return record


def served(desk: Desk, file: Path, visitor: gr.Request | None) -> Path:
    """The file itself, or its copy in the visitor's folder: the page never serves the history's own folder."""
    folder = desk.folder(visitor)
    if folder in file.parents:
        return file
    copy = folder / file.name
    copy.write_bytes(file.read_bytes())
    return copy


def likeness_words(entries: list[dict[str, Any]], *, sheet: bool = False) -> str:
    """Likeness as a coloured word per person, of a sheet once per word; the numbers are in the tooltip."""
    found = [Likeness(**values) for values in entries]
    alike = [[entry for entry in found if entry.word == name] for name in LIKENESS_WORDS]
    badges = []
    for index, group in enumerate(filter(None, alike) if sheet else ([entry] for entry in found)):
        key = LIKENESS_WORDS[group[0].word]
        numbers = ", ".join("–" if entry.value is None else f"{entry.value:.2f}" for entry in group)
        who = span("group.person", css="who", n=index + 1) + " " if len(found) > 1 and not sheet else ""
        times = f" × {len(group)}" if len(group) > 1 else ""
        badges.append(
            f'<span class="likeness {key.removeprefix("likeness.")}" tabindex="0" '
            f"{attributes('likeness.tooltip', 'title', number=numbers)}>{who}{span(key)}{times}</span>"
        )
    return "".join(badges)


def caption(made: dict[str, Any], index: int) -> str:
    """The gallery's caption: the seed, which is the same in every language."""
    return f"#{made['seeds'][index]}" if index < len(made["seeds"]) else ""


def about(made: dict[str, Any]) -> str:
    """What is known about the chosen picture, as HTML."""
    index = made["chosen"]
    entries = made["likeness"][index] if index < len(made["likeness"]) else []
    facts = [
        span("about.seed", css="fact", seed=made["seeds"][index]),
        span("about.seconds", css="fact", seconds=made["seconds"][index]),
    ]
    badges = likeness_words(entries, sheet=made.get("sheet", False))
    parts = [f'<div class="facts">{badges}{"".join(facts)}</div>']
    remarks = made["remarks"][index : index + 1]
    parts += remarks
    # A remark says it better: a blend is meant to be less alike to each of its two.
    if any(entry["word"] == "weak" for entry in entries) and not remarks:
        parts.append(span("likeness.hint.weak", "p", "hint"))
    if any(entry["word"] == "no face found" for entry in entries):
        parts.append(span("likeness.hint.none", "p", "hint"))
    if made["blocked"][index]:
        parts.append(span("about.blocked", "p", "hint"))
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in made["notes"][index]]
    return f'<div class="about-made">{"".join(parts)}</div>'
