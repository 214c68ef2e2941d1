"""The page's words in five languages.

Labels and the like go through Gradio's i18n (`word`). Gradio translates one marker per value only and none in
toasts, so text inside HTML carries its key in `data-word` (`span`), which `page.js` fills in the browser from the
same tables and in the language Gradio chose.
"""

import html
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo.request import GenerationRequest

LANGUAGES = {"en": "English", "zh-CN": "简体中文", "es": "Español", "de": "Deutsch", "ja": "日本語"}
_FOLDER = Path(__file__).resolve().parent / "words"


@lru_cache(maxsize=1)
def tables() -> dict[str, dict[str, str]]:
    """Words by language and key. English labels of request fields come from the request itself."""
    fields = {
        key: text
        for name, field in GenerationRequest.model_fields.items()
        for key, text in ((f"field.{name}", field.title or name), (f"field.{name}.help", field.description or ""))
    }
    read = {code: json.loads((_FOLDER / f"{code}.json").read_text(encoding="utf-8")) for code in LANGUAGES}
    english = fields | read["en"] | {"language": "en"}
    return {code: english | words | {"language": code} for code, words in read.items()}


@lru_cache(maxsize=1)
def i18n() -> gr.I18n:
    """The tables as `Blocks.launch` wants them; plain `zh` readers get simplified Chinese."""
    return gr.I18n(**tables(), zh=tables()["zh-CN"])


def word(key: str) -> Any:
    """A label for a Gradio component, translated in the browser.

    Raises:
        KeyError: there is no such word.
    """
    if key not in tables()["en"]:
        raise KeyError(f"no word {key!r} in words/en.json")
    return i18n()(key)


def english(key: str, **values: object) -> str:
    """The English text of a key, for logs, the API and as what stands before the browser translates."""
    text = tables()["en"][key]
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def attributes(key: str, attribute: str = "", /, **values: object) -> str:
    """HTML attributes by which `page.js` translates an element's text, or its `title`/`aria-label`."""
    english(key)
    name = f"data-word-{attribute}" if attribute else "data-word"
    given = f" data-values='{html.escape(json.dumps(values), quote=True)}'" if values else ""
    return f'{name}="{html.escape(key)}"{given}'


def span(key: str, tag: str = "span", css: str = "", **values: object) -> str:
    """An HTML element with a translated text; `values` fill its `{places}` and are escaped."""
    css = f' class="{css}"' if css else ""
    return f"<{tag}{css} {attributes(key, '', **values)}>{html.escape(english(key, **values))}</{tag}>"


def style_word(name: str) -> str:
    """The key of a style's name, or an empty string where it has none (a user's own style)."""
    key = f"style.{name}"
    return key if key in tables()["en"] else ""
