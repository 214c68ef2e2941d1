"""Request fields as command-line flags: built from the fields, parsed back into a request, errors in one sentence."""

import argparse
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from instantid_demo.request import GenerationRequest, RequestError

NOT_A_FLAG = frozenset({"consent"})
"""The command line's help states what consent means; using it is the statement."""
SYNTAX = {
    "person": ("PHOTO@X0,Y0,X1,Y1", "may be repeated; append ,yaw=30,pitch=0,roll=0 for a view"),
    "control": (
        "KIND[@NET]=FILE[:STRENGTH[,START,END]]",
        "pose, depth or canny from a photo; pose-map, depth-map, canny-map for a ready map; @NET is an own ControlNet: "
        "a folder, a file or a hub id; may be repeated",
    ),
    "lora": ("SOURCE[:WEIGHT]", "may be repeated"),
    "view": ("yaw=30,pitch=0,roll=0", "or a view's name; +yaw turns towards the picture's right"),
    "place": ("x=0.5,y=0.5,size=1", "centre in fractions of the picture"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def add(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Adds a flag per request field; fields not given on the command line stay out of the result."""
    for name, info in GenerationRequest.model_fields.items():
        if name in NOT_A_FLAG or (names is not None and name not in names):
            continue
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        kind, repeated = _kind(info.annotation)
        metavar, more = SYNTAX.get(name, (None, "may be repeated" if repeated else ""))
        default = "" if info.default in (None, (), "", PydanticUndefined) or info.default is False else info.default
        told = f"default {default:g}" if isinstance(default, float) else f"default {default}" if default != "" else ""
        parts = (str(info.description).rstrip("."), _range(info.metadata), more, told)
        help_text = "; ".join(part for part in parts if part)
        options["help"] = help_text.replace("%", "%%")
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = metavar or _metavar(kind)
            if repeated:
                options["action"] = "append"
        parser.add_argument(f"--{name.replace('_', '-')}", **options)


def request(given: Mapping[str, Any], restored: Mapping[str, Any] | None = None) -> GenerationRequest:
    """The request of parsed flags.

    Args:
        given: the parser's result; keys that are no request fields are ignored.
        restored: fields from a picture's settings, which the flags overrule.

    Raises:
        RequestError: a value has the wrong form or lies outside its range.
    """
    fields = {name: value for name, value in (restored or {}).items() if name in GenerationRequest.model_fields}
    for name, value in given.items():
        if name in GenerationRequest.model_fields:
            fields[name] = [_parse(name, one) for one in value] if isinstance(value, list) else _parse(name, value)
    if {"person", "face"} <= set(fields) and "face" not in given:
        del fields["face"]
    return validated(fields)


def validated(fields: Mapping[str, Any]) -> GenerationRequest:
    """A request of fields in their JSON form.

    Raises:
        RequestError: the first thing that is wrong, in one sentence.
    """
    try:
        return GenerationRequest.model_validate(dict(fields))
    except ValidationError as error:
        raise RequestError(in_words(error)) from error


def in_words(error: ValidationError) -> str:
    """The first complaint of a validation as one sentence."""
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    where = ".".join(str(part) for part in first["loc"] if not isinstance(part, int)).replace("_", "-")
    if not where:
        return f"{message}."
    if first["type"] == "value_error":  # it is about several values and says itself what is wrong
        return f"--{where}: {message[0].lower()}{message[1:]}."
    return f"--{where}: {message[0].lower()}{message[1:]}, not {str(first['input'])[:80]!r}."


def _parse(name: str, value: Any) -> Any:
    parse = {"person": _person, "control": _control, "lora": _lora, "view": _view, "place": _place}.get(name)
    if not isinstance(value, str):
        return value
    if parse:
        return parse(value)
    options = get_args(GenerationRequest.model_fields[name].annotation)
    return next((option for option in options if isinstance(option, int) and str(option) == value), value)


def _person(text: str) -> dict[str, Any]:
    face, at, rest = text.rpartition("@")
    parts = rest.split(",")
    numbers = [part for part in parts if "=" not in part]
    if not at or not face or len(numbers) != 4:
        raise RequestError(f"--person needs PHOTO@x0,y0,x1,y1, such as a.jpg@0,0,0.5,1, not {text!r}.")
    person: dict[str, Any] = {"face": face, "region": dict(zip(("x0", "y0", "x1", "y1"), numbers, strict=True))}
    if len(parts) > 4:
        person["view"] = _pairs("--person", ",".join(part for part in parts if "=" in part), ("yaw", "pitch", "roll"))
    return person


def _control(text: str) -> dict[str, Any]:
    kind, equals, rest = text.partition("=")
    if not equals or not rest:
        raise RequestError(f"--control needs KIND=FILE:STRENGTH, such as depth=room.png:0.5, not {text!r}.")
    kind, _, net = kind.partition("@")
    control: dict[str, Any] = {"kind": kind.removesuffix("-map"), "is_map": kind.endswith("-map"), "image": rest}
    control |= {"net": net} if net else {}
    file, colon, tail = rest.rpartition(":")
    numbers = tail.split(",")
    if colon and file and len(numbers) in (1, 3) and all(_is_number(number) for number in numbers):
        control |= {"image": file, **dict(zip(("strength", "start", "end"), numbers, strict=False))}
    return control


def _lora(text: str) -> dict[str, Any]:
    source, colon, weight = text.rpartition(":")
    return {"source": source, "weight": weight} if colon and source and _is_number(weight) else {"source": text}


def _view(text: str) -> Any:
    if "=" in text:
        return _pairs("--view", text, ("yaw", "pitch", "roll"))
    from instantid_demo.faces.views import NAMED_VIEWS

    try:
        return NAMED_VIEWS[text.strip().lower()]
    except KeyError:
        names = ", ".join(NAMED_VIEWS)
        raise RequestError(f"--view needs yaw=30,pitch=0,roll=0 or one of {names}, not {text!r}.") from None


def _place(text: str) -> Any:
    return _pairs("--place", text, ("x", "y", "size"))


def _pairs(flag: str, text: str, names: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(",") if part)
    if not pairs or not set(pairs) <= set(names) or not all(map(_is_number, pairs.values())):
        raise RequestError(f"{flag} needs numbers for {', '.join(names)}, such as {names[0]}=0.5, not {text!r}.")
    return pairs


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The type behind an optional or repeated field's annotation, and whether it repeats."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0], True
    return annotation, False


def _range(constraints: Iterable[Any]) -> str:
    """From least to most, where a field has both."""
    limits = {name: getattr(one, name) for one in constraints for name in ("ge", "le") if hasattr(one, name)}
    return f"{limits['ge']} to {limits['le']}" if len(limits) == 2 else ""


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_args(kind):
        kind = get_args(kind)[0]
    return {int: "N", float: "X", str: "TEXT"}.get(kind, "FILE")
