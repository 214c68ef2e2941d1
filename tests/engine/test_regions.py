"""Whatever is given for a region, the answer is a region or one sentence."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from instantid_demo import flags
from instantid_demo.request import Region, RequestError, region


@pytest.mark.parametrize("edges", [[0, 0, 1, 1], (0.5, 0, 1, 0.05), ["0", "0.1", "0.5", "1"]])
def test_four_numbers_are_a_region(edges: Any) -> None:
    assert isinstance(region(edges), Region)


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (None, "four numbers"),
        ("abcd", "four numbers"),
        (5, "four numbers"),
        ({"x0": 0, "y0": 0, "x1": 1, "y1": 1}, "four numbers"),
        ([0, 0, 1], "four numbers"),
        ([0, 0, 1, 1, 1], "four numbers"),
        (["a", 0, 1, 1], "x0 is a number from 0 to 1, not 'a'"),
        ([0, None, 1, 1], "y0 is a number from 0 to 1, not 'None'"),
        ([0, 0, math.nan, 1], "x1 is a number from 0 to 1, not 'nan'"),
        ([0, 0, math.inf, 1], "x1 is a number from 0 to 1, not 'inf'"),
        ([0, 0, 1, 1.5], "y1 is a number from 0 to 1, not '1.5'"),
        ([-1, 0, 1, 1], "x0 is a number from 0 to 1, not '-1'"),
        ([2**200, 0, 1, 1], "x0 is a number from 0 to 1"),
        ([[0], 0, 1, 1], "x0 is a number from 0 to 1"),
        ([1, 1, 0, 0], "at least 5 %"),
        ([0, 0, 0.01, 1], "at least 5 %"),
    ],
)
def test_anything_else_is_one_sentence(edges: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        region(edges)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "pydantic" not in sentence
    assert len(sentence) < 160


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("0,0,2,1", r"^--person\.region\.x1: .* not '2'\.$"),
        ("0,0,0.01,1", r"^--person\.region: a region needs at least 5 % .* x0,y0,x1,y1\.$"),
        ("a,0,1,1", r"^--person\.region\.x0: .* not 'a'\.$"),
    ],
)
def test_the_command_line_names_the_flag(at: str, said: str) -> None:
    parser = flags.Parser()
    flags.add(parser)
    with pytest.raises(RequestError, match=said):
        flags.request(vars(parser.parse_args(["--person", f"a.jpg@{at}"])))


@pytest.mark.parametrize(
    "regions", ["x", 5, {"a": 1}, [1, 2], [None, None], [["a"] * 4] * 2, [[0, 0, 1, 1.5]] * 2, [[0, 0, 1, 1]] * 3]
)
def test_the_api_answers_with_one_sentence(portraits: list[Path], tmp_path: Path, regions: Any) -> None:
    import gradio as gr

    from instantid_demo.engine import Engine
    from instantid_demo.settings import Settings
    from instantid_demo.ui.api import Api
    from instantid_demo.ui.desk import Desk

    settings = Settings(home=tmp_path, outputs=tmp_path, model="pocket", device="cpu")
    with gr.Blocks():
        api = Api(Desk(settings, Engine(settings)))
    with pytest.raises(gr.Error) as caught:
        list(api.group(photo=str(portraits[0]), photo_2=str(portraits[60]), regions=regions))
    assert re.fullmatch(r"[^\n]*region[^\n]*\.", caught.value.message)
