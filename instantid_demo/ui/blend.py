"""The Blend tab: one new face of two people, or a strip from one to the other."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from instantid_demo import series
from instantid_demo.request import GenerationRequest, RequestError, Result
from instantid_demo.ui import fields, people
from instantid_demo.ui.asking import Asking
from instantid_demo.ui.consent import Consents
from instantid_demo.ui.desk import QUIET, Desk, spoken
from instantid_demo.ui.person_input import PersonInput
from instantid_demo.ui.showing import Show
from instantid_demo.ui.words import english, span, word

ENDS = ("first", "second")


class Blend:
    """Two photos or identity cards, and a slider between them."""

    def __init__(self, desk: Desk, consents: Consents, model: gr.State) -> None:
        self.desk = desk
        self.ends: dict[str, PersonInput] = {}
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320), gr.Column(elem_classes="card"):
                gr.HTML(span("blend.title", "h2"), elem_classes="card-title", apply_default_css=False)
                gr.HTML(span("blend.help", "p", "note"), elem_classes="card-title", apply_default_css=False)
                with gr.Row(elem_classes="pair"):
                    for end in ENDS:
                        with gr.Column(min_width=140):
                            self.ends[end] = PersonInput(f"blend-{end}", f"blend.{end}", height=200)
                self.share = fields.component("blend", elem_id="blend-share")
                self.asking = Asking(desk, consents, model, "blend", "blend.go")
                with gr.Row():
                    self.members = gr.Slider(
                        series.MIN_STRIP,
                        series.MAX_STRIP,
                        5,
                        step=1,
                        label=word("blend.members"),
                        elem_id="blend-members",
                        min_width=120,
                    )
                    self.strip = gr.Button(
                        word("blend.strip"), elem_id="blend-strip", elem_classes="runs", min_width=140
                    )
            with gr.Column(scale=6, min_width=320, elem_classes="answering"):
                self.show = Show("blend")
        inputs = {
            **self.ends["first"].inputs,
            **self.ends["second"].inputs,
            "blend": self.share,
            "members": self.members,
            "consent": self.asking.consent,
            **self.asking.values,
        }
        running = QUIET | {
            "inputs_kwargs": inputs,
            "outputs": [*self.show.outputs, self.asking.go, self.asking.stop],
        }
        self.asking.go.click(self._one, **running)
        self.strip.click(self._strip, **running)

    def _one(self, visitor: gr.Request, **values: Any) -> Iterator[dict[Any, Any]]:
        yield from self._play(visitor, [spoken(self._request)(values)])

    def _strip(self, visitor: gr.Request, **values: Any) -> Iterator[dict[Any, Any]]:
        request = spoken(self._request)(values)
        yield from self._play(visitor, spoken(series.strip)(request, int(values["members"])))

    def _play(self, visitor: gr.Request, requests: list[GenerationRequest]) -> Iterator[dict[Any, Any]]:
        yield from self.asking.play(self.show, requests, visitor, self._distances)

    def _request(self, values: dict[str, Any]) -> GenerationRequest:
        plain = self.asking.plain(values)
        first, second = (self.ends[end].given(values) for end in ENDS)
        if not first or not second:
            raise RequestError(english("blend.missing"))
        return fields.request_of(plain | {"face": (first,), "blend_with": (second,), "blend": values["blend"]})

    def _distances(self, result: Result) -> list[str]:
        """Per picture how alike it is to either end."""
        from instantid_demo.faces import likeness

        request = result.request
        model = request.model
        ends = [self.desk.engine.identity(file, model) for file in (request.face[0], request.blend_with[0])]
        remarks = []
        for picture in result.pictures:
            found = self.desk.engine.analyse(picture, model)
            face = found[people.largest(found)] if found else None
            values = [likeness.compare(end, face).value for end in ends]
            numbers = (
                span("blend.to", "span", "fact", n=number + 1, number="–" if value is None else f"{value:.2f}")
                for number, value in enumerate(values)
            )
            remarks.append(f'<div class="facts ends">{"".join(numbers)}</div>')
        return remarks
