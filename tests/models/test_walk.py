"""The road of a new user from `download` to a picture, with tiny stand-ins of everything that is published."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from instantid_demo.settings import ROOT
from tests.hub import Hub
from tests.published import publish

PHOTO = ROOT / "assets" / "examples" / "woman.jpg"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    publish(root)
    with Hub(root) as running:
        yield running


class Visitor:
    """Somebody at the command line with an empty home."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home

    def __call__(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "INSTANTID_"))}
        environment |= {
            "INSTANTID_HOME": str(self.home),
            "INSTANTID_DEVICE": "cpu",
            "HF_ENDPOINT": self.hub.url,
            **more,
        }
        command = [sys.executable, "-m", "instantid_demo", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=600)

    def doctor(self) -> dict:
        return json.loads(self("doctor", "--json").stdout)


@pytest.fixture(scope="module")
def visitor(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Visitor:
    return Visitor(hub, tmp_path_factory.mktemp("home"))


def test_from_nothing_to_pictures(visitor: Visitor, hub: Hub, tmp_path: Path) -> None:
    draw = ("generate", "--model", "sdxl", "--face", PHOTO, "--width", "128", "--height", "128", "--steps", "2")
    refused = visitor(*draw, "--out", tmp_path / "none.png")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "download sdxl" in refused.stderr

    # Part by part: not ready before the last one is here.
    for name, next_one in (("sdxl", "instantid"), ("instantid", "antelopev2"), ("antelopev2", "nsfw")):
        fetched = visitor("download", name)
        assert (fetched.returncode, fetched.stderr) == (0, "")
        state = visitor.doctor()["models"]["sdxl"]
        assert not state["ready"]
        assert next_one in state["missing"]
    hub.asked.clear()
    refused = visitor(*draw, "--out", tmp_path / "none.png")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "download nsfw" in refused.stderr
    assert not hub.asked
    assert visitor("download", "nsfw").returncode == 0
    assert visitor.doctor()["models"]["sdxl"]["ready"]
    fetched_names = {file.name for file in visitor.home.rglob("*") if file.is_file()}
    assert not fetched_names & {"2d106det.onnx", "sd_xl_in_one_file.safetensors", "diffusion_pytorch_model.bin"}

    more = visitor("download", "lcm", "control-canny", "taesdxl", "sdxl-base")
    assert (more.returncode, more.stderr) == (0, "")
    canny = visitor.home / "models" / "control-canny"
    assert [file.name for file in canny.glob("*.safetensors")] == ["diffusion_pytorch_model.fp16.safetensors"]

    # Everything is here: the hub is not asked any more.
    hub.asked.clear()
    faces = visitor("faces", PHOTO, "--model", "sdxl", "--json")
    assert (faces.returncode, faces.stderr) == (0, "")
    assert len(json.loads(faces.stdout)["faces"]) == 1
    ways = {
        "plain": (),
        "control": ("--control", f"canny={PHOTO}"),
        "draft": ("--quality", "draft"),
        "fp16": ("--model", "sdxl-base"),
    }
    for name, flags in ways.items():
        out = tmp_path / f"{name}.png"
        made = visitor(*draw, *flags, "--seed", "1", "--out", out, "--json")
        assert made.returncode == 0, made.stderr
        assert made.stderr == ""
        assert Image.open(out).size == (256, 256)
        assert json.loads(made.stdout)["likeness"][0] is not None
    pixels = {name: Image.open(tmp_path / f"{name}.png").tobytes() for name in ways}
    assert len({pixels[name] for name in ("plain", "control", "draft")}) == 3
    assert not hub.asked

    listed = visitor("download").stdout
    assert all(f"{name} " in listed for name in ("instantid", "sdxl", "lcm"))
    assert listed.count(" here ") == 8
    for name in ("instantid", "antelopev2", "sdxl", "nsfw"):
        assert visitor("download", name, "--delete").returncode == 0
    assert sorted(folder.name for folder in (visitor.home / "models").glob("[!.]*")) == [
        *("control-canny", "lcm", "sdxl-base", "taesdxl"),
    ]
