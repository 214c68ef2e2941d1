"""The catalogue, and LoRAs that leave no trace."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from instantid_demo.method.loading import load_pipeline
from instantid_demo.models import catalogue, lora
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT

POCKET = ROOT / "assets" / "pocket"


def test_the_catalogue_is_complete() -> None:
    bases = [entry for entry in catalogue.ENTRIES if entry.kind == "base"]
    assert len(bases) >= 6
    assert len({entry.name for entry in catalogue.ENTRIES}) == len(catalogue.ENTRIES)
    assert all(entry.licence and entry.about and entry.gigabytes > 0 for entry in catalogue.ENTRIES)


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
