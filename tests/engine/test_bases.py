"""Bases and ControlNets of one's own through the engine, with tiny stand-ins of SDXL and without a network."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from instantid_demo import flags, loaded, sources
from instantid_demo.engine import Engine, Job
from instantid_demo.method import checkpoints
from instantid_demo.models import catalogue
from instantid_demo.request import GenerationRequest, RequestError, Result
from instantid_demo.settings import ROOT, Settings
from tests import layouts

PHOTO = ROOT / "assets" / "examples" / "woman.jpg"


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return layouts.tiny_sdxl()


@pytest.fixture(scope="module")
def settings(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with `sdxl` and `instantid` in it, as `download` leaves them."""
    home = tmp_path_factory.mktemp("home")
    made = Settings(home=home, device="cpu", dtype="float32", backend="torch", safety=False)  # type: ignore[call-arg]
    pipe.save_pretrained(made.models / "sdxl")
    layouts.tiny_instantid(pipe.unet, made.models / "instantid")
    complete(made, "sdxl", "instantid")
    return made


def complete(settings: Settings, *names: str) -> None:
    for name in names:
        (settings.models / name / ".complete").touch()


@pytest.fixture(scope="module")
def file(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base as one file."""
    place = tmp_path_factory.mktemp("civitai") / "photo.safetensors"
    save_file({key: value.clone().contiguous() for key, value in layouts.one_file(pipe).items()}, place)
    return place


def draw(settings: Settings, model: Any, **fields: Any) -> Result:
    wanted = {"steps": 1, "width": 64, "height": 64, "seed": 1, "guidance": 1.0, **fields}
    request = GenerationRequest(
        model=str(model), face=(PHOTO,), **{name: value for name, value in wanted.items() if value is not None}
    )
    return Engine(settings).generate(request)


def test_one_file_draws_the_folders_picture_without_a_network(settings: Settings, file: Path) -> None:
    one, folder = draw(settings, file), draw(settings, "sdxl")
    assert one.model_name == "photo"
    # Converted weights lie otherwise in memory: sums are rounded otherwise.
    assert np.abs(np.subtract(one.pictures[0], folder.pictures[0], dtype=int)).max() <= 1


def test_a_v_prediction_file_draws_another_picture_and_says_why(settings: Settings, file: Path) -> None:
    from safetensors.torch import load_file

    noob = file.with_name("noob.safetensors")
    save_file({**load_file(file), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, noob)
    result = draw(settings, noob)
    assert any("v-prediction" in note for note in result.notes)
    assert result.pictures[0].tobytes() != draw(settings, file).pictures[0].tobytes()


def test_a_merge_of_few_steps_is_not_burnt(settings: Settings, file: Path) -> None:
    merge = file.with_name("photoXL_v5Lightning.safetensors")
    merge.write_bytes(file.read_bytes())
    result = draw(settings, merge, steps=None, guidance=None, quality="draft")
    assert (result.request.steps, result.request.guidance, result.request.scheduler) == (4, 1.0, "euler")
    assert any("Lightning" in note and "4 steps" in note for note in result.notes)
    asked = draw(settings, merge, steps=1, guidance=7.0)
    assert asked.request.guidance == 7.0
    assert any("burns" in note for note in asked.notes)
    quiet = draw(settings, merge, steps=1, guidance=1.5)
    assert not any("Lightning" in note for note in quiet.notes)


def test_a_hub_id_with_one_file_resolves_to_it(settings: Settings, file: Path) -> None:
    folder = settings.models / "owner--single"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(file.read_bytes())
    complete(settings, "owner--single")
    found = sources.resolve("owner/single", settings)
    assert (found.base.name, found.label) == ("model.safetensors", "owner/single")
    (folder / "fp32.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(RequestError, match=r"fp32\.safetensors, model\.safetensors"):
        sources.resolve("owner/single", settings)


def test_a_sd15_base_is_not_sent_for_sdxls_files(settings: Settings, tmp_path: Path) -> None:
    from instantid_demo.training import dry_run

    dry_run.tiny_base("sd15").save_pretrained(tmp_path / "sd15")
    for home in (settings, settings.model_copy(update={"home": tmp_path / "nothing"})):
        with pytest.raises(RequestError, match=r"SD1\.5 model, and InstantID was published for SDXL") as told:
            sources.resolve(str(tmp_path / "sd15"), home)
        assert "download" not in str(told.value)


@pytest.mark.parametrize("name", ["~nouser/x", "x" * 5000, "a\0b", "/proc/self/mem", "a\nb", "/dev/zero", "\ud800"])
def test_strange_names_are_one_sentence(settings: Settings, name: str) -> None:
    with pytest.raises(RequestError) as told:
        sources.resolve(name, settings)
    assert len(str(told.value)) < 400
    with pytest.raises(RequestError):
        checkpoints.require(sources.control_net(name, settings), kind="controlnet")


@pytest.mark.parametrize(
    "path",
    ["/home/jane/secret/own.safetensors", "~/secret/own.safetensors", r"C:\secret\own.safetensors", "./secret/own"],
)
def test_a_file_that_is_not_there_is_named_without_its_path(settings: Settings, path: str) -> None:
    for look in (sources.resolve, sources.control_net):
        with pytest.raises(RequestError, match=r"no file or folder 'own.*check the path") as told:
            look(path, settings)
        assert "secret" not in str(told.value)


@pytest.mark.parametrize("source", ["file", "sdxl"])
def test_training_reads_the_same_bases(
    settings: Settings, file: Path, pipe: Any, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    from instantid_demo.training import adapter_run

    monkeypatch.setenv("INSTANTID_HOME", str(settings.home))
    read = adapter_run.load_base(str(file) if source == "file" else source)
    ours, theirs = read.unet.state_dict(), pipe.unet.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert read.unet.dtype == torch.float32


# -- memory ------------------------------------------------------------------------------------------------------


def test_both_numbers_are_told_where_memory_is_too_small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "available_memory", lambda: 10**6)
    with pytest.raises(RequestError, match=r"YamerMIX.* needs 0\.0 GB of memory .* only 0\.0 GB are free"):
        draw(settings, "sdxl")


def test_the_leaner_type_is_tried_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = settings.model_copy(update={"dtype": "auto"})
    source = sources.resolve("sdxl", auto)
    parts = [source.base, source.identity_net, source.adapter]
    whole, _ = loaded.loading.weight_bytes(parts, torch.float32)
    half, _ = loaded.loading.weight_bytes(parts, torch.bfloat16)
    assert whole == 2 * half
    monkeypatch.setattr(loaded.loading, "computes_in_bfloat16", lambda: False)
    monkeypatch.setattr(loaded.loading.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 2**30))
    monkeypatch.setattr(loaded, "available_memory", lambda: (whole + half) // 2)
    said: list[str] = []
    assert loaded.Loaded(source, auto, said.append).text.unet.dtype == torch.bfloat16
    assert any("bfloat16" in sentence for sentence in said)


def test_the_sum_is_what_loading_holds(settings: Settings, file: Path) -> None:
    source = sources.resolve(str(file), settings)
    counted, converted = loaded.loading.weight_bytes([source.base], torch.float32)
    held = loaded.Loaded(source, settings, lambda said: None).text
    weights = [held.unet, held.vae, held.text_encoder, held.text_encoder_2]
    adapter = sum(p.numel() for name, p in held.unet.named_parameters() if "_ip" in name or "encoder_hid_proj" in name)
    assert counted == 4 * (sum(p.numel() for net in weights for p in net.parameters()) - adapter)
    assert converted == 0


# -- ControlNets -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nets(pipe: Any, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One ControlNet as folder, as file and under a hub id, and one for many kinds of maps."""
    folder = tmp_path_factory.mktemp("nets")
    net = layouts.tiny_control(pipe.unet)
    net.save_pretrained(folder / "my-canny")
    save_file({k: v.clone().contiguous() for k, v in net.state_dict().items()}, folder / "my-canny.safetensors")
    net.save_pretrained(settings.models / "owner--canny")
    layouts.tiny_union(pipe.unet).save_pretrained(folder / "union")
    complete(settings, "owner--canny")
    return {
        "folder": str(folder / "my-canny"),
        "file": str(folder / "my-canny.safetensors"),
        "hub id": "owner/canny",
        "union": str(folder / "union"),
    }


def control(kind: str, net: str, strength: float = 1.0) -> dict[str, Any]:
    return {"kind": kind, "image": PHOTO, "net": net, "is_map": True, "strength": strength}


def test_ones_own_control_net_acts_from_folder_file_and_hub_id(settings: Settings, nets: dict[str, str]) -> None:
    plain = draw(settings, "sdxl").pictures[0].tobytes()
    made = {
        kind: draw(settings, "sdxl", control=(control("canny", nets[kind]),)).pictures[0].tobytes()
        for kind in ("folder", "file", "hub id")
    }
    assert len(set(made.values())) == 1
    assert plain not in made.values()


def test_a_control_nets_weights_may_have_any_name(settings: Settings, nets: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(nets["folder"], tmp_path / "pose")
    (usual,) = (tmp_path / "pose").glob("*.safetensors")
    odd = usual.rename(usual.with_name("OpenPoseXL2.safetensors"))
    assert sources.control_net(str(tmp_path / "pose"), settings) == odd
    drawn = draw(settings, "sdxl", control=(control("canny", str(tmp_path / "pose")),))
    usual_one = draw(settings, "sdxl", control=(control("canny", nets["folder"]),))
    assert np.abs(np.subtract(drawn.pictures[0], usual_one.pictures[0], dtype=int)).max() <= 1
    shutil.copy(odd, odd.with_name("rank256.safetensors"))
    with pytest.raises(RequestError, match=r"several files \(OpenPoseXL2.safetensors, rank256.safetensors\)"):
        sources.control_net(str(tmp_path / "pose"), settings)


def test_libraries_say_nothing_beside_our_sentence(tmp_path: Path, nets: dict[str, str]) -> None:
    shutil.copytree(nets["folder"], tmp_path / "empty")
    next((tmp_path / "empty").glob("*.safetensors")).unlink()
    script = (
        "import sys, diffusers\n"
        "from instantid_demo import quiet\n"
        "quiet.libraries()\n"
        "try:\n"
        "    diffusers.ControlNetModel.from_pretrained(sys.argv[1], local_files_only=True)\n"
        "except OSError:\n"
        "    pass\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "empty")], cwd=ROOT, capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_one_network_serves_two_kinds_of_maps_at_once(settings: Settings, nets: dict[str, str]) -> None:
    both = (control("canny", nets["union"]), control("depth", nets["union"]))
    pictures = {
        name: draw(settings, "sdxl", control=given, guidance=2.0, guidance_end=0.5, steps=2).pictures[0].tobytes()
        for name, given in {"none": (), "canny": both[:1], "depth": both[1:], "both": both}.items()
    }
    assert len(set(pictures.values())) == 4


def test_the_downloaded_union_stands_in_for_missing_nets(
    settings: Settings, nets: dict[str, str], tmp_path: Path
) -> None:
    home = settings.model_copy(update={"home": tmp_path})
    home.models.mkdir()
    for name in ("sdxl", "instantid"):
        (home.models / name).symlink_to(settings.models / name)
    with pytest.raises(RequestError, match="download control-depth"):
        draw(home, "sdxl", control=(control("depth", ""),))
    (home.models / "control-union").symlink_to(nets["union"])
    complete(home, "control-union")
    own = draw(settings, "sdxl", control=(control("depth", nets["union"]),)).pictures[0]
    assert draw(home, "sdxl", control=(control("depth", ""),)).pictures[0].tobytes() == own.tobytes()


def test_a_control_net_for_another_network_is_refused(settings: Settings, tmp_path: Path) -> None:
    layouts.tiny_control(layouts.tiny_sdxl(cross_attention_dim=64).unet).save_pretrained(tmp_path / "canny")
    with pytest.raises(RequestError, match="made for another network"):
        draw(settings, "sdxl", control=(control("canny", str(tmp_path / "canny")),))
    diffusers.AutoencoderKL().save_pretrained(tmp_path / "vae")
    with pytest.raises(RequestError, match="is a VAE"):
        draw(settings, "sdxl", control=(control("canny", str(tmp_path / "vae")),))
    with pytest.raises(RequestError, match="download owner/absent"):
        draw(settings, "sdxl", control=(control("canny", "owner/absent"),))


def test_the_command_line_names_ones_own_control_net() -> None:
    parsed = flags.request(
        {"face": ["a.jpg"], "control": ["canny@/nets/my canny.safetensors=edges@home.png:0.7,0,0.5"]}
    )
    (given,) = parsed.control
    assert (given.kind, given.net, str(given.image)) == ("canny", "/nets/my canny.safetensors", "edges@home.png")
    assert (given.strength, given.end) == (0.7, 0.5)
    (ready,) = flags.request({"face": ["a.jpg"], "control": ["pose-map@owner/name=pose.png"]}).control
    assert (ready.kind, ready.is_map, ready.net) == ("pose", True, "owner/name")


def test_its_path_gets_into_no_picture() -> None:
    request = GenerationRequest(face=(PHOTO,), control=(control("canny", "/home/me/net.safetensors"),))
    assert "home" not in str(request.public()) + str(request.arranged())


def test_a_host_for_others_reads_no_net_that_visitors_name(settings: Settings) -> None:
    from instantid_demo.ui import showing

    desk: Any = SimpleNamespace(settings=settings.model_copy(update={"hosted": True}))
    for net in ("/etc", "owner/name", "nets/../canny.safetensors"):
        request = GenerationRequest(model="pocket", face=(PHOTO,), control=(control("canny", net),))
        with pytest.raises(RequestError, match="does not offer"):
            next(showing.run(desk, [request], Job()))


def test_every_published_control_net_names_its_files() -> None:
    for entry in catalogue.ENTRIES:
        if entry.kind == "control":
            assert "config.json" in entry.files
            assert sum(name.endswith(".safetensors") for name in entry.files) == 1
