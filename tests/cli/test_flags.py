"""Flags to requests."""

import re
from pathlib import Path
from typing import Any

import pytest

from instantid_demo import flags
from instantid_demo.request import GenerationRequest, RequestError


def parse(*arguments: str, restored: dict[str, Any] | None = None) -> GenerationRequest:
    parser = flags.Parser()
    flags.add(parser)
    return flags.request(vars(parser.parse_args(arguments)), restored)


def test_every_field_but_consent_is_a_flag() -> None:
    parser = flags.Parser()
    flags.add(parser)
    known = {action.dest for action in parser._actions}
    assert known - {"help"} == set(GenerationRequest.model_fields) - {"consent"}
    parser.format_help()


def test_the_help_has_range_and_default() -> None:
    parser = flags.Parser()
    flags.add(parser)
    told = {action.dest: action.help or "" for action in parser._actions}
    assert told["identity_strength"].endswith("; 0 to 1.5; default 0.8")
    assert told["guidance_start"].endswith("; 0 to 1; default 0")
    assert told["steps"].endswith("; 1 to 100")
    assert told["images"].endswith("; 1 to 8; default 1")
    assert "default" not in told["face_detail"]
    for name, info in GenerationRequest.model_fields.items():
        limits = [one for one in info.metadata if hasattr(one, "ge") or hasattr(one, "le")]
        assert len(limits) < 2 or re.search(r"; [\d.]+ to [\d.]+", told[name]), name


def test_nothing_given_is_the_default_request() -> None:
    assert parse() == GenerationRequest()


def test_simple_fields() -> None:
    request = parse(
        *[
            "--model",
            "pocket",
            "--prompt",
            "hat",
            "--steps",
            "7",
            "--guidance",
            "2.5",
            "--seed",
            "3",
            "--width",
            "130",
            "--enhance-non-face",
        ]
    )
    assert (request.model, request.prompt, request.steps, request.guidance, request.seed, request.width) == (
        "pocket",
        "hat",
        7,
        2.5,
        3,
        128,
    )
    assert request.enhance_non_face is True
    assert parse("--upscale", "4").upscale == 4


def test_several_photos() -> None:
    assert parse("--face", "a.jpg", "--face", "b.jpg").face == (Path("a.jpg"), Path("b.jpg"))


def test_people_split_at_the_last_at() -> None:
    first, second = parse("--person", "me@home.jpg@0,0,0.5,1", "--person", "b.jpg@0.5,0,1,1,yaw=30,roll=-5").person
    assert (first.face, first.region.x1, first.view) == (Path("me@home.jpg"), 0.5, None)
    assert second.view is not None
    assert (second.view.yaw, second.view.pitch, second.view.roll) == (30, 0, -5)


def test_controls() -> None:
    one, two, three = parse(
        *("--control", "depth=room.png:0.5", "--control", "depth-map=C:\\map.png"),
        *("--control", "canny=a:b.png:0.4,0.1,0.6"),
    ).control
    (four,) = parse("--control", "pose=p.png").control
    assert (one.kind, one.image, one.strength, one.is_map) == ("depth", Path("room.png"), 0.5, False)
    assert (two.kind, two.image, two.is_map) == ("depth", Path("C:\\map.png"), True)
    assert (three.image, three.strength, three.start, three.end) == (Path("a:b.png"), 0.4, 0.1, 0.6)
    assert (four.kind, four.strength) == ("pose", 0.5)


def test_view_place_and_lora() -> None:
    request = parse(
        *[
            "--view",
            "yaw=30,pitch=0,roll=0",
            "--place",
            "x=0.2,size=0.5",
            "--lora",
            "a/b:0.7",
            "--lora",
            "c.safetensors",
        ]
    )
    assert request.view is not None
    assert request.place is not None
    assert (request.view.yaw, request.place.x, request.place.size) == (30, 0.2, 0.5)
    assert [(one.source, one.weight) for one in request.lora] == [("a/b", 0.7), ("c.safetensors", 1.0)]


def test_flags_overrule_a_pictures_settings() -> None:
    request = parse("--seed", "5", restored={"seed": 1, "prompt": "old", "unknown": 1})
    assert (request.seed, request.prompt) == (5, "old")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--steps", "0"], r"^--steps: .*greater than or equal to 1"),
        (["--steps", "many"], r"^--steps: .*integer"),
        (["--quality", "best"], r"^--quality: "),
        (["--person", "a.jpg"], r"^--person needs PHOTO@"),
        (["--person", "a.jpg@0,0,0.5"], r"^--person needs PHOTO@"),
        (["--person", "a.jpg@0,0,2,1"], r"^--person.region.x1: "),
        (["--control", "depth"], r"^--control needs KIND=FILE"),
        (["--control", "smoke=a.png"], r"^--control.kind: "),
        (["--view", "yaw=x"], r"^--view needs numbers"),
        (["--place", "left"], r"^--place needs numbers"),
        (["--mask", "m.png"], r"add --init"),
        (["--blend-with", "b.jpg"], r"add --face"),
        (["--face", "a.jpg", "--person", "a.jpg@0,0,0.5,1"], r"not both"),
    ],
)
def test_what_is_wrong_in_one_sentence(arguments: list[str], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint) as caught:
        parse(*arguments)
    assert "\n" not in str(caught.value)


def test_an_unknown_flag_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    parser = flags.Parser(prog="generate")
    flags.add(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--hat"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
