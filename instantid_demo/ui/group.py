"""The Group tab: two to four people, each with a photo, a box in the picture and a head position."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from instantid_demo.request import MAX_PEOPLE, GenerationRequest, Person, RequestError, region
from instantid_demo.ui import fields
from instantid_demo.ui.asking import Asking
from instantid_demo.ui.consent import Consents
from instantid_demo.ui.desk import QUIET, Desk, spoken
from instantid_demo.ui.head import named_views, usual_size
from instantid_demo.ui.person_input import PersonInput
from instantid_demo.ui.placing import region_canvas
from instantid_demo.ui.showing import Show
from instantid_demo.ui.words import english, span, tables, word

LEAST = 2


def boxes(count: int) -> list[dict[str, float]]:
    """Boxes side by side, in fractions of the picture."""
    return [{"x0": round(n / count, 3), "y0": 0.0, "x1": round((n + 1) / count, 3), "y1": 1.0} for n in range(count)]


class Group:
    """Photos in a row above a canvas with their boxes."""

    def __init__(self, desk: Desk, consents: Consents, model: gr.State) -> None:
        self.desk = desk
        self.people: list[PersonInput] = []
        self.views: list[Any] = []
        cards = []
        size = usual_size(desk)
        views = [(word("view.photo"), "")]
        views += [(word(key) if (key := f"view.{name}") in tables()["en"] else name, name) for name in named_views()]
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320), gr.Column(elem_classes="card"):
                gr.HTML(span("group.title", "h2"), elem_classes="card-title", apply_default_css=False)
                gr.HTML(span("group.help", "p", "note"), elem_classes="card-title", apply_default_css=False)
                count = gr.Radio(
                    [(str(n), n) for n in range(LEAST, MAX_PEOPLE + 1)],
                    value=LEAST,
                    label=word("group.count"),
                    elem_id="group-count",
                )
                with gr.Row(elem_classes="pair"):
                    for number in range(MAX_PEOPLE):
                        with gr.Column(min_width=140, visible=number < LEAST) as card:
                            self.people.append(
                                PersonInput(
                                    f"group-photo-{number + 1}",
                                    f"group.person.{number + 1}",
                                    height=180,
                                    classes=f"person-{number + 1}",
                                )
                            )
                            self.views.append(
                                gr.Dropdown(
                                    views, value="", label=word("group.view"), elem_id=f"group-view-{number + 1}"
                                )
                            )
                        cards.append(card)
                gr.HTML(span("group.canvas", "p", "small-title"), elem_classes="card-title", apply_default_css=False)
                self.canvas = region_canvas(boxes(LEAST), size, elem_id="group-canvas")
                self.asking = Asking(desk, consents, model, "group", "generate")
            with gr.Column(scale=6, min_width=320, elem_classes="answering"):
                self.show = Show("group")
        count.input(
            lambda chosen: [
                {"boxes": boxes(chosen), "width": size[0], "height": size[1]},
                *(gr.update(visible=number < chosen) for number in range(MAX_PEOPLE)),
            ],
            [count],
            [self.canvas, *cards],
            queue=False,
            **QUIET,
        )
        inputs = {"count": count, "canvas": self.canvas, "consent": self.asking.consent, **self.asking.values}
        for person in self.people:
            inputs |= person.inputs
        inputs |= {f"view_{number}": view for number, view in enumerate(self.views)}
        self.asking.go.click(
            self._generate,
            inputs_kwargs=inputs,
            outputs=[*self.show.outputs, self.asking.go, self.asking.stop],
            **QUIET,
        )

    def _generate(self, visitor: gr.Request, **values: Any) -> Iterator[dict[Any, Any]]:
        yield from self.asking.play(self.show, [spoken(self._request)(values)], visitor)

    def _request(self, values: dict[str, Any]) -> GenerationRequest:
        plain = self.asking.plain(values)
        known = named_views()
        people = []
        for number, box in enumerate(values["canvas"]["boxes"][: values["count"]]):
            face = self.people[number].given(values)
            if not face:
                raise RequestError(english("group.missing"))
            view = known.get(values[f"view_{number}"])
            people.append(
                Person(face=face, region=region([box.get(edge) for edge in ("x0", "y0", "x1", "y1")]), view=view)
            )
        return fields.request_of(plain | {"person": tuple(people)})
