"""Style presets: complete, reference-compatible, user-addable."""

import json
from pathlib import Path

import pytest

from instantid_demo import styles
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT

OFFICIAL = ["film noir", "neon", "jungle", "mars", "vibrant color", "snow", "line art", "watercolor"]


def test_official_looks_and_more_are_there() -> None:
    names = set(styles.load())
    assert names >= set(OFFICIAL)
    assert len(names) >= 21


def test_each_style_says_its_own_name_and_keeps_the_prompt() -> None:
    for style in styles.load().values():
        words, _ = styles.apply(style.name, "a person on a bench")
        assert "a person on a bench" in words
        if style is not styles.NO_STYLE:
            assert style.key in words.lower()


@pytest.mark.parametrize("spelling", ["Film Noir", "film-noir", " film_noir ", "FILM  NOIR"])
def test_one_style_many_spellings(spelling: str) -> None:
    assert styles.find(spelling).name == "Film Noir"


@pytest.mark.parametrize("spelling", ["none", "", "(No style)"])
def test_no_style_leaves_the_words_alone(spelling: str) -> None:
    assert styles.apply(spelling, "a man", "ugly") == ("a man", " ugly")


def test_as_the_reference(shared: Path) -> None:
    for item in json.loads((shared / "parity/cases/style.json").read_text())["items"]:
        assert styles.apply(item["style"], item["prompt"], item["negative"]) == (
            item["out_prompt"],
            item["out_negative"],
        )


def test_unknown_style_names_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"“nor”.*film noir"):
        styles.find("nor")


def test_own_styles_add_and_replace(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"name": "Mine", "prompt": "mine, {prompt}"}')
    (tmp_path / "neon.json").write_text('{"name": "Neon", "prompt": "other {prompt}"}')
    both = styles.load((ROOT / "style_presets", tmp_path))
    assert styles.apply("mine", "a", "", both) == ("mine, a", " ")
    assert styles.apply("neon", "a", "b", both) == ("other a", " b")


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"name": "x"}', '{"name": "x", "prompt": "no place for it"}'])
def test_broken_preset_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(RequestError, match=r"broken\.json"):
        styles.load((tmp_path,))
