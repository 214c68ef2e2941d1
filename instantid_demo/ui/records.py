"""Tables of settings and facts, as HTML with everything escaped."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from instantid_demo.ui.words import span, tables


def settings_table(settings: Mapping[str, Any]) -> str:
    """Request fields with their translated labels; empty where there are none."""
    return table((f"field.{name}", _text(value)) for name, value in settings.items() if name != "consent")


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of (key of a word, plain text); a key without a word stands as it is."""
    known = tables()["en"]
    cells = [
        f"<tr><td>{span(key) if key in known else html.escape(key)}</td><td>{html.escape(text)}</td></tr>"
        for key, text in rows
        if text
    ]
    return f"<table>{''.join(cells)}</table>" if cells else ""


def _text(value: Any) -> str:
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
