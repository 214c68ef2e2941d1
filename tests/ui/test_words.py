"""The page's words: every language says all of it."""

import json
import re
from pathlib import Path

import pytest

from instantid_demo.request import GenerationRequest
from instantid_demo.ui import words

FOLDER = Path(words.__file__).parent / "words"


def table(language: str) -> dict[str, str]:
    """The words as the file has them, without English standing in for what is missing."""
    return dict(json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8")))


def places(text: str) -> set[str]:
    return set(re.findall(r"\{\w+\}", text))


def test_there_is_a_table_for_every_language() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(words.LANGUAGES)


@pytest.mark.parametrize("language", [code for code in words.LANGUAGES if code != "en"])
def test_every_word_is_translated_with_its_places(language: str) -> None:
    english, translated = table("en"), table(language)
    fields = {f"field.{name}{part}" for name in GenerationRequest.model_fields for part in ("", ".help")}
    assert set(translated) == set(english) | fields
    assert all(text.strip() for text in translated.values())
    assert {key for key, text in english.items() if places(text) != places(translated[key])} == set()
