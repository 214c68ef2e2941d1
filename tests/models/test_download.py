"""Downloads against a stand-in for the hub: nothing is lost, nothing damaged is kept, every failure is one sentence."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import zeros

from instantid_demo.models import catalogue, download, hub
from instantid_demo.models.catalogue import Entry
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT, Settings
from tests.hub import Failure, Hub

ANTELOPE = "DIAMONIK7777/antelopev2"
LARGE = "glintr100.onnx"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with antelopev2 (random bytes) and a base."""
    antelope = tmp_path / "hub" / ANTELOPE
    antelope.mkdir(parents=True)
    for name, size in ((LARGE, 300_000), ("scrfd_10g_bnkps.onnx", 5000), ("genderage.onnx", 500), ("1k3d68.onnx", 9)):
        (antelope / name).write_bytes(os.urandom(size))
    with Hub(tmp_path / "hub") as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        monkeypatch.setattr(hub, "WAITS", (0.0, 0.0))
        yield running


@pytest.fixture
def antelope() -> Entry:
    return catalogue.entry("antelopev2")


def add(server: Hub, repository: str, **files: bytes) -> None:
    for name, content in files.items():
        file = server.root / repository / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def same(server: Hub, settings: Settings, repository: str = ANTELOPE, name: str = "antelopev2") -> bool:
    here = [file for file in (settings.models / name).rglob("*") if file.is_file() and file.name != ".complete"]
    there = server.root / repository
    return bool(here) and all(
        file.read_bytes() == (there / file.relative_to(settings.models / name)).read_bytes() for file in here
    )


def test_the_wanted_files_come_and_nothing_else(server: Hub, settings: Settings, antelope: Entry) -> None:
    told: list[tuple[int, int]] = []
    folder = download.fetch(antelope, settings.models, lambda done, total: told.append((done, total)))
    assert {file.name for file in folder.iterdir()} == {*antelope.files, ".complete"}
    assert same(server, settings)
    assert told[0] == (0, 305_500)
    assert told[-1] == (305_500, 305_500)
    assert catalogue.local("antelopev2", settings) == folder
    asked = len(server.asked)
    download.fetch(antelope, settings.models)
    assert len(server.asked) == asked
    assert [name for name, _ in download.present(settings)] == ["antelopev2"]
    download.delete("antelopev2", settings)
    assert catalogue.local("antelopev2", settings) is None
    for wrong in ("../..", "", ".locks", "antelopev2"):
        with pytest.raises(RequestError, match="not here"):
            download.delete(wrong, settings)


def test_a_base_comes_once_and_not_five_times(server: Hub, settings: Settings) -> None:
    names = [
        *("README.md", "model_index.json", "realvis.safetensors", "unet/config.json", "vae_decoder/model.onnx"),
        *(f"unet/diffusion_pytorch_model{kind}" for kind in (".bin", ".fp16.safetensors", ".non_ema.safetensors")),
        *("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"),
    ]
    add(server, "SG161222/RealVisXL_V5.0", **{name.replace("/", "__"): b"x" for name in names})
    folder = download.fetch(catalogue.entry("realvis"), settings.models)
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == [
        ".complete",
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_a_broken_line_is_gone_on_with(server: Hub, settings: Settings, antelope: Entry) -> None:
    server.fail = Failure(where=f"cdn/{ANTELOPE}/{LARGE}", drop_after=50_000)
    download.fetch(antelope, settings.models)
    assert same(server, settings)
    spans = [span for path, span in server.files() if path.endswith(LARGE)]
    assert spans == ["", *(f"bytes={start}-" for start in range(50_000, 300_000, 50_000))]


def test_the_next_try_goes_on_where_the_first_stopped(server: Hub, settings: Settings, antelope: Entry) -> None:
    server.fail = Failure(where=LARGE, drop_after=100_000, times=1)

    def stops(done: int, total: int) -> None:
        if server.fail.times == 0 and done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.fetch(antelope, settings.models, stops)
    assert catalogue.local("antelopev2", settings) is None
    assert [name for name, _ in download.unfinished(settings)] == ["antelopev2"]
    server.asked.clear()
    told: list[int] = []
    download.fetch(antelope, settings.models, lambda done, total: told.append(done))
    assert same(server, settings)
    assert told[0] > 100_000
    (span,) = [span for path, span in server.files() if path.endswith(LARGE)]
    assert int(span.removeprefix("bytes=").removesuffix("-")) >= 100_000


def test_a_hub_without_ranges_still_serves(server: Hub, settings: Settings, antelope: Entry) -> None:
    server.fail = Failure(where=f"cdn/{ANTELOPE}/{LARGE}", drop_after=50_000, times=1)
    with pytest.raises(KeyboardInterrupt):
        download.fetch(antelope, settings.models, lambda done, _: _stop() if done >= 50_000 else None)
    server.fail = Failure(where=LARGE, without_range=True)
    download.fetch(antelope, settings.models)
    assert same(server, settings)


def _stop() -> None:
    raise KeyboardInterrupt


def test_a_part_of_another_version_is_swept(server: Hub, settings: Settings, antelope: Entry) -> None:
    folder = settings.models / "antelopev2"
    old = folder / ".cache" / "huggingface" / "download"
    old.mkdir(parents=True)
    (old / "glintr100.onnx.1234.incomplete").write_bytes(b"x" * 1000)
    (folder / f"{LARGE}.0123456789ab.part").write_bytes(b"x" * 1000)
    (folder / LARGE).write_bytes(b"x" * 300_000)
    download.fetch(antelope, settings.models)
    assert {file.name for file in folder.iterdir()} == {*antelope.files, ".complete"}
    assert same(server, settings)


def test_a_damaged_part_is_fetched_anew(server: Hub, settings: Settings, antelope: Entry) -> None:
    found = hub.listing(ANTELOPE)
    file = next(file for file in found.files if file.path == LARGE)
    folder = settings.models / "antelopev2"
    folder.mkdir(parents=True)
    hub.part_of(file, folder).write_bytes(b"x" * 1000)
    download.fetch(antelope, settings.models)
    assert same(server, settings)


@pytest.mark.parametrize("name", [LARGE, "genderage.onnx"], ids=["by sha256", "by git's name"])
def test_a_damaged_file_is_no_model(server: Hub, settings: Settings, antelope: Entry, name: str) -> None:
    server.fail = Failure(where=f"cdn/{ANTELOPE}/{name}", flip=True)
    with pytest.raises(RequestError, match="damaged"):
        download.fetch(antelope, settings.models)
    folder = settings.models / "antelopev2"
    assert not (folder / name).exists()
    assert not (folder / ".complete").exists()
    server.fail = Failure(times=0)
    download.fetch(antelope, settings.models)
    assert same(server, settings)


def test_a_changed_repository_is_noticed(server: Hub, settings: Settings, antelope: Entry) -> None:
    (server.root / ANTELOPE / LARGE).unlink()
    with pytest.raises(RequestError, match=f"lacks {LARGE}"):
        download.fetch(antelope, settings.models)
    assert not server.files()


def test_a_tree_does_not_lead_out_of_the_folder(
    server: Hub, settings: Settings, antelope: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(file: Path, folder: Path) -> dict[str, object]:
        return {"type": "file", "path": f"../../{file.name}", "size": 9, "oid": "0" * 40}

    monkeypatch.setattr("tests.hub._entry", lying)
    with pytest.raises(RequestError, match="something else"):
        download.fetch(antelope, settings.models)


HTML = Failure(status=200, body=b"<html>Please sign in</html>", headers={"Content-Type": "text/html"})
GATED = {"X-Error-Code": "GatedRepo"}
FAILURES = {
    "unknown": (Failure(status=401, headers={"X-Error-Code": "RepoNotFound"}), "not on the hub, or is private"),
    "gated": (Failure(status=403, headers=GATED), "agreement"),
    "forbidden": (Failure(status=403), "403"),
    "gone": (Failure(status=404), "not on the hub, or is private"),
    "too many": (Failure(status=429), "too many requests"),
    "too many for an hour": (Failure(status=429, headers={"Retry-After": "3600"}), "in 60 minutes"),
    "trouble": (Failure(status=500), "in trouble"),
    "away": (Failure(status=503), "in trouble"),
    "odd": (Failure(status=418), "418"),
    "sign-in page": (HTML, "sign-in page"),
    "words": (Failure(status=200, body=b"[1]"), "something else"),
    "an empty object": (Failure(status=200, body=b"{}", where="revision"), "something else"),
    "forbidden bytes": (Failure(status=403, where="/cdn/"), "403"),
    "bytes in trouble": (Failure(status=502, where="/cdn/"), "in trouble"),
    "sign-in page for bytes": (Failure(status=200, body=HTML.body, where="/cdn/"), "sign-in page"),
    "nothing comes": (Failure(where="/cdn/", drop_after=0), "broke"),
    "missing file": (Failure(status=404, headers={"X-Error-Code": "EntryNotFound"}, where="/cdn/"), "hand out"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_has_its_sentence(server: Hub, settings: Settings, antelope: Entry, failure: str) -> None:
    server.fail, said = FAILURES[failure]
    with pytest.raises(RequestError, match=said) as told:
        download.fetch(antelope, settings.models)
    assert "\n" not in str(told.value)
    assert catalogue.local("antelopev2", settings) is None
    server.fail = Failure(times=0)
    download.fetch(antelope, settings.models)
    assert same(server, settings)


def test_a_hub_that_is_busy_for_a_moment_is_waited_for(server: Hub, settings: Settings, antelope: Entry) -> None:
    server.fail = Failure(status=429, headers={"Retry-After": "1"}, times=1)
    start = time.monotonic()
    download.fetch(antelope, settings.models)
    assert time.monotonic() - start >= 1
    server.fail = Failure(status=503, times=2)
    download.delete("antelopev2", settings)
    download.fetch(antelope, settings.models)


def test_a_silent_hub_is_given_up(
    server: Hub, settings: Settings, antelope: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    server.fail = Failure(where=f"cdn/{ANTELOPE}/{LARGE}", stall_after=2048, times=3)
    download.fetch(antelope, settings.models)
    assert same(server, settings)
    download.delete("antelopev2", settings)
    server.fail = Failure(where=f"cdn/{ANTELOPE}/{LARGE}", stall_after=0)
    with pytest.raises(RequestError, match="does not answer"):
        download.fetch(antelope, settings.models)


def test_tokens_go_to_the_hub_alone_and_a_wrong_one_is_said(
    server: Hub, settings: Settings, antelope: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "right"
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(RequestError, match="does not accept your token"):
        download.fetch(antelope, settings.models)
    monkeypatch.setenv("HF_TOKEN", "schlüssel")
    with pytest.raises(RequestError, match="HF_TOKEN"):
        download.fetch(antelope, settings.models)
    monkeypatch.setenv("HF_TOKEN", "right")
    download.fetch(antelope, settings.models)
    assert same(server, settings)


def test_offline_and_unreachable_are_said(
    settings: Settings, antelope: Entry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "WAITS", ())
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RequestError, match="cannot be reached"):
        download.fetch(antelope, settings.models)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "huggingface.co")
    with pytest.raises(RequestError, match="HF_ENDPOINT is no web address"):
        download.fetch(antelope, settings.models)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RequestError, match="HF_HUB_OFFLINE"):
        download.fetch(antelope, settings.models)


def test_room_is_counted_for_what_is_missing(
    server: Hub, settings: Settings, antelope: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(server.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=download.SPARE + 100_000))
    with pytest.raises(RequestError, match="free"):
        download.fetch(antelope, settings.models)
    folder = settings.models / "antelopev2"
    shutil.copy(server.root / ANTELOPE / LARGE, folder / LARGE)
    download.fetch(antelope, settings.models)
    assert same(server, settings)


def test_two_downloads_of_one_model_do_not_mix(server: Hub, settings: Settings, antelope: Entry) -> None:
    def another(done: int, total: int) -> None:
        with pytest.raises(RequestError, match="already"):
            download.fetch(antelope, settings.models)
        with pytest.raises(RequestError, match="already"):
            download.delete("antelopev2", settings)

    download.fetch(antelope, settings.models, another)
    assert same(server, settings)


# -- what a stranger's repository is ------------------------------------------------------------------------------


def weights(tmp_path: Path, **shapes: tuple[int, ...]) -> bytes:
    file = tmp_path / "weights.safetensors"
    save_file({name.replace("__", "."): zeros(shape) for name, shape in shapes.items()}, file)
    return file.read_bytes()


def test_a_strangers_kind_is_asked_before_the_bytes(server: Hub, settings: Settings, tmp_path: Path) -> None:
    flux = weights(tmp_path, double_blocks__0__img_attn__qkv__weight=(300, 10))
    index = b'{"_class_name": "FluxPipeline"}'
    add(server, "a/flux", **{"model_index.json": index, "transformer__model.safetensors": flux})
    add(server, "a/one", **{"flux.safetensors": flux})
    for name in ("a/flux", "a/one"):
        with pytest.raises(RequestError, match=r"Flux|weights that we know"):
            download.fetch(download.wanted(name), settings.models)
        assert not [path for path, span in server.files() if path.endswith(".safetensors") and not span]


def test_one_file_of_a_strangers_repository(server: Hub, settings: Settings, tmp_path: Path) -> None:
    lora = weights(tmp_path, lora_unet_down_blocks_1__lora_down__weight=(8, 640))
    add(server, "a/loras", **{"one.safetensors": lora, "two.safetensors": lora, "README.md": b"x"})
    with pytest.raises(RequestError, match=r"one\.safetensors, two\.safetensors.*a/loras/one\.safetensors"):
        download.plan(download.wanted("a/loras"))
    entry = download.wanted("a/loras/two.safetensors")
    planned = download.plan(entry)
    assert (planned.size, planned.licence) == (len(lora), "mit")
    folder = download.fetch(entry, settings.models, planned=planned)
    assert [file.name for file in folder.glob("*.safetensors")] == ["two.safetensors"]
    download.fetch(download.wanted("a/loras/one.safetensors"), settings.models)
    assert len(list(folder.glob("*.safetensors"))) == 2
    assert catalogue.local("a/loras", settings) == folder


def test_a_network_comes_in_its_usual_file(server: Hub) -> None:
    config = b'{"_class_name": "ControlNetModel", "addition_embed_type": "text_time", "down_block_types": []}'
    names = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model_twins.safetensors"]
    add(server, "a/control", **{"config.json": config}, **dict.fromkeys(names, b"x" * 2000))
    planned = download.plan(download.wanted("a/control"))
    assert [file.path for file in planned.files] == ["config.json", names[0]]


@pytest.mark.parametrize("name", ["a/b c", "a/", "/a", "../../a", "a/b/../../../etc", "ä/b"])
def test_what_is_no_hub_id_is_refused(server: Hub, settings: Settings, name: str) -> None:
    with pytest.raises(RequestError):
        download.fetch(download.wanted(name), settings.models)
    assert not settings.models.exists() or not [*settings.models.glob("*")]


# -- the command ---------------------------------------------------------------------------------------------------


def command(server: Hub, settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "INSTANTID_HOME": str(settings.home), "HF_ENDPOINT": server.url}
    environment = {key: value for key, value in environment.items() if key not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    return subprocess.Popen(
        [sys.executable, "-m", "instantid_demo", "download", *arguments],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_whatever_stops_it_the_same_command_goes_on(server: Hub, settings: Settings, how: signal.Signals) -> None:
    server.slow = 0.02
    running = command(server, settings, "antelopev2")
    folder = settings.models / "antelopev2"
    while sum(part.stat().st_size for part in folder.glob(f"{LARGE}.*.part")) < 50_000:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(how)
    _, said = running.communicate(timeout=60)
    if how == signal.SIGINT:
        assert running.returncode == 2
        assert said.splitlines() == ["Stopped: the same command goes on from here."]
    assert not (folder / ".complete").exists()
    server.slow = 0.0
    server.asked.clear()
    again = command(server, settings, "antelopev2")
    out, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert same(server, settings)
    assert all(span for path, span in server.files() if path.endswith(LARGE))
    assert out.splitlines()[-1] == f"antelopev2 is in {folder}."
    assert said == ""


def test_the_command_says_one_sentence(server: Hub, settings: Settings) -> None:
    server.fail = Failure(status=200, body=HTML.body)
    running = command(server, settings, "antelopev2")
    _, said = running.communicate(timeout=120)
    assert (running.returncode, len(said.splitlines())) == (2, 1)
    assert "sign-in page" in said
