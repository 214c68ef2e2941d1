"""What a checkpoint is, from its config, header or shapes, before anything of it is loaded; and clear refusals.

Nothing here executes a file: `.safetensors` headers are JSON, pickles are read opcode by opcode and then only by
torch's weights-only reader. Whatever a stranger's file holds, what comes out is a `CheckpointInfo` or a sentence.
"""

import functools
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, BinaryIO, Literal, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError
from pydantic_core import from_json

from instantid_demo.request import RequestError

Kind = Literal[
    "base-folder", "base-file", "identity-net", "controlnet", "controlnet-union", "image-adapter", "lora", "vae", "unet"
]
Architecture = Literal["sdxl", "sd15"]
FewStep = Literal["lightning", "turbo", "hyper", "lcm", "dmd"]
Shapes = dict[str, tuple[int, ...]]

NAMES: dict[str, str] = {
    "base-folder": "a base model folder",
    "base-file": "a base model in one file",
    "identity-net": "an IdentityNet",
    "controlnet": "an ordinary ControlNet",
    "controlnet-union": "a ControlNet-Union",
    "image-adapter": "an image adapter",
    "lora": "a LoRA",
    "vae": "a VAE",
    "unet": "a bare UNet",
}
ARCHITECTURES: dict[str, str] = {"sdxl": "SDXL", "sd15": "SD1.5"}
PARTS: dict[str, str] = {"text_encoder": "text encoder", "text_encoder_2": "second text encoder", "vae": "VAE"}
"""Parts of a base model that some single files leave out."""
OTHER_CONTROLS = re.compile(
    r"depth|canny|pose|lineart|scribble|softedge|normal|seg|tile|inpaint|mlsd|union|qr|recolor|blur", re.IGNORECASE
)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
SAFE_NAMES = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.Parameter"
    r"|torch\.serialization\._get_layout|torch\.(Size|device|dtype|Tensor|\w+Storage|storage\.\w+Storage)"
    r"|torch\.(b?float|float8_|u?int|complex|half|double|short|long|bool)\w*"
    r"|numpy\.(dtype|ndarray|(_?core\.)?multiarray\.(_reconstruct|scalar)|dtypes\.\w+DType)|_codecs\.encode"
    r"|collections\.(OrderedDict|defaultdict|Counter)"
    r"|(__builtin__|builtins)\.(set|frozenset|dict|list|tuple|bytearray|complex|int|float|bool|str)"
)
"""All that tensors need; everything else in a pickle is code to run."""
LEGACY_PICKLES = 5
"""Pickles at the start of a file in torch's old format: magic number, version, system, content, storages."""
MAX_PICKLE = 256_000_000
"""Bytes of a file's pickles; those of SDXL take less than one million."""
MAX_HEADER = 100_000_000
V_PREDICTION = re.compile(r"(?<!no)(?<!non)(?<!non-)(?<!non_)v[-_ ]?pred", re.IGNORECASE)
FOREIGN_BASES = {
    "xl_refiner": "SDXL's refiner, which finishes pictures of the base",
    "xl_inpaint": "an SDXL inpainting model, which needs a mask for every picture",
    "inpainting": "an SD1.5 inpainting model, which needs a mask for every picture",
    "inpainting_v2": "an SD 2 inpainting model",
    "instruct-pix2pix": "an InstructPix2Pix model, which edits pictures",
    "playground-v2-5": "Playground v2.5, which counts noise in a way of its own",
    "upscale": "an upscaler",
    "v2": "an SD 2 model",
}
"""diffusers' names of kinds of base models that are SDXL's or SD1.5's relatives, in words."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class CheckpointInfo:
    """What is known of a checkpoint without loading it; a dimension it does not have is None."""

    path: Path
    kind: Kind
    architecture: Architecture | None = None
    cross_attention_dim: int | None = None
    """Width of text and identity tokens in the UNet: 2048 for SDXL, 768 for SD1.5, 256 for Pocket."""
    in_channels: int | None = None
    block_out_channels: tuple[int, ...] | None = None
    embedding_dim: int | None = None
    """Adapters: width of the face embedding, 512 for antelopev2."""
    tokens: int | None = None
    """Adapters: identity tokens per person."""
    variant: str | None = None
    """Folders: 'fp16' where only files of that variant are there."""
    ends: tuple[int, int] | None = None
    """Base files: channels of the UNet's first and last block on the way down, 320 and 1280."""
    depth: int | None = None
    """Base files: transformer blocks in the middle of the UNet, 10 for SDXL, 1 for SD1.5."""
    missing: tuple[str, ...] = ()
    """Base files: the `PARTS` that are not in it."""
    prediction: Literal["epsilon", "v_prediction"] | None = None
    """Base files: what the network was trained to predict; None: the file does not tell."""
    zero_snr: bool = False
    """Base files: trained down to a signal of zero."""
    few_step: FewStep | None = None
    """Bases: what was merged into it, so that it draws in a few steps without guidance."""


class TensorEntry(BaseModel):
    """One tensor in the header of a `.safetensors` file."""

    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]
    dtype: str = ""


class NetworkConfig(BaseModel):
    """What is read of a network's `config.json`; the rest of it is the library's business."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    class_name: str = Field("", alias="_class_name")
    name_or_path: str = Field("", alias="_name_or_path")
    addition_embed_type: str | None = None
    cross_attention_dim: int | tuple[int, ...] | None = None
    in_channels: int | None = None
    block_out_channels: tuple[int, ...] | None = None
    down_block_types: tuple[str, ...] = ()
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    encoder_hid_dim_type: str | None = None
    transformer_layers_per_block: int | tuple[int | tuple[int, ...], ...] = 1
    sample_size: int | tuple[int, ...] | None = None

    @property
    def architecture(self) -> Architecture:
        """Of a UNet or ControlNet."""
        return "sdxl" if self.addition_embed_type == "text_time" else "sd15"

    @property
    def width(self) -> int | None:
        """Of text tokens in the network."""
        wide = self.cross_attention_dim
        return (wide[0] if wide else None) if isinstance(wide, tuple) else wide

    @property
    def depth(self) -> int | None:
        """Transformer blocks in the middle; None where the blocks differ among themselves."""
        layers = self.transformer_layers_per_block
        last = layers if isinstance(layers, int) else (layers or (1,))[-1]
        return last if isinstance(last, int) else None


class PipelineIndex(BaseModel):
    """A folder's `model_index.json`: the class of the pipeline, and library and class of each part."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Any]

    class_name: str = Field("", alias="_class_name")

    def parts(self) -> list[str]:
        """The names of the parts that it has."""
        extra = self.__pydantic_extra__ or {}
        return [name for name, entry in extra.items() if isinstance(entry, list) and entry and entry[0] is not None]


_HEADER = TypeAdapter(dict[str, TensorEntry])


def readable(read: Callable[_P, _T]) -> Callable[_P, _T]:
    """A reader of strangers' files whose every failure is one sentence; its first argument is the path."""

    @functools.wraps(read)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return read(*args, **kwargs)
        except RequestError:
            raise
        except Exception as error:  # JSON, pickles, archives, shapes: each kind of damage has errors of its own
            name = Path(str(args[0])).name[:80]
            raise RequestError(
                f"{name!r} cannot be read as a model: it is damaged, or of an unknown kind. Download it again, "
                "or choose another one."
            ) from error

    return guarded


@readable
def inspect(path: Path | str) -> CheckpointInfo:
    """What the file or folder at `path` is.

    Raises:
        RequestError: nothing there, incomplete, a pickle with code in it, or not a checkpoint we know.
    """
    path = Path(path)
    if path.is_dir():
        return _inspect_folder(path)
    if not path.is_file():
        raise RequestError(f"There is no file or folder {path.name!r} here; check the name or download it first.")
    shapes = read_shapes(path)
    return _inspect_shapes(path, shapes)


def only_base_file(folder: Path) -> Path | None:
    """The one base model file of a folder without a `model_index.json`; None where there is none.

    Raises:
        RequestError: there are several; the message names them.
    """
    if (folder / "model_index.json").is_file():
        return None
    found = [file for file in sorted(folder.glob("*.safetensors")) if _is_base_file(file)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:8])
        raise RequestError(f"{folder.name} holds several models ({names}): give the path of the one that you want.")
    return found[0] if found else None


def _is_base_file(file: Path) -> bool:
    try:
        return inspect(file).kind == "base-file"
    except RequestError:
        return False


def require(path: Path | str, *, kind: Kind | tuple[Kind, ...], architecture: str | None = None) -> CheckpointInfo:
    """`inspect(path)`, refused in one sentence where it is not of `kind` (one of several) or `architecture`.

    A full ControlNet has the same config and shapes as IdentityNet: it is told apart by its missing attention, or
    else by the name it carries (`depth`, `canny`, …), in the path or in its config.
    """
    info = inspect(path)
    kinds = (kind,) if isinstance(kind, str) else kind
    if info.kind not in kinds:
        raise RequestError(f"{info.path.name!r} is {NAMES[info.kind]}, but {NAMES[kinds[0]]} is needed here.")
    if architecture and info.architecture and info.architecture != architecture:
        raise RequestError(
            f"{info.path.name!r} is for {ARCHITECTURES[info.architecture]}, but the base model is "
            f"{ARCHITECTURES[architecture]}; choose two that match."
        )
    return info


def require_together(base: CheckpointInfo, net: CheckpointInfo, adapter: CheckpointInfo) -> None:
    """Refuses IdentityNet and adapter made for another base than this one."""
    for part in (net, adapter):
        for name in ("cross_attention_dim", "in_channels", "block_out_channels"):
            ours, theirs = getattr(base, name), getattr(part, name)
            if ours is not None and theirs is not None and ours != theirs:
                made = f"{ARCHITECTURES[part.architecture]} " if part.architecture else ""
                raise RequestError(
                    f"{part.path.name!r} does not fit the base model {base.path.name!r}: it is {NAMES[part.kind]} for "
                    f"another {made}network ({name.replace('_', ' ')} {_plain(theirs)} instead of {_plain(ours)})."
                )
        if base.architecture and part.architecture and base.architecture != part.architecture:
            raise RequestError(
                f"{part.path.name!r} is for {ARCHITECTURES[part.architecture]}, but the base model "
                f"{base.path.name!r} is {ARCHITECTURES[base.architecture]}; choose two that match."
            )


def require_fitting_control(net: CheckpointInfo, width: int) -> None:
    """Refuses an extra ControlNet that hears text of another `width` than the base's."""
    if net.cross_attention_dim is not None and net.cross_attention_dim != width:
        raise RequestError(
            f"{net.path.name!r} was made for another network (text of width {net.cross_attention_dim} instead of "
            f"{width}); choose a ControlNet made for this model."
        )


def require_adapter_fits(state: Mapping[str, Mapping[str, Any]], unet: Any) -> None:
    """Refuses an adapter whose layers are not those of a loaded `unet`, layer by layer."""
    layers = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    weights = [unet.get_submodule(name.removesuffix(".processor")).to_k.weight for name in layers]
    for index, weight in enumerate(weights):
        for key in (f"{2 * index + 1}.to_k_ip.weight", f"{2 * index + 1}.to_v_ip.weight"):
            given = state["ip_adapter"].get(key)
            if given is None or tuple(given.shape) != tuple(weight.shape):
                raise RequestError("This image adapter was made for another base model; choose two that match.")
    if len(state["ip_adapter"]) != 2 * len(layers):
        raise RequestError("This image adapter has more layers than the base model; choose two that match.")


@readable
def read_image_adapter(path: Path | str) -> dict[str, dict[str, Any]]:
    """The two state dicts `image_proj` and `ip_adapter` of an InstantID adapter, on the CPU; no code is run."""
    path = require(path, kind="image-adapter").path
    if path.suffix.lower() == ".safetensors":
        flat = read_state(path)
        parts = ("image_proj", "ip_adapter")
        return {p: {k[len(p) + 1 :]: v for k, v in flat.items() if k.startswith(f"{p}.")} for p in parts}
    return _load_pickle(path)


@readable
def read_state(path: Path) -> dict[str, Any]:
    """The tensors of a file, on the CPU; no code is run."""
    if path.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return _load_pickle(path)


@readable
def read_shapes(path: Path) -> Shapes:
    """Every tensor's name and shape in a file; nested dicts are joined with dots.

    Raises:
        RequestError: incomplete, not a checkpoint, or a pickle with code in it.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise RequestError(f"{path.name!r} is only a Git LFS pointer; download the real file (git lfs pull).")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b'{"error')):
        raise RequestError(f"{path.name!r} is a web page saved under a model's name; download the file again.")
    if path.suffix.lower() == ".safetensors":
        return {name: entry.shape for name, entry in read_header(path)[0].items()}
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return _flatten(_load_pickle(path))
    raise RequestError(f"{path.name!r} is not a model file; .safetensors and .bin are understood.")


@readable
def read_header(path: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The tensors of a `.safetensors` file, and the text that its maker put into it.

    Raises:
        RequestError: incomplete or damaged.
    """
    size = path.stat().st_size
    broken = RequestError(f"{path.name!r} is incomplete or damaged; download it again.")
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise broken
        (length,) = struct.unpack("<Q", head)
        if length > min(size - 8, MAX_HEADER):
            raise broken
        try:
            header = from_json(file.read(length))
            told = header.pop("__metadata__", None)
            entries = _HEADER.validate_python(header)
        except (ValueError, AttributeError, TypeError) as error:
            raise broken from error
    end = max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if 8 + length + end > size:
        raise RequestError(
            f"{path.name!r} is incomplete: {size:,} of {8 + length + end:,} bytes are there; download it again."
        )
    told = told if isinstance(told, dict) else {}
    return entries, {str(key): str(value) for key, value in told.items()}


def _load_pickle(path: Path) -> dict[str, Any]:
    scan_pickle(path)
    import torch

    try:
        # mmap: the tensors' bytes stay on disk until somebody uses them.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise RequestError(f"{path.name!r} is incomplete or damaged; download it again.") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise RequestError(f"{path.name!r} does not hold named weights; it is not a model file we can use.")
    return content


@readable
def scan_pickle(path: Path) -> None:
    """Refuses a pickle that would run code; reads its opcodes, executes none.

    Raises:
        RequestError: it names anything but tensors and containers, is packed to become huge, or is damaged.
    """
    broken = RequestError(f"{path.name!r} is incomplete or damaged; download it again.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _scan_archive(path, archive)
            return
        with path.open("rb") as file:
            if file.read(4).startswith(b"PK"):
                raise broken
            file.seek(0)
            for _ in range(LEGACY_PICKLES):
                _scan(path, file)
                if not file.peek(1):
                    return
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise broken from error


def _scan_archive(path: Path, archive: zipfile.ZipFile) -> None:
    parts = archive.infolist()
    # torch stores everything as it is: what grows when it is unpacked was packed by somebody else.
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise RequestError(
            f"{path.name!r} would unpack to far more than its size, as no model does; it was not opened. "
            "Use a .safetensors version of it."
        )
    pickles = [part for part in parts if part.filename.endswith(".pkl")]
    if not pickles:
        raise zipfile.BadZipFile("no pickle in it")
    for part in pickles:
        with archive.open(part) as file:
            _scan(path, file)


class _Bounded:
    """A file of which `pickletools` gets at most `MAX_PICKLE` bytes."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MAX_PICKLE

    def read(self, count: int) -> bytes:
        return self._counted(count, self._file.read)

    def readline(self) -> bytes:
        return self._counted(1, lambda _: self._file.readline(self._left + 1))

    def _counted(self, count: int, read: Callable[[int], bytes]) -> bytes:
        if count > self._left:
            raise ValueError("more than a pickle of a model holds")
        found = read(count)
        self._left -= len(found)
        return found


def _scan(path: Path, file: BinaryIO | Any) -> None:
    """One pickle, up to its end."""
    for name in _globals(file):
        if name is None or not SAFE_NAMES.fullmatch(name):
            raise RequestError(
                f"{path.name!r} contains code ({(name or 'under a hidden name')[:80]}) that would run when loaded; "
                "it was not opened. Use a .safetensors version of it."
            )


def _globals(file: BinaryIO | Any) -> Iterator[str | None]:
    """What a pickle imports, as `module.name`; None where the name is put together out of sight.

    The opcodes are followed on a stack of texts, everything else on it is None; nothing is built.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    bounded: Any = _Bounded(file)
    for opcode, argument, _ in pickletools.genops(bounded):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif name == "STACK_GLOBAL":
            parts = stack[-2:]
            yield ".".join(parts) if len(parts) == 2 and all(isinstance(part, str) for part in parts) else None
        elif name in ("EXT1", "EXT2", "EXT4"):
            yield None
        if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1] if stack else None
            continue
        top = stack[-1] if stack else None
        marked = pickletools.markobject in opcode.stack_before or (name == "POP" and top is pickletools.markobject)
        while marked and stack and stack.pop() is not pickletools.markobject:
            pass
        counted = [kind for kind in opcode.stack_before if kind not in (pickletools.markobject, pickletools.stackslice)]
        if not (marked and name == "POP"):
            del stack[len(stack) - min(len(counted), len(stack)) :]
        if name == "MARK":
            stack.append(pickletools.markobject)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo.get(argument))
        elif name == "DUP":
            stack += [top, top]
        elif opcode.stack_after:
            text = isinstance(argument, str) and name not in ("GLOBAL", "INST")
            stack.append(argument if text else None)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Shapes:
    shapes: Shapes = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            shapes |= _flatten(value, f"{prefix}{key}.")
        elif hasattr(value, "shape"):
            shapes[f"{prefix}{key}"] = tuple(value.shape)
    return shapes


def _inspect_folder(path: Path) -> CheckpointInfo:
    if (path / "model_index.json").is_file():
        return _inspect_base_folder(path)
    config = read_config(path)
    if config is None:
        file = only_base_file(path)
        if file is not None:
            return inspect(file)
        raise RequestError(
            f"The folder {path.name!r} is not a model: it has neither model_index.json nor config.json, and no base "
            "model in one file."
        )
    kind_of = config.class_name
    info: dict[str, Any] = {
        "architecture": config.architecture,
        "cross_attention_dim": config.width,
        "in_channels": config.in_channels,
        "block_out_channels": config.block_out_channels,
        "variant": variant_of(path),
    }
    if kind_of in ("ControlNetModel", "IdentityNet", "ControlNet"):
        hears = any("CrossAttn" in block for block in (*config.down_block_types, config.mid_block_type or ""))
        named = OTHER_CONTROLS.search(f"{path.parent.name}/{path.name} {config.name_or_path}")
        plain = not hears or (kind_of != "IdentityNet" and named is not None)
        if not hears:
            info["cross_attention_dim"] = None
        return CheckpointInfo(path, "controlnet" if plain else "identity-net", **info)
    if kind_of == "ControlNetUnionModel":
        return CheckpointInfo(path, "controlnet-union", **info)
    if kind_of == "UNet2DConditionModel":
        return CheckpointInfo(path, "unet", **info)
    if kind_of.startswith("Autoencoder"):
        return CheckpointInfo(path, "vae", variant=info["variant"])
    raise RequestError(
        f"The folder {path.name!r} holds a {kind_of[:80] or 'model of an unknown kind'}, which has no use here."
    )


def _inspect_base_folder(path: Path) -> CheckpointInfo:
    index = _read(path / "model_index.json", PipelineIndex) or PipelineIndex()
    require_base_pipeline(index.class_name, path.name)
    config = read_config(path / "unet")
    if config is None:
        raise RequestError(
            f"{path.name!r} is no SDXL or SD1.5 model: there is no unet/config.json in it; choose another base model."
        )
    for name in index.parts():
        if name in ("unet", *PARTS):
            _require_weights(path, name)
    if config.encoder_hid_dim_type is not None:
        raise RequestError(f"{path.name!r} has text encoders of its own kind; InstantID needs plain SDXL or SD1.5.")
    if config.architecture == "sd15" and config.width == 1024:
        raise RequestError(f"{path.name!r} is an SD 2 model; InstantID needs an SDXL or SD1.5 base model.")
    _require_four_channels(path.name, config.in_channels)
    return CheckpointInfo(
        path,
        "base-folder",
        architecture=config.architecture,
        cross_attention_dim=config.width,
        in_channels=config.in_channels,
        block_out_channels=config.block_out_channels,
        variant=variant_of(path / "unet"),
        few_step=few_step_of(path.name),
    )


def require_base_pipeline(class_name: str, name: str) -> None:
    """Refuses a repository or folder whose `model_index.json` names the pipeline of another family.

    Args:
        class_name: `_class_name` of the index; empty: it does not tell.
        name: of the repository or folder.
    """
    if not class_name or (class_name.startswith("StableDiffusion") and not class_name.startswith("StableDiffusion3")):
        return
    family = class_name.removesuffix("Pipeline")[:60]
    raise RequestError(f"{name!r} is a {family} model; InstantID needs an SDXL or SD1.5 base model.")


def _require_weights(path: Path, name: str) -> None:
    """Refuses a part of a base folder that is not whole."""
    folder = path / name
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    whole = bool(weights)
    for listing in folder.glob("*.index*.json"):
        wanted = _read(listing, _Sharded)
        whole = whole and all((folder / file).is_file() for file in set((wanted or _Sharded()).weight_map.values()))
    if not whole:
        raise RequestError(f"The base model {path.name!r} is incomplete: {name}/ has no weights; download it again.")
    safe = [file for file in weights if file.suffix == ".safetensors"]
    for file in safe:
        read_header(file)
    for file in weights if not safe else ():
        scan_pickle(file)


class _Sharded(BaseModel):
    """The list of a network's files, where there are several."""

    weight_map: dict[str, Annotated[str, Field(max_length=200)]] = {}


def _require_four_channels(name: str, channels: int | None) -> None:
    """Pocket's latents have 8 channels, an InstructPix2Pix model's as well: that one is told by its pipeline."""
    if channels == 9:
        raise RequestError(
            f"{name!r} is an inpainting model (9 input channels), which needs a mask for every picture; choose the "
            "ordinary version of it: masks work with that one."
        )


def _inspect_shapes(path: Path, shapes: Shapes) -> CheckpointInfo:
    if any("lora_controlnet" in key for key in shapes):
        raise RequestError(f"{path.name!r} is a Control-LoRA, which is not supported; choose a whole ControlNet.")
    if any(key.startswith(("image_proj.", "ip_adapter.")) for key in shapes):
        return _inspect_adapter(path, shapes)
    if any(re.search(r"lora[_.](down|up|A|B)\b|lora_(down|up)|hada_w|lokr_w", key) for key in shapes):
        return CheckpointInfo(path, "lora", architecture=_lora_architecture(shapes))
    if any(key.startswith("model.diffusion_model.") for key in shapes):
        return _inspect_base_file(path, shapes)
    if any(key.startswith(("control_model.", "zero_convs.", "controlnet_cond_embedding.")) for key in shapes):
        return _inspect_control_file(path, shapes)
    if any(key.startswith(("first_stage_model.", "decoder.")) for key in shapes):
        return CheckpointInfo(path, "vae")
    if any(key.startswith(("down_blocks.", "input_blocks.")) for key in shapes):
        return CheckpointInfo(path, "unet")
    foreign = _foreign(shapes)
    if foreign:
        raise RequestError(f"{path.name!r} is {foreign}; InstantID needs an SDXL or SD1.5 base model.")
    raise RequestError(f"{path.name!r} holds no SDXL or SD1.5 weights that we know; choose another file.")


def _inspect_control_file(path: Path, shapes: Shapes) -> CheckpointInfo:
    cross = next((shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight")), None)
    labels = ("add_embedding.linear_1.weight", "control_model.label_emb.0.0.weight", "label_emb.0.0.weight")
    named = OTHER_CONTROLS.search(f"{path.parent.name}/{path.name}")
    kind: Kind = "controlnet" if cross is None or named else "identity-net"
    if "control_add_embedding.linear_1.weight" in shapes:
        kind = "controlnet-union"
    return CheckpointInfo(
        path,
        kind,
        architecture="sdxl" if any(label in shapes for label in labels) else "sd15",
        cross_attention_dim=cross,
    )


def _inspect_base_file(path: Path, shapes: Shapes) -> CheckpointInfo:
    prefix = "model.diffusion_model."
    cross = next((s[1] for k, s in shapes.items() if k.startswith(prefix) and k.endswith("attn2.to_k.weight")), None)
    entrance = shapes.get(f"{prefix}input_blocks.0.0.weight")
    foreign = _foreign(shapes)
    if foreign:
        raise RequestError(f"{path.name!r} is {foreign}; InstantID needs an ordinary SDXL or SD1.5 base model.")
    sdxl = f"{prefix}label_emb.0.0.weight" in shapes
    if cross is None or entrance is None or (not sdxl and cross != 768):
        raise RequestError(f"{path.name!r} is neither SDXL nor SD1.5; InstantID needs one of them as base model.")
    owned = {
        "text_encoder": ("conditioner.embedders.0.transformer." if sdxl else "cond_stage_model.transformer.",),
        "vae": ("first_stage_model.", "vae."),
    } | ({"text_encoder_2": ("conditioner.embedders.1.model.",)} if sdxl else {})
    told = read_header(path)[1] if path.suffix.lower() == ".safetensors" else {}
    middle = re.compile(re.escape(f"{prefix}middle_block.1.transformer_blocks.") + r"(\d+)\.")
    deepest = shapes.get(f"{prefix}middle_block.0.in_layers.2.weight", entrance)
    return CheckpointInfo(
        path,
        "base-file",
        architecture="sdxl" if sdxl else "sd15",
        cross_attention_dim=cross,
        in_channels=entrance[1],
        ends=(entrance[0], deepest[0]),
        depth=len({found[1] for key in shapes if (found := middle.match(key))}),
        missing=tuple(part for part in PARTS if part in owned and not any(k.startswith(owned[part]) for k in shapes)),
        prediction=_prediction(path, shapes, told),
        zero_snr="ztsnr" in shapes or told.get("ss_zero_terminal_snr", "").lower() == "true",
        few_step=few_step_of(path.stem, *(told.get(key, "") for key in ("modelspec.title", "ss_output_name"))),
    )


def _foreign(shapes: Shapes) -> str | None:
    """What a file of another family is, in words; None where it may be SDXL or SD1.5."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    kind = infer_diffusers_model_type({key: SimpleNamespace(shape=shape) for key, shape in shapes.items()})
    if kind in ("xl_base", "v1") or kind.startswith("controlnet"):
        return None
    return FOREIGN_BASES.get(kind) or f"a model of another family ({kind})"


def _prediction(path: Path, shapes: Shapes, told: Mapping[str, str]) -> Literal["epsilon", "v_prediction"] | None:
    """By the marks that trainers leave, in the order of their worth; the file's name comes last."""
    if "v_pred" in shapes or told.get("ss_v_parameterization", "").lower() == "true":
        return "v_prediction"
    named = told.get("modelspec.prediction_type", "").lower()
    if named:
        return "v_prediction" if named.startswith("v") else "epsilon"
    return "v_prediction" if V_PREDICTION.search(path.stem) else None


def few_step_of(*names: str) -> FewStep | None:
    """What a base's names say was merged into it, so that it draws in a few steps; None: nothing."""
    for name in names:
        words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
        for word, after in pairwise([*words, ""]):
            if "lightning" in word:
                return "lightning"
            if "turbo" in word:
                return "turbo"
            if word == "hyper" and not after.startswith(("real", "detail", "focus")):
                return "hyper"
            if word == "lcm":
                return "lcm"
            if word == "dmd":
                return "dmd"
    return None


def _inspect_adapter(path: Path, shapes: Shapes) -> CheckpointInfo:
    projection = {
        key.removeprefix("image_proj."): shape for key, shape in shapes.items() if key.startswith("image_proj.")
    }
    layers = {key.removeprefix("ip_adapter."): shape for key, shape in shapes.items() if key.startswith("ip_adapter.")}
    needed = "choose InstantID's own ip-adapter file"
    if (
        any("lora" in key for key in layers)
        or "norm.weight" in projection
        or any(key.startswith("perceiver_resampler") for key in projection)
    ):
        raise RequestError(f"{path.name!r} is an IP-Adapter FaceID, which InstantID cannot use; {needed}.")
    if "latents" not in projection or "proj_in.weight" not in projection:
        raise RequestError(f"{path.name!r} is an IP-Adapter for pictures, not for faces; {needed}.")
    hidden, embedding = projection["proj_in.weight"]
    if embedding >= 1024:
        raise RequestError(f"{path.name!r} is an IP-Adapter Plus for CLIP pictures, not for face embeddings; {needed}.")
    keys = sorted({key for key in layers if key.endswith("to_k_ip.weight")})
    depth = len({key.split(".")[1] for key in projection if key.startswith("layers.")})
    if not keys or depth != 4 or projection.get("layers.0.1.1.weight", (4 * hidden,))[0] != 4 * hidden:
        raise RequestError(f"{path.name!r} is no complete InstantID adapter; download it again.")
    cross = layers[keys[0]][1]
    architecture: Architecture | None = {2048: "sdxl", 768: "sd15"}.get(cross)  # type: ignore[assignment]
    return CheckpointInfo(
        path,
        "image-adapter",
        architecture=architecture,
        cross_attention_dim=cross,
        embedding_dim=embedding,
        tokens=projection["latents"][1],
    )


def _lora_architecture(shapes: Shapes) -> Architecture | None:
    if any(key.startswith(("lora_te2_", "text_encoder_2")) for key in shapes):
        return "sdxl"
    for key, shape in shapes.items():
        if "attn2" in key and "to_k" in key and re.search(r"down|lora_A", key) and len(shape) >= 2:
            return {2048: "sdxl", 768: "sd15"}.get(shape[1])  # type: ignore[return-value]
    return None


def variant_of(folder: Path) -> str | None:
    """'fp16' where a part's folder holds files of that variant alone."""
    names = [file.name for file in folder.glob("*.safetensors")]
    fp16 = [name for name in names if ".fp16." in name]
    return "fp16" if fp16 and len(fp16) == len(names) else None


def read_config(folder: Path) -> NetworkConfig | None:
    """A network's `config.json`; None where there is none.

    Raises:
        RequestError: it is damaged.
    """
    return _read(folder / "config.json", NetworkConfig)


_M = TypeVar("_M", bound=BaseModel)


def _read(path: Path, model: type[_M]) -> _M | None:
    try:
        return model.model_validate(from_json(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, ValidationError) as error:
        raise RequestError(f"{path.parent.name}/{path.name} is damaged; download the model again.") from error


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Iterable) else str(value)
