"""Wrong files are named before anything is loaded."""

import json
import pickle
import pydoc
import shutil
import struct
import tracemalloc
import zipfile

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


# -- strangers' files --------------------------------------------------------------------------------------------


class Called:
    """A pickle that would call a function by name."""

    def __init__(self, name: str, *given: object) -> None:
        self.name, self.given = name, given

    def __reduce__(self):
        return (pydoc.locate(self.name), self.given)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "numpy.load"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_word_about_code_reaches_the_user(tmp_path, name: str, protocol: int, packed: bool) -> None:
    content = {"image_proj": Called(name, "touch canary")}
    file = tmp_path / "ip-adapter.bin"
    if packed:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, protocol))
    else:
        file.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(RequestError, match="contains code") as told:
        checkpoints.inspect(file)
    assert name.rpartition(".")[2] in str(told.value)


def test_code_in_a_later_pickle_is_found(tmp_path) -> None:
    """The old format is several pickles, of which the fourth is the content."""
    file = tmp_path / "old.bin"
    torch.save({"image_proj": Called("os.system", "touch canary")}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(RequestError, match="contains code"):
        checkpoints.inspect(file)


def test_a_name_out_of_the_memo_is_found(tmp_path) -> None:
    """`os` and `system` are remembered first and fetched for the import: no string stands before it."""
    file = tmp_path / "memo.bin"
    text = b"\x8c\x02os\x94\x8c\x06system\x94" + b"00" + b"\x88" + b"h\x00h\x01\x93" + b"\x8c\x04true\x85R."
    file.write_bytes(b"\x80\x04" + text)
    with pytest.raises(RequestError, match=r"contains code \((os|posix|nt)\.system\)"):
        checkpoints.inspect(file)


def test_a_harmless_name_that_is_dropped_again_hides_nothing(tmp_path) -> None:
    """What stood before it is what gets imported."""
    file = tmp_path / "dropped.bin"
    text = b"\x8c\x05posix\x8c\x06system" + b"\x8c\x05torch\x8c\x04Size00"
    file.write_bytes(b"\x80\x04" + text + b"\x93(\x8c\x04truetR.")
    with pytest.raises(RequestError, match=r"contains code \(posix\.system\)"):
        checkpoints.inspect(file)


def test_a_name_put_together_out_of_sight_is_code(tmp_path) -> None:
    file = tmp_path / "hidden.bin"
    file.write_bytes(b"\x80\x04" + b"K\x01\x94" + b"\x8c\x06system" + b"\x93.")
    with pytest.raises(RequestError, match="under a hidden name"):
        checkpoints.inspect(file)


def test_other_corners_of_numpy_are_code(tmp_path) -> None:
    file = tmp_path / "numpy.bin"
    file.write_bytes(b"\x80\x02cnumpy.testing._private.utils\nruncstring\n.")
    with pytest.raises(RequestError, match="contains code"):
        checkpoints.inspect(file)


@pytest.mark.parametrize("new_format", [True, False])
def test_ordinary_pickles_are_still_read(tmp_path, new_format: bool) -> None:
    file = tmp_path / "lora.bin"
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64)
    content = {f"x.lora_down.{kind}": torch.zeros(2, 2, dtype=kind) for kind in kinds}
    content["x.parameter"] = torch.nn.Parameter(torch.zeros(3))
    torch.save({"state_dict": content, "step": 3}, file, _use_new_zipfile_serialization=new_format)
    assert checkpoints.inspect(file).kind == "lora"
    assert checkpoints.read_shapes(file)["x.parameter"] == (3,)


def test_an_archive_that_unpacks_to_much_more_is_not_unpacked(tmp_path) -> None:
    file = tmp_path / "bomb.bin"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x/data.pkl", "w") as part:
        for _ in range(300):
            part.write(bytes(10**6))
    assert file.stat().st_size < 10**6
    tracemalloc.start()
    with pytest.raises(RequestError, match="unpack to far more"):
        checkpoints.inspect(file)
    assert tracemalloc.get_traced_memory()[1] < 50 * 10**6
    tracemalloc.stop()


def safetensors(path, header: object, length: int | None = None) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + bytes(16))


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
PREFIX = "model.diffusion_model."
HEADERS = {
    "list": [],
    "null": None,
    "number": 5,
    "deep": b"[" * 100_000,
    "entry list": {"a": []},
    "entry number": {"a": 5},
    "no offsets": {"a": {"shape": [1]}},
    "null offsets": {"a": ENTRY | {"data_offsets": None}},
    "one offset": {"a": ENTRY | {"data_offsets": [0]}},
    "endless offset": b'{"a": {"shape":[1],"data_offsets":[0,1e999]}}',
    "negative offset": {"a": ENTRY | {"data_offsets": [-8, 0]}},
    "no shape": {"a": {"data_offsets": [0, 4]}},
    "shape of words": {"a": ENTRY | {"shape": ["x"]}},
    "not a number": b'{"a": NaN}',
    "not utf-8": b'{"\xff":1}',
    "long number": b'{"a":' + b"9" * 5000 + b"}",
    "nothing": {},
    "metadata alone": {"__metadata__": {"a": "b"}},
    "metadata list": {"__metadata__": [], "a": ENTRY},
    "flat adapter": {
        "image_proj.latents": ENTRY,
        "image_proj.proj_in.weight": ENTRY,
        "ip_adapter.1.to_k_ip.weight": ENTRY | {"shape": []},
    },
    "flat base": {
        f"{PREFIX}input_blocks.0.0.weight": ENTRY | {"shape": []},
        f"{PREFIX}x.attn2.to_k.weight": ENTRY | {"shape": []},
        f"{PREFIX}label_emb.0.0.weight": ENTRY,
        "first_stage_model.x": ENTRY,
    },
    "flat control": {"control_model.a": ENTRY, "x.attn2.to_k.weight": ENTRY},
}


@pytest.mark.parametrize("name", HEADERS)
def test_damaged_headers_are_one_sentence(tmp_path, name: str) -> None:
    safetensors(tmp_path / "x.safetensors", HEADERS[name])
    with pytest.raises(RequestError, match=r"x\.safetensors"):
        checkpoints.inspect(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [0, 60, 10**8, 2**63, 2**64 - 1])
def test_wrong_lengths_are_one_sentence(tmp_path, length: int) -> None:
    safetensors(tmp_path / "x.safetensors", {}, length)
    with pytest.raises(RequestError, match=r"x\.safetensors"):
        checkpoints.inspect(tmp_path / "x.safetensors")


def test_a_dict_within_itself_is_one_sentence(tmp_path) -> None:
    content: dict = {"a": torch.zeros(1)}
    content["state_dict"] = content
    content["b"] = {"c": content}
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(RequestError, match=r"x\.bin"):
        checkpoints.inspect(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", "[" * 100_000),
        ("config.json", "5"),
        ("config.json", '{"_class_name": "ControlNetModel", "block_out_channels": 5}'),
        ("config.json", '{"_class_name": "ControlNetModel", "down_block_types": null}'),
        ("config.json", '{"_class_name": 5}'),
        ("config.json", '{"_class_name": "' + "x" * 5000 + '"}'),
        ("model_index.json", "[]"),
        ("model_index.json", '{"_class_name": []}'),
        ("model_index.json", '{"unet": []}'),
        ("model_index.json", '{"unet": [null, null]}'),
        ("model_index.json", '{"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "X"]}'),
        ("unet/config.json", "{"),
        ("unet/config.json", '{"cross_attention_dim": {}}'),
        ("unet/config.json", '{"cross_attention_dim": [], "in_channels": "four"}'),
    ],
)
def test_damaged_configs_are_one_sentence(tmp_path, file: str, content: str) -> None:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    if file.startswith("unet"):
        (folder / "model_index.json").write_text("{}")
    (folder / file).write_text(content)
    with pytest.raises(RequestError) as told:
        checkpoints.inspect(folder)
    assert len(str(told.value)) < 400
