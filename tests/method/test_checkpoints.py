"""Wrong files are named before anything is loaded."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from instantid_demo.method import checkpoints
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT

POCKET = ROOT / "assets" / "pocket"


def test_pocket_is_recognised_part_by_part() -> None:
    assert checkpoints.inspect(POCKET).kind == "base-folder"
    assert checkpoints.inspect(POCKET / "ControlNetModel").kind == "identity-net"
    adapter = checkpoints.inspect(POCKET / "image_adapter.safetensors")
    assert (adapter.kind, adapter.embedding_dim, adapter.tokens) == ("image-adapter", 128, 16)


class Bomb:
    def __reduce__(self):
        return (eval, ("1/0",))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path) -> None:
    file = tmp_path / "ip-adapter.bin"
    file.write_bytes(pickle.dumps({"image_proj": Bomb()}))
    with pytest.raises(RequestError):
        checkpoints.inspect(file)
    torch.save({"image_proj": Bomb()}, file)
    with pytest.raises(RequestError):
        checkpoints.inspect(file)


def test_a_truncated_download_is_refused(tmp_path) -> None:
    file = tmp_path / "image_adapter.safetensors"
    file.write_bytes((POCKET / "image_adapter.safetensors").read_bytes()[:100_000])
    with pytest.raises(RequestError):
        checkpoints.inspect(file)


def test_a_depth_controlnet_is_no_identity_net(tmp_path) -> None:
    folder = tmp_path / "controlnet-depth"
    shutil.copytree(POCKET / "ControlNetModel", folder)
    with pytest.raises(RequestError, match="ControlNet"):
        checkpoints.require(folder, kind="identity-net")


def test_an_adapter_for_another_base_is_refused(tmp_path) -> None:
    from safetensors.torch import load_file

    state = load_file(POCKET / "image_adapter.safetensors")
    state = {k: torch.zeros(v.shape[0], 768) if "to_k_ip" in k or "to_v_ip" in k else v for k, v in state.items()}
    file = tmp_path / "ip-adapter.safetensors"
    save_file(state, file)
    base, net = checkpoints.inspect(POCKET), checkpoints.inspect(POCKET / "ControlNetModel")
    with pytest.raises(RequestError):
        checkpoints.require_together(base, net, checkpoints.require(file, kind="image-adapter"))


def test_missing_and_foreign_files_are_named(tmp_path) -> None:
    with pytest.raises(RequestError, match="nothing-here"):
        checkpoints.inspect(tmp_path / "nothing-here")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(RequestError):
        checkpoints.inspect(tmp_path)
