"""The documented endpoints, through `gradio_client`."""

import json
import re
import runpy
import sys
import urllib.request
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from instantid_demo.request import GenerationRequest, RequestError, Result
from instantid_demo.settings import Settings
from instantid_demo.ui.api import Api, answering
from instantid_demo.ui.desk import Desk
from tests.conftest import ROOT

gradio_client = pytest.importorskip("gradio_client")
handle_file = gradio_client.handle_file


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    return gradio_client.Client(address, verbose=False)


def test_only_documented_endpoints_are_named(client: Any) -> None:
    names = set(client.view_api(return_format="dict", print_info=False)["named_endpoints"])
    documented = set(re.findall(r"^\| `(/\w+)`", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.M))
    assert names == documented


def test_the_documented_script_runs(
    address: str, portraits: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "example.py").write_text(script.replace("http://127.0.0.1:7860", address))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example.py", str(portraits[1])])
    runpy.run_path("example.py")
    picture = tmp_path / "picture.png"
    assert min(Image.open(picture).size) >= 256
    verified = gradio_client.Client(address, verbose=False).predict(picture=handle_file(picture), api_name="/verify")
    assert verified["manifest"] == "untrusted"
    assert verified["own"] is True
    assert verified["watermark"] is True
    assert verified["settings"]["seed"] == 7


def test_faces_and_groups(client: Any, portraits: list[Path]) -> None:
    found = client.predict(picture=handle_file(portraits[1]), api_name="/faces")
    assert len(found["faces"]) == 1
    assert len(found["faces"][0]["keypoints"]) == 5
    photos = {"photo": handle_file(portraits[0]), "photo_2": handle_file(portraits[60])}
    files, report = client.predict(**photos, regions=None, seed=1, quality="draft", api_name="/group")
    assert len(files) == 1
    assert len(report["likeness"][0]) == 2


def test_several_photos_and_edges(client: Any, portraits: list[Path]) -> None:
    one, other, scene = (handle_file(portraits[number]) for number in (1, 2, 3))
    controls = {"canny": {"strength": 1.0, "end": 0.9}}
    files, report = client.predict(
        photo=one, more_photos=[other], canny=scene, settings={"controls": controls}, seed=1, api_name="/generate"
    )
    assert any("someone else" in note for note in report["notes"])
    with Image.open(files[0]) as made:
        assert '"control":[{"kind":"canny","strength":1.0,"end":0.9}]' in made.info["parameters"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"settings": {"pose": "/etc/passwd"}}, "settings must not hold pose"),
    ({"settings": {"seed": 1}}, "settings must not hold seed"),
    ({"settings": {"steps": 1000}}, r"Steps \(steps\): .* 100, not 1000"),
    ({"settings": {"steps": "many"}}, r"\(steps\): .*integer.*not 'many'"),
    ({"settings": {"steps": [1]}}, r"\(steps\): .*integer"),
    ({"settings": {"guidance": "Infinity"}}, r"\(guidance\): "),
    ({"settings": {"identity_strength": "x"}}, r"\(identity_strength\): "),
    ({"settings": {"view": {"yaw": 900}}}, r"\(view.yaw\): "),
    ({"settings": {"view": {"jaw": 9}}}, "no field view.jaw"),
    ({"settings": {"view": "left"}}, r"\(view\): "),
    ({"settings": {"lora": [{"weight": 1}]}}, r"\(lora.0.source\): "),
    ({"settings": {"nonsense": 1}}, "no field nonsense"),
    ({"settings": {"controls": {"canny": {"image": "/etc/passwd"}}}}, "controls must not hold image"),
    ({"settings": {"controls": [1]}}, "controls must be an object"),
    ({"settings": {"controls": {"canny": 1}}}, "controls must be an object"),
    ({"settings": {"identity_start": 0.9, "identity_end": 0.1}}, "window"),
    ({"settings": {"model": "<x> & 'y'"}}, r"There is no model \"?.*<x> & 'y'"),
    ({"settings": [1, 2]}, r"settings must be an object .* not \[1, 2\]"),
    ({"settings": "steps=3"}, "settings must be an object"),
    ({"settings": 5}, "settings must be an object"),
    ({"settings": True}, "settings must be an object"),
    ({"images": 0}, r"\(images\): "),
    ({"images": 2.5}, r"\(images\): "),
    ({"images": "some"}, r"\(images\): "),
    ({"images": {}}, r"\(images\): "),
    ({"seed": "x"}, r"\(seed\): "),
    ({"seed": -2}, r"\(seed\): "),
    ({"seed": 1.5}, r"\(seed\): "),
    ({"seed": [1]}, r"\(seed\): "),
    ({"prompt": 5}, r"\(prompt\): "),
    ({"prompt": ["a", "b"]}, r"\(prompt\): "),
    ({"prompt": "x" * 5000}, r"\(prompt\): .*4000"),
    ({"style": 5}, r"\(style\): "),
    ({"style": "no such"}, "There is no style"),
    ({"quality": "best"}, r"\(quality\): "),
    ({"quality": ["fast"]}, r"\(quality\): "),
    ({"photo": None}, "photo: "),
    ({"photo": "portrait.jpg"}, "photo: upload a file"),
    ({"photo": 5}, "photo: upload a file"),
    ({"photo": {"path": "/etc/passwd"}}, "photo: upload a file"),
    ({"photo": [{"path": "x"}]}, "photo: upload a file"),
    ({"pose": True}, "pose: upload a file"),
    ({"more_photos": {"a": 1}}, "more_photos: upload a file"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=lambda value: str(value)[:50])
def test_what_does_not_fit_is_one_sentence(
    client: Any, portraits: list[Path], given: dict[str, Any], said: str
) -> None:
    arguments = {"photo": handle_file(portraits[1])} | given
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        client.predict(**arguments, api_name="/generate")
    is_a_sentence(str(caught.value))
    assert re.search(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    "regions",
    [
        *(5, "left", {"a": 1}, [1, 2], [[0, 0, 0.5, 1]], [None, None]),
        [[0, 0, 1], [0, 0, 1, 1]],
        [[0, 0, 2, 1], [0, 0, 1, 1]],
        [[0, 0, 0.01, 1], [0, 0, 1, 1]],
        [["a", 0, 1, 1], [0, 0, 1, 1]],
        [{"x0": 0}, [0, 0, 1, 1]],
    ],
    ids=str,
)
def test_regions_that_are_none_are_one_sentence(client: Any, portraits: list[Path], regions: Any) -> None:
    photos = {"photo": handle_file(portraits[0]), "photo_2": handle_file(portraits[60])}
    with pytest.raises(gradio_client.exceptions.AppError, match="region") as caught:
        client.predict(**photos, regions=regions, api_name="/group")
    is_a_sentence(str(caught.value))


@pytest.mark.parametrize("name", ["/faces", "/verify"])
@pytest.mark.parametrize("picture", [None, "x.jpg", 5, [], {}, {"path": "/etc/passwd"}, {"path": 5}], ids=str)
def test_files_that_are_none_are_one_sentence(client: Any, name: str, picture: Any) -> None:
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^picture: ") as caught:
        client.predict(picture=picture, api_name=name)
    is_a_sentence(str(caught.value))


def test_other_files_and_missing_pictures_are_one_sentence(client: Any, portraits: list[Path], tmp_path: Path) -> None:
    (tmp_path / "it's <b>.jpg").write_text("no picture")
    wrong = handle_file(tmp_path / "it's <b>.jpg")
    for name in ("/faces", "/verify"):
        with pytest.raises(gradio_client.exceptions.AppError, match="not a picture") as caught:
            client.predict(picture=wrong, api_name=name)
        is_a_sentence(str(caught.value))
    with pytest.raises(gradio_client.exceptions.AppError, match="init") as caught:
        client.predict(photo=handle_file(portraits[1]), mask=handle_file(portraits[1]), api_name="/generate")
    is_a_sentence(str(caught.value))


def is_a_sentence(text: str) -> None:
    """No traces of Python, HTML, the command line or the host's folders."""
    assert "\n" not in text
    assert len(text) < 600
    assert text.endswith((".", "!"))
    for foreign in (
        "&#",
        "&lt;",
        "&amp;",
        "<span",
        " --",
        "pydantic",
        "Traceback",
        "argument must be",
        "/tmp/",
        "NoneType",
    ):
        assert foreign not in text


def test_nothing_and_minus_one_mean_the_usual(client: Any, portraits: list[Path]) -> None:
    usual = {"prompt": None, "style": None, "images": None, "quality": "draft", "settings": None, "more_photos": None}
    seeds = [
        client.predict(photo=handle_file(portraits[1]), **usual, seed=seed, api_name="/generate")[1]["seeds"][0]
        for seed in (-1, -1, None, 7)
    ]
    assert len(set(seeds[:3])) == 3
    assert min(seeds) >= 0
    assert seeds[3] == 7


def test_an_engine_without_a_picture_is_an_error() -> None:
    class Empty:
        loaded_model = "none"

        def run(self, request: GenerationRequest, *, job: Any = None) -> Any:
            yield Result.model_construct(pictures=(), seeds=(), request=request, notes=(), blocked=())

        def badge(self, model: str = "auto") -> Any:
            return None

        analyse = identity = badge

    with gr.Blocks():
        api = Api(Desk(Settings(), Empty()))
    with pytest.raises(gr.Error, match="No picture was made"):
        list(api.generate("x.jpg"))


def test_what_nobody_foresaw_is_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        loaded_model = "none"

        def analyse(self, *given: Any, **named: Any) -> Any:
            raise ZeroDivisionError("in /home/somebody/secret.py")

        run = identity = badge = report = analyse

    with gr.Blocks():
        api = Api(Desk(Settings(), Broken()))
    for call in (lambda: api.faces("x.jpg"), lambda: list(api.generate("x.jpg"))):
        with pytest.raises(gr.Error) as caught:
            call()
        assert caught.value.message.startswith("Something went wrong on our side")
    assert "ZeroDivisionError" in caplog.text


def test_folders_of_the_host_stay_unsaid() -> None:
    @answering
    def fails(text: str) -> None:
        raise RequestError(text)

    for text, said in (
        ("/srv/data/out/x.png cannot be written: choose another.", "x.png cannot be written: choose another."),
        ("C:\\Users\\bob\\x.png is empty.", "x.png is empty."),
        ("The style preset '/home/bob/a.json' cannot be read.", "The style preset 'a.json' cannot be read."),
        ("Run `python -m instantid_demo download owner/name` first, yes/no.", None),
        ("Add a photo first: --face photo.jpg.", "Add a photo first: photo photo.jpg."),
        ("See https://example.org/a/b.", None),
    ):
        with pytest.raises(gr.Error) as caught:
            fails(text)
        assert caught.value.message == (said or text)


def test_files_of_the_host_cannot_be_read(address: str) -> None:
    body = {"data": [{"path": str(ROOT / "README.md"), "meta": {"_type": "gradio.FileData"}}]}
    asked = urllib.request.Request(
        f"{address}/gradio_api/call/verify", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}/gradio_api/call/verify/{event}") as answer:
        said = answer.read().decode()
    assert said.startswith("event: error")
    assert "not uploaded by a user" in said
