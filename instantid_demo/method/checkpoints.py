"""What a checkpoint is, from its config, header or shapes, before anything of it is loaded; and clear refusals.

Nothing here executes a file: `.safetensors` headers are JSON, pickles are read opcode by opcode and then only by
torch's weights-only reader.
"""

import json
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instantid_demo.request import RequestError

Kind = Literal["base-folder", "base-file", "identity-net", "controlnet", "image-adapter", "lora", "vae", "unet"]
Architecture = Literal["sdxl", "sd15"]
Shapes = dict[str, tuple[int, ...]]

NAMES: dict[str, str] = {
    "base-folder": "a base model folder",
    "base-file": "a base model in one file",
    "identity-net": "an IdentityNet",
    "controlnet": "an ordinary ControlNet",
    "image-adapter": "an image adapter",
    "lora": "a LoRA",
    "vae": "a VAE",
    "unet": "a bare UNet",
}
ARCHITECTURES: dict[str, str] = {"sdxl": "SDXL", "sd15": "SD1.5"}
OTHER_CONTROLS = re.compile(
    r"depth|canny|pose|lineart|scribble|softedge|normal|seg|tile|inpaint|mlsd|union|qr|recolor|blur", re.IGNORECASE
)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
# What tensors alone need; everything else in a pickle is code to run.
PICKLE_MODULES = re.compile(r"^(torch(\._utils|\.storage|\._tensor)?|collections|_codecs|numpy(\.\w+)*)$")
RISKY_NAMES = frozenset({"load", "hub", "compile", "save", "jit", "ops", "classes"})
MAX_HEADER = 100_000_000


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


def read_image_adapter(path: Path | str) -> dict[str, dict[str, Any]]:
    """The two state dicts `image_proj` and `ip_adapter` of an InstantID adapter, on the CPU; no code is run."""
    path = require(path, kind="image-adapter").path
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        flat = load_file(path)
        parts = ("image_proj", "ip_adapter")
        return {p: {k[len(p) + 1 :]: v for k, v in flat.items() if k.startswith(f"{p}.")} for p in parts}
    return _load_pickle(path)


def read_shapes(path: Path) -> Shapes:
    """Every tensor's name and shape in a file; nested dicts are joined with dots.

    Raises:
        RequestError: incomplete, not a checkpoint, or a pickle with code in it.
    """
    start = path.open("rb").read(64)
    if start.startswith(b"version https://git-lfs"):
        raise RequestError(f"{path.name!r} is only a Git LFS pointer; download the real file (git lfs pull).")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b'{"error')):
        raise RequestError(f"{path.name!r} is a web page saved under a model's name; download the file again.")
    if path.suffix.lower() == ".safetensors":
        return _safetensors_shapes(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return _flatten(_load_pickle(path))
    raise RequestError(f"{path.name!r} is not a model file; .safetensors and .bin are understood.")


def _safetensors_shapes(path: Path) -> Shapes:
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
            header = json.loads(file.read(length))
        except ValueError as error:
            raise broken from error
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + end > size:
        raise RequestError(
            f"{path.name!r} is incomplete: {size:,} of {8 + length + end:,} bytes are there; download it again."
        )
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _load_pickle(path: Path) -> dict[str, Any]:
    scan_pickle(path)
    import torch

    try:
        # mmap: the tensors' bytes stay on disk until somebody uses them.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise RequestError(f"{path.name!r} is incomplete or damaged; download it again.") from error
    if not isinstance(content, dict):
        raise RequestError(f"{path.name!r} does not hold named weights; it is not a model file we can use.")
    return content.get("state_dict", content)


def scan_pickle(path: Path) -> None:
    """Refuses a pickle that would run code; reads its opcodes, executes none.

    Raises:
        RequestError: it names anything but tensors and containers, or is damaged.
    """
    broken = RequestError(f"{path.name!r} is incomplete or damaged; download it again.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickles = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
        else:
            if path.open("rb").read(4).startswith(b"PK"):
                raise broken
            # The old format: several pickles one after the other, then raw storage.
            pickles = [path.read_bytes()]
        if not pickles:
            raise broken
        for content in pickles:
            _scan(path, content)
    except (zipfile.BadZipFile, EOFError) as error:
        raise broken from error


def _scan(path: Path, content: bytes) -> None:
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if isinstance(argument, str) and opcode.name not in ("GLOBAL", "INST"):
                strings.append(argument)
            if opcode.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
            elif opcode.name == "STACK_GLOBAL":
                module, name = ([*strings, "", ""])[-4:-2] if len(strings) < 2 else strings[-2:]
            else:
                continue
            if not PICKLE_MODULES.match(module) or name in RISKY_NAMES:
                raise RequestError(
                    f"{path.name!r} contains code ({module}.{name}) that would run when loaded; it was not opened. "
                    "Use a .safetensors version of it."
                )
    except ValueError as error:
        raise RequestError(f"{path.name!r} is incomplete or damaged; download it again.") from error


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
    config = _json(path / "config.json")
    if config is None:
        raise RequestError(f"The folder {path.name!r} is not a model: it has neither model_index.json nor config.json.")
    kind_of = str(config.get("_class_name", ""))
    info = {
        "architecture": "sdxl" if config.get("addition_embed_type") == "text_time" else "sd15",
        "cross_attention_dim": _first(config.get("cross_attention_dim")),
        "in_channels": config.get("in_channels"),
        "block_out_channels": tuple(config.get("block_out_channels") or ()) or None,
        "variant": _variant(path),
    }
    if kind_of in ("ControlNetModel", "IdentityNet", "ControlNet"):
        blocks = [*config.get("down_block_types", ()), config.get("mid_block_type", "UNetMidBlock2DCrossAttn")]
        hears = any("CrossAttn" in block for block in blocks)
        named = OTHER_CONTROLS.search(f"{path.parent.name}/{path.name} {config.get('_name_or_path', '')}")
        plain = not hears or (kind_of != "IdentityNet" and named is not None)
        if not hears:
            info["cross_attention_dim"] = None
        return CheckpointInfo(path, "controlnet" if plain else "identity-net", **info)  # type: ignore[arg-type]
    if kind_of == "ControlNetUnionModel":
        return CheckpointInfo(path, "controlnet", **info)  # type: ignore[arg-type]
    if kind_of == "UNet2DConditionModel":
        return CheckpointInfo(path, "unet", **info)  # type: ignore[arg-type]
    if kind_of.startswith("Autoencoder"):
        return CheckpointInfo(path, "vae", variant=info["variant"])
    raise RequestError(
        f"The folder {path.name!r} holds a {kind_of or 'model of an unknown kind'}, which has no use here."
    )


def _inspect_base_folder(path: Path) -> CheckpointInfo:
    config = _json(path / "unet" / "config.json")
    if config is None:
        raise RequestError(
            f"{path.name!r} is no SDXL or SD1.5 model: there is no unet/config.json in it; choose another base model."
        )
    index = _json(path / "model_index.json") or {}
    for name, entry in index.items():
        present = isinstance(entry, list) and entry[0] is not None
        if present and name in ("unet", "vae", "text_encoder", "text_encoder_2"):
            weights = [*(path / name).glob("*.safetensors"), *(path / name).glob("*.bin")]
            if not weights:
                raise RequestError(
                    f"The base model {path.name!r} is incomplete: {name}/ has no weights; download it again."
                )
            for file in weights:
                if file.suffix == ".safetensors":
                    _safetensors_shapes(file)
    sdxl = config.get("addition_embed_type") == "text_time"
    width = _first(config.get("cross_attention_dim"))
    if not sdxl and width == 1024:
        raise RequestError(f"{path.name!r} is an SD 2 model; InstantID needs an SDXL or SD1.5 base model.")
    return CheckpointInfo(
        path,
        "base-folder",
        architecture="sdxl" if sdxl else "sd15",
        cross_attention_dim=width,
        in_channels=config.get("in_channels"),
        block_out_channels=tuple(config.get("block_out_channels") or ()) or None,
        variant=_variant(path / "unet"),
    )


def _inspect_shapes(path: Path, shapes: Shapes) -> CheckpointInfo:
    if any(key.startswith(("image_proj.", "ip_adapter.")) for key in shapes):
        return _inspect_adapter(path, shapes)
    if any(re.search(r"lora[_.](down|up|A|B)\b|lora_(down|up)|hada_w|lokr_w", key) for key in shapes):
        return CheckpointInfo(path, "lora", architecture=_lora_architecture(shapes))
    if any(key.startswith("model.diffusion_model.") for key in shapes):
        return _inspect_base_file(path, shapes)
    if any(key.startswith(("control_model.", "zero_convs.", "controlnet_cond_embedding.")) for key in shapes):
        cross = next((s[1] for k, s in shapes.items() if k.endswith("attn2.to_k.weight")), None)
        inner = shapes.get("add_embedding.linear_1.weight") or shapes.get("control_model.label_emb.0.0.weight")
        named = OTHER_CONTROLS.search(f"{path.parent.name}/{path.name}")
        kind: Kind = "controlnet" if cross is None or named else "identity-net"
        return CheckpointInfo(path, kind, architecture="sdxl" if inner else "sd15", cross_attention_dim=cross)
    if any(key.startswith(("first_stage_model.", "decoder.")) for key in shapes):
        return CheckpointInfo(path, "vae")
    if any(key.startswith(("down_blocks.", "input_blocks.")) for key in shapes):
        return CheckpointInfo(path, "unet")
    raise RequestError(f"{path.name!r} holds no SDXL or SD1.5 weights that we know; choose another file.")


def _inspect_base_file(path: Path, shapes: Shapes) -> CheckpointInfo:
    prefix = "model.diffusion_model."
    cross = next((s[1] for k, s in shapes.items() if k.startswith(prefix) and k.endswith("attn2.to_k.weight")), None)
    sdxl = f"{prefix}label_emb.0.0.weight" in shapes
    if cross is None or (not sdxl and cross != 768):
        raise RequestError(f"{path.name!r} is neither SDXL nor SD1.5; InstantID needs one of them as base model.")
    if not any(key.startswith("first_stage_model.") for key in shapes):
        raise RequestError(f"{path.name!r} has no VAE in it; use a complete base model file.")
    entrance = shapes.get(f"{prefix}input_blocks.0.0.weight")
    return CheckpointInfo(
        path,
        "base-file",
        architecture="sdxl" if sdxl else "sd15",
        cross_attention_dim=cross,
        in_channels=entrance[1] if entrance else None,
    )


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


def _variant(folder: Path) -> str | None:
    names = [file.name for file in folder.glob("*.safetensors")]
    fp16 = [name for name in names if ".fp16." in name]
    return "fp16" if fp16 and len(fp16) == len(names) else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RequestError(f"{path.parent.name}/{path.name} is damaged; download the model again.") from error


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Iterable) else str(value)
