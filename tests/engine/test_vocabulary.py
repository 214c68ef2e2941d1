"""What a model with few words gets to hear."""

import pytest

from instantid_demo import prepare
from instantid_demo.request import GenerationRequest
from instantid_demo.settings import Settings
from instantid_demo.vocabulary import known_part, mentions

KNOWN = frozenset(["portrait", "of", "a", "woman", "red", "snow", "close-up", "film", "noir", "painting", "watercolor"])


@pytest.mark.parametrize(
    ("prompt", "kept", "left_out"),
    [
        ("A portrait of a woman in the snow", "A portrait of a woman snow", []),
        ("Close-up of a woman, wearing a hat, in Paris", "Close-up of a woman, a", ["wearing", "hat", "paris"]),
        ("(red hat:1.2), (hat:1.3), [hat], snow", "(red :1.2), snow", ["hat"]),
        ("雪の中", "", ["雪の中"]),
        ("", "", []),
    ],
)
def test_unknown_words_are_left_out_and_named(prompt: str, kept: str, left_out: list[str]) -> None:
    assert known_part(prompt, KNOWN) == (kept, left_out)


def test_a_style_is_its_short_name_where_few_words_are_known() -> None:
    settings = Settings()  # type: ignore[call-arg]

    def said(style: str, prompt: str, learned: frozenset[str]) -> str:
        return prepare.words(GenerationRequest(style=style, prompt=prompt), settings, learned).prompt

    assert said("film noir", "woman with hat", KNOWN) == "film noir, woman"
    assert said("watercolor", "", KNOWN) == "watercolor painting, a person"
    assert said("none", "hat", KNOWN) == "a photo of a person"
    assert "dramatic shadows" in said("film noir", "woman with hat", frozenset())


def test_break_joins_and_is_not_named_as_a_word():
    assert known_part("a man BREAK snow", frozenset({"man", "snow"})) == ("man, snow", [])


def test_phrases_are_found_as_whole_words_alone():
    phrases = frozenset({"dark hair", "hat"})
    assert mentions("A man with Dark Hair", phrases)
    assert not mentions("a dark-haired man, chatting, dark background", phrases)
