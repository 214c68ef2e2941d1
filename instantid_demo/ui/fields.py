"""Components made from the request's fields, and the request made from their values."""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import gradio as gr
from gradio.components import Component
from pydantic import BaseModel, ValidationError

from instantid_demo.request import GenerationRequest, RequestError, extra
from instantid_demo.ui.words import tables, word

GROUPS = ("people", "pose", "words", "size", "quality", "likeness", "speed", "start", "controls", "seed", "saving")
"""Groups of fields in the page's order."""


def advanced_fields() -> list[str]:
    """Fields folded away, plain ones only: a list of parts has its own place on the page."""
    return [
        name
        for group in GROUPS
        for name in GenerationRequest.model_fields
        if extra(name).get("advanced") and extra(name)["group"] == group and _plain(name)[0] is not None
    ]


def choices(name: str) -> list[tuple[Any, Any]]:
    """A field's allowed values with their names."""
    english = tables()["en"]
    _, values = _plain(name)
    return [(word(key) if (key := f"choice.{name}.{value}") in english else str(value), value) for value in values]


def bounds(model: type[BaseModel], name: str) -> tuple[float | None, float | None]:
    """The least and greatest value of a number, None where it has none."""
    found: dict[str, float] = {}
    field = model.model_fields[name]
    for constraint in field.metadata:
        if isinstance(constraint, annotated_types.Ge):
            found["low"] = constraint.ge  # type: ignore[assignment]
        if isinstance(constraint, annotated_types.Le):
            found["high"] = constraint.le  # type: ignore[assignment]
    return found.get("low"), found.get("high")


def component(name: str, **more: Any) -> Component:
    """The component of one field: a switch, a choice or several, a slider, a number that may stay empty, or text.

    `more` overrides what the field says; `info=None` leaves the help text out.
    """
    field = GenerationRequest.model_fields[name]
    kind, values = _plain(name)
    given: dict[str, Any] = {"label": word(f"field.{name}"), "info": word(f"field.{name}.help"), "value": field.default}
    given |= {"elem_id": f"field-{name}"} | more
    low, high = bounds(GenerationRequest, name)
    if kind is bool:
        return gr.Checkbox(**given)
    if kind is tuple:
        return gr.CheckboxGroup(choices(name), **given | {"value": list(field.default)})
    if kind is Literal:
        made = gr.Radio if len(values) <= 4 else gr.Dropdown
        return made(choices(name), **given)
    if kind in (int, float):
        step = extra(name).get("step", 1)
        if field.default is None or low is None or high is None:
            # Gradio's Number turns "empty" into 0 as soon as it is drawn; pydantic reads numbers from text as well.
            empty = f"{name}.empty"
            given.setdefault("placeholder", word(empty if empty in tables()["en"] else "auto"))
            return gr.Textbox(max_lines=1, **given)
        return gr.Slider(low, high, step=step, **given)
    if kind is str:
        return gr.Textbox(**given)
    raise TypeError(f"the field {name} has its own place on the page")


def slider(model: type[BaseModel], name: str, **more: Any) -> gr.Slider:
    """The slider of a number in one of the request's parts, such as a view's yaw."""
    low, high = bounds(model, name)
    assert low is not None
    assert high is not None
    return gr.Slider(low, high, model.model_fields[name].default, **more)


def request_of(values: Mapping[str, Any]) -> GenerationRequest:
    """The request of what the form holds; empty values mean: as the model has it.

    Raises:
        RequestError: with the first thing that does not fit, in a sentence.
    """
    try:
        return GenerationRequest(**{name: value for name, value in values.items() if value not in (None, "", (), [])})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        message = str(first["msg"]).removeprefix("Value error, ")
        label = GenerationRequest.model_fields[name].title if name in GenerationRequest.model_fields else ""
        raise RequestError(f"{label}: {message}." if label else message) from error


def _plain(name: str) -> tuple[Any, tuple[Any, ...]]:
    """`(type, choices)` of a simple field; type None where the field is made of parts or a path."""
    annotation: Any = GenerationRequest.model_fields[name].annotation
    while True:
        origin = get_origin(annotation)
        if origin in (Union, UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        elif origin is Annotated:
            annotation = get_args(annotation)[0]
        else:
            break
    if get_origin(annotation) is Literal:
        return Literal, get_args(annotation)
    if get_origin(annotation) is tuple and get_origin(get_args(annotation)[0]) is Literal:
        return tuple, get_args(get_args(annotation)[0])
    return (annotation, ()) if annotation in (bool, int, float, str) else (None, ())
