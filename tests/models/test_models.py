"""The catalogue, downloads against a stand-in for the hub, and LoRAs that leave no trace."""

import re
from pathlib import Path

import httpx2
import pytest
import torch
from safetensors.torch import save_file

from instantid_demo.method.loading import load_pipeline
from instantid_demo.models import catalogue, download, lora
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT, Settings

POCKET = ROOT / "assets" / "pocket"

REPOSITORY = [
    "README.md",
    "model_index.json",
    "realvis.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "vae_decoder/model.onnx",
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that holds every file that is asked for."""
    asked: list[str] = []

    def snapshot_download(repository: str, *, allow_patterns: list[str], local_dir: Path) -> str:
        asked.append(repository)
        for pattern in allow_patterns:
            file = local_dir / pattern.replace("*", "model.safetensors")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
        return str(local_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda repository: REPOSITORY)
    return asked


def test_the_catalogue_is_complete() -> None:
    bases = [entry for entry in catalogue.ENTRIES if entry.kind == "base"]
    assert len(bases) >= 6
    assert len({entry.name for entry in catalogue.ENTRIES}) == len(catalogue.ENTRIES)
    assert all(entry.licence and entry.about and entry.gigabytes > 0 for entry in catalogue.ENTRIES)


def test_a_model_is_here_only_when_complete(settings: Settings, hub: list[str]) -> None:
    assert catalogue.local("antelopev2", settings) is None
    folder = download.fetch(catalogue.entry("antelopev2"), settings.models)
    assert catalogue.local("antelopev2", settings) == folder
    assert sorted(file.name for file in folder.glob("*.onnx"))[0] == "genderage.onnx"
    download.fetch(catalogue.entry("antelopev2"), settings.models)
    assert len(hub) == 1
    assert [name for name, _ in download.present(settings)] == ["antelopev2"]
    download.delete("antelopev2", settings)
    assert catalogue.local("antelopev2", settings) is None
    with pytest.raises(RequestError):
        download.delete("../..", settings)


def test_a_base_comes_once_and_not_five_times(settings: Settings, hub: list[str]) -> None:
    folder = download.fetch(catalogue.entry("realvis"), settings.models)
    here = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert here == [
        ".complete",
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_a_changed_repository_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: "")
    with pytest.raises(RequestError, match="lacks"):
        download.fetch(catalogue.entry("lcm"), settings.models)


def test_no_network_and_no_room_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fails(*args, **kwargs) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(RequestError, match="network"):
        download.fetch(catalogue.entry("lcm"), settings.models)

    def unreachable(repository: str) -> list[str]:
        raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    with pytest.raises(RequestError, match="network"):
        download.fetch(catalogue.entry("realvis"), settings.models)
    huge = catalogue.entry("lcm").model_copy(update={"gigabytes": 10**9})
    with pytest.raises(RequestError, match="free"):
        download.fetch(huge, settings.models)


def test_loras_act_and_leave_no_trace(tmp_path: Path) -> None:
    pipe = load_pipeline(POCKET, POCKET / "ControlNetModel", POCKET / "image_adapter.safetensors", device="cpu")
    state, draw = {}, torch.Generator().manual_seed(0)
    for name, module in pipe.unet.named_modules():
        if name.endswith(("attn1.to_q", "attn1.to_k")):
            state[f"unet.{name}.lora_A.weight"] = torch.randn(4, module.in_features, generator=draw)
            state[f"unet.{name}.lora_B.weight"] = torch.randn(module.out_features, 4, generator=draw)
    file = tmp_path / "style.safetensors"
    save_file(state, file)
    layer = pipe.unet.get_submodule(next(iter(state)).removeprefix("unet.").removesuffix(".lora_A.weight"))
    x = torch.randn(1, layer.in_features, generator=draw)
    before = layer(x)

    def now() -> torch.Tensor:
        return pipe.unet.get_submodule(next(iter(state)).removeprefix("unet.").removesuffix(".lora_A.weight"))(x)

    with torch.no_grad():
        with lora.applied(pipe, [(file, 1.0)]):
            whole = now()
        assert torch.equal(now(), before)
        with lora.applied(pipe, [(file, 0.5)]):
            half = now()
        assert torch.equal(now(), before)
    assert torch.allclose(half - before, (whole - before) / 2, atol=1e-4)
    assert (whole - before).abs().max() > 0.1
    assert sum(len(names) for names in pipe.get_list_adapters().values()) == 1
    with pytest.raises(RequestError), lora.applied(pipe, [(POCKET / "image_adapter.safetensors", 1.0)]):
        pass


def test_pockets_configs_do_not_tell_where_it_was_made() -> None:
    configs = list(POCKET.rglob("config.json"))
    assert len(configs) >= 6
    assert not [file for file in configs if re.search(r'"(/|[A-Za-z]:\\)', file.read_text())]
