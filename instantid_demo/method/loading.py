"""From folders, files and hub ids to a pipeline: checks first, then weights, data type, device and offloading."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import diffusers
import psutil
import torch

from instantid_demo.method import checkpoints, pipelines
from instantid_demo.method.identity_net import ControlNet, IdentityNet
from instantid_demo.method.image_adapter import load_image_adapter
from instantid_demo.method.pipelines import InstantID
from instantid_demo.request import RequestError

Offload = Literal["auto", "none", "model", "sequential"]
Source = Path | str
"""A folder, a file or a hub id (`owner/name`, or `owner/name/folder-or-file`)."""

HUB_BASE = ("*.json", "*.txt", "*.safetensors")
# Weights of other frameworks and the one-file duplicates that many repositories hold beside the folders.
HUB_IGNORE = ("*onnx*", "*flax*", "*openvino*", "*.msgpack", "*non_ema*", "refiner*")
GIGABYTE = 2**30
ACTIVATIONS = 3 * GIGABYTE
"""Free memory that a 1024×1024 SDXL step and its decoding need beside the weights, with attention in SDPA."""
FLOAT32 = 20 * GIGABYTE
"""Free memory that SDXL with IdentityNet needs in float32 on a processor; in bfloat16 half of it."""


def load_pipeline(
    base: Source,
    identity_net: Source | ControlNet,
    adapter: Source,
    *,
    controlnets: Sequence[Source | diffusers.ControlNetModel] = (),
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    variant: str | None = None,
    offload: Offload = "auto",
    config: Path | None = None,
    half_vae: Path | None = None,
) -> InstantID:
    """The text-to-image pipeline; `.image_to_image()` and `.inpaint()` are its siblings on the same weights.

    Args:
        base: SDXL or SD1.5: diffusers folder, hub id, or a single `.safetensors` file.
        identity_net: IdentityNet's folder (or the folder or hub id above it), or a loaded one.
        adapter: `ip-adapter.bin` or `.safetensors` (or the folder or hub id that holds it).
        controlnets: extra ControlNets; they hear the text. A loaded `IdentityNet` here hears the identity too.
        dtype: None: bfloat16 or float16 on CUDA, bfloat16 on MPS, float32 on the CPU.
        device: None: CUDA, else MPS, else CPU.
        variant: of a base folder's files; None: 'fp16' where nothing else is there.
        offload: 'auto' chooses from the free memory; only CUDA offloads.
        config: for a single file: a folder with the configs and tokenizers of its architecture.
        half_vae: folder of an autoencoder that takes the place of the base's own in float16, where that one overflows.

    Raises:
        RequestError: a file is missing, damaged, of another kind or for another architecture; or no such device.
    """
    place = choose_device(device)
    kind = choose_dtype(place, dtype)
    base_path = locate(base, "base")
    base_info = checkpoints.require(base_path, kind=("base-folder", "base-file"))
    net_info = None
    if not isinstance(identity_net, diffusers.ControlNetModel):
        net_info = checkpoints.require(locate(identity_net, "identity-net"), kind="identity-net")
    adapter_info = checkpoints.require(locate(adapter, "image-adapter"), kind="image-adapter")
    checkpoints.require_together(base_info, net_info or adapter_info, adapter_info)

    first = identity_net if net_info is None else load_controlnet(net_info, IdentityNet, dtype=kind)
    extras = []
    for extra in controlnets:
        if isinstance(extra, diffusers.ControlNetModel):
            extras.append(extra)
            continue
        info = checkpoints.require(
            locate(extra, "controlnet"), kind=("controlnet", "identity-net"), architecture=base_info.architecture
        )
        extras.append(load_controlnet(info, ControlNet, dtype=kind))
    stock = _load_base(base_info, kind, variant or base_info.variant, config)
    if half_vae is not None and kind == torch.float16:
        stock.register_modules(vae=diffusers.AutoencoderKL.from_pretrained(half_vae, torch_dtype=kind))
    load_image_adapter(stock.unet, adapter_info.path)
    family = pipelines.SDXLTextToImage if base_info.architecture == "sdxl" else pipelines.SD15TextToImage
    pipe = family.of(stock, controlnet=[first, *extras] if extras else first)
    place_pipeline(pipe, place, offload)
    return pipe


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The given device, or the best that is there.

    Raises:
        RequestError: this computer has no such device, or PyTorch cannot use it.
    """
    if device is not None:
        place = torch.device(device)
        missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
        if missing.get(place.type, False):
            raise RequestError(
                f"PyTorch finds no {place.type} device on this computer: choose auto or cpu, or install its driver."
            )
        return place
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(device: torch.device, dtype: torch.dtype | None = None, *, large: bool = False) -> torch.dtype:
    """The given type, or what suits the device. float16 on MPS gives black pictures and becomes bfloat16.

    On a processor `large` networks are bfloat16 where it computes in that, and where memory is too small for float32.
    """
    if device.type == "mps":
        return torch.bfloat16 if dtype in (None, torch.float16) else dtype  # type: ignore[return-value]
    if dtype is not None:
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    half = large and (computes_in_bfloat16() or psutil.virtual_memory().available < FLOAT32)
    return torch.bfloat16 if half else torch.float32


def computes_in_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def choose_offload(weights: int, largest: int, free: int) -> Literal["none", "model", "sequential"]:
    """The fastest mode that fits: `weights` bytes in all, `largest` bytes at once on the device, `free` bytes there."""
    if weights + ACTIVATIONS <= free:
        return "none"
    return "model" if largest + ACTIVATIONS <= free else "sequential"


def place_pipeline(pipe: Any, device: torch.device, offload: Offload = "auto") -> None:
    """Moves the pipeline to `device`, or arranges for its parts to visit it."""
    if device.type == "cuda" and offload == "auto":
        sizes = {name: _bytes(part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        # UNet and ControlNets are needed together in every step.
        together = max(sizes.get("unet", 0) + sizes.get("controlnet", 0), *sizes.values())
        free, _ = torch.cuda.mem_get_info(device)
        offload = choose_offload(sum(sizes.values()), together, free)
    if device.type != "cuda" or offload == "none":
        pipe.to(device)
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)


def locate(source: Source, role: str) -> Path:
    """The local path of a folder, a file or a hub id; a repository's well-known part is found by `role`.

    Raises:
        RequestError: not here, and neither in the hub's cache nor to be had from the hub.
    """
    path = Path(source)
    if not path.exists():
        path = _from_hub(str(source), role)
    if role == "identity-net" and (path / "ControlNetModel").is_dir():
        return path / "ControlNetModel"
    if role == "image-adapter" and path.is_dir():
        for name in ("ip-adapter.safetensors", "ip-adapter.bin"):
            if (path / name).is_file():
                return path / name
        raise RequestError(f"There is no ip-adapter.bin or ip-adapter.safetensors in {path.name!r}.")
    return path


def _from_hub(source: str, role: str) -> Path:
    """A snapshot in the hub's own cache; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE apply."""
    parts = source.split("/")
    if len(parts) < 2 or source.startswith(("/", ".", "~")) or not all(parts) or "\\" in source:
        raise RequestError(f"There is no file or folder {source!r}; check the path, or give a hub id as owner/name.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, inner = "/".join(parts[:2]), "/".join(parts[2:])
    patterns = {"identity-net": ["ControlNetModel/*"], "image-adapter": ["ip-adapter.bin", "ip-adapter.safetensors"]}
    wanted = [inner, f"{inner}/*"] if inner else patterns.get(role, list(HUB_BASE))
    options: dict[str, Any] = {"allow_patterns": wanted, "ignore_patterns": list(HUB_IGNORE)}
    try:
        folder = Path(snapshot_download(repository, **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RequestError(
            f"{source!r} is neither a file here nor could it be fetched from the model hub; check the name and the "
            "network, or download it beforehand."
        ) from error
    return folder / inner if inner else folder


def load_controlnet(
    info: checkpoints.CheckpointInfo, kind: type[ControlNet] = ControlNet, *, dtype: torch.dtype = torch.float32
) -> Any:
    """A ControlNet folder, or a single `.safetensors` file of one."""
    if info.path.is_file():
        return kind.from_single_file(str(info.path), torch_dtype=dtype)
    return kind.from_pretrained(str(info.path), torch_dtype=dtype, variant=info.variant)


def _load_base(info: checkpoints.CheckpointInfo, dtype: torch.dtype, variant: str | None, config: Path | None) -> Any:
    sdxl = info.architecture == "sdxl"
    stock = diffusers.StableDiffusionXLPipeline if sdxl else diffusers.StableDiffusionPipeline
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True}
    options |= {"add_watermarker": False} if sdxl else {"safety_checker": None, "requires_safety_checker": False}
    if info.kind == "base-folder":
        return stock.from_pretrained(info.path, variant=variant, **options)
    try:
        return stock.from_single_file(str(info.path), config=None if config is None else str(config), **options)
    except OSError as error:
        raise RequestError(
            f"{info.path.name!r} needs the small config and tokenizer files of its architecture, which are not here; "
            "connect to the network once, or give a folder with them."
        ) from error


def _bytes(module: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())
