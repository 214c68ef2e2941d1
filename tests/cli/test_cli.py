"""The command line's contracts, run as a user runs them."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from instantid_demo import ticker
from instantid_demo.request import Progress
from instantid_demo.settings import ROOT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def run(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "INSTANTID_HOME": str(home),
        "INSTANTID_OUTPUTS": str(home / "outputs"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "instantid_demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)


def test_help_does_not_load_the_networks() -> None:
    code = "import sys; from instantid_demo import cli; cli._parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_generate_prints_one_object_and_saves_a_marked_file(home: Path, portraits: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.png"
    words = ("--prompt", "a photo of a person", "--seed", "7", "--out", out, "--json")
    done = run(home, "generate", "--model", "pocket", "--face", portraits[0], *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["seed"] == 7
    assert report["files"] == [str(out)]
    assert Image.open(out).size == (256, 256)
    assert len(report["likeness"]) == 1
    verified = json.loads(run(home, "verify", out, "--json").stdout)
    assert verified["manifest"] in ("untrusted", "trusted")
    assert verified["watermark"] is True
    again = run(home, "generate", "--settings-from", out, "--face", portraits[0], "--out", tmp_path / "y.png", "--json")
    assert json.loads(again.stdout)["seed"] == 7
    assert list(Image.open(tmp_path / "y.png").getdata()) == list(Image.open(out).getdata())


def test_settings_of_another_tool_are_used_and_the_rest_named(
    home: Path, portraits: list[Path], tmp_path: Path
) -> None:
    from instantid_demo.provenance import metadata

    text = "a photo of a man\nSteps: 2, Sampler: Heun, CFG scale: 1, Seed: 5, Size: 128x128, Model: /home/ann/mix.ckpt"
    (tmp_path / "theirs.jpg").write_bytes(metadata.encode(Image.new("RGB", (64, 64)), "jpeg", text))
    words = ("--settings-from", tmp_path / "theirs.jpg", "--model", "pocket", "--out", tmp_path / "x.png", "--json")
    done = run(home, "generate", "--face", portraits[0], *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["seed"] == 5
    assert report["notes"][0] == "Not taken over from the picture's settings: Model mix, Sampler Heun."
    made = metadata.read_file(tmp_path / "x.png")
    assert (made["prompt"], made["steps"], made["guidance"]) == ("a photo of a man", 2, 1.0)
    assert "ann" not in Image.open(tmp_path / "x.png").info["parameters"]


def test_generate_into_a_folder_with_pose_and_style(home: Path, portraits: list[Path], tmp_path: Path) -> None:
    more = ("--style", "film noir", "--images", "2", "--out", tmp_path / "dir", "--format", "webp")
    done = run(home, "generate", "--face", portraits[0], "--pose", portraits[1], *more)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "dir").glob("*.webp"))) == 2


def test_faces_lists_them_or_none(home: Path, portraits: list[Path], tmp_path: Path) -> None:
    found = json.loads(run(home, "faces", portraits[0], "--json").stdout)["faces"]
    assert len(found) == 1
    points = found[0]["keypoints"]
    assert len(points) == 5
    assert points[0][0] < points[1][0]
    blank = tmp_path / "blank.png"
    Image.new("RGB", (200, 200), "grey").save(blank)
    empty = run(home, "faces", blank, "--json")
    assert (empty.returncode, json.loads(empty.stdout)) == (0, {"faces": []})


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "--face", "missing.jpg"),
        ("generate", "--steps", "many"),
        ("generate", "--face", "a.jpg", "--view", "sideways"),
        ("generate", "--face", "a.jpg", "--model", "sdxl"),
        ("generate", "--face", "a.jpg", "--out", "x.txt"),
        ("generate", "--face", "a.jpg", "--out", f"{'x' * 300}.png"),
        ("generate", "--face", "a.jpg", "--out", f"{'x' * 300}/y/z.png"),
        ("generate", "--face", "a.jpg", "--out", f"y/{'x' * 300}"),
        ("generate", "--face", f"{'x' * 300}.jpg"),
        ("generate", "--settings-from", f"{'x' * 300}.png"),
        ("generate", "--face", "a.jpg", "--model", "x" * 300),
        ("generate", "--face", "a.jpg", "--lora", "x" * 5000),
        ("faces", "x" * 300),
        ("verify", "x" * 300),
        ("download", "x" * 300),
        ("download", "x" * 300, "--delete"),
        ("download", f"{'x' * 300}/y", "--delete"),
        ("faces", "missing.jpg"),
        ("verify", "missing.png"),
        ("nonsense",),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_the_users_mistakes_are_one_line_and_code_2(home: Path, arguments: tuple[str, ...]) -> None:
    done = run(home, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_doctor_says_what_is_here(home: Path) -> None:
    report = json.loads(run(home, "doctor", "--json").stdout)
    assert report["chosen"] == "pocket"
    assert report["models"]["pocket"]["ready"] is True
    assert report["advice"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_named(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSTANTID_DEVICE", "cuda")
    assert "PyTorch finds no cuda device" in json.loads(run(home, "doctor", "--json").stdout)["advice"][0]
    asked = run(home, "generate", "--face", ROOT / "assets/examples/woman.jpg", "--out", tmp_path / "made.png")
    assert asked.returncode != 0
    assert len(asked.stderr.splitlines()) == 1


def test_a_terminal_sees_the_steps_in_place(home: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "INSTANTID_HOME": str(home), "HF_HUB_OFFLINE": "1", "TERM": "xterm", "COLUMNS": "120"}
    words = ("--model", "pocket", "--steps", "5", "--images", "4", "--out", tmp_path)
    command = [sys.executable, "-m", "instantid_demo", "generate", "--face", ROOT / "assets/examples/woman.jpg", *words]
    running = subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    assert running.wait(60) == 0, said
    lines = said.decode().split("\r")
    assert any(re.match(r"step \d/\d+", line) for line in lines), lines
    assert any(re.match(r"step \d/\d+, \d+ s left", line) for line in lines), lines
    assert "\n" not in said.decode()
    assert lines[-1] == ""


def test_a_libtiff_that_complains_is_not_heard(home: Path, tmp_path: Path) -> None:
    photo = tmp_path / "broken.tif"
    Image.open(ROOT / "assets/examples/woman.jpg").save(photo, compression="tiff_lzw")
    content = bytearray(photo.read_bytes())
    content[200:3000] = bytes(2800)
    photo.write_bytes(content)
    done = run(home, "faces", photo)
    assert len(done.stderr.splitlines()) == (1 if done.returncode else 0), done.stderr


def test_without_a_terminal_a_line_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 7))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    out = io.StringIO()
    steps = ticker.Steps(ticker.Line(out))
    for done in range(1, 9):
        steps(Progress(stage="denoising", done=done, total=30))
    lines = out.getvalue().splitlines()
    assert 1 <= len(lines) < 8
    assert all(re.fullmatch(r"step \d/30(, \d+ (s|min) left)?", line) for line in lines)


def test_time_left_is_said_as_people_do() -> None:
    assert [ticker.left(seconds) for seconds in (0.4, 12, 240, 7400)] == [
        *("0 s left", "12 s left", "4 min left", "2 h 3 min left"),
    ]


def test_a_fault_of_the_program_shows_what_was_kept_quiet() -> None:
    code = "import os; from instantid_demo import quiet\nwith quiet.stdout():\n os.write(2, b'native'); {}"
    for last, told in (("raise KeyError('ours')", ("native", "KeyError")), ("pass", ())):
        command = [sys.executable, "-c", code.format(last)]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr
        assert all(word in said for word in told)
        assert bool(said) == bool(told)
