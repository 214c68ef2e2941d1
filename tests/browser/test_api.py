"""The documented endpoints, through `gradio_client`."""

import json
import re
import runpy
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pose": "/etc/passwd"}, "settings must not hold pose"),
        ({"steps": 1000}, "Steps"),
        ({"nonsense": 1}, "Extra"),
        ({"controls": {"canny": {"image": "/etc/passwd"}}}, "controls must not hold image"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    client: Any, portraits: list[Path], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(gradio_client.exceptions.AppError, match=said):
        client.predict(photo=handle_file(portraits[1]), settings=settings, api_name="/generate")


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
