"""From folders and files to a pipeline: checks first, then weights, data type, device and offloading.

Nothing here reaches the network: hub ids are looked up in the hub's cache on this machine.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import diffusers
import psutil
import torch

from instantid_demo.method import architectures, checkpoints, pipelines
from instantid_demo.method.identity_net import ControlNet, IdentityNet, UnionNet
from instantid_demo.method.image_adapter import load_image_adapter
from instantid_demo.method.pipelines import InstantID
from instantid_demo.request import RequestError

Offload = Literal["auto", "none", "model", "sequential"]
Source = Path | str
"""A folder, a file or a hub id (`owner/name`, or `owner/name/folder-or-file`)."""

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
    half_vae: Path | None = None,
    lenders: Sequence[Path] = (),
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
        half_vae: folder of an autoencoder that takes the place of the base's own in float16, where that one
            overflows, or where a single file has none.
        lenders: folders of complete base models whose text encoders or VAE serve a single file that lacks them.

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
    stock = load_base(base_info, kind, variant=variant, half_vae=half_vae, lenders=lenders)
    if half_vae is not None and kind == torch.float16:
        with complete(half_vae):
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
        RequestError: not here, and not in the hub's cache on this machine either.
    """
    path = Path(source)
    if not path.exists():
        path = _from_cache(str(source), role)
    if role == "identity-net" and (path / "ControlNetModel").is_dir():
        return path / "ControlNetModel"
    if role == "image-adapter" and path.is_dir():
        for name in ("ip-adapter.safetensors", "ip-adapter.bin"):
            if (path / name).is_file():
                return path / name
        raise RequestError(f"There is no ip-adapter.bin or ip-adapter.safetensors in {path.name!r}.")
    return path


def _from_cache(source: str, role: str) -> Path:
    """A snapshot in the hub's own cache (HF_HOME), which other programs may have filled."""
    parts = source.split("/")
    if len(parts) < 2 or source.startswith(("/", ".", "~")) or not all(parts) or "\\" in source:
        raise RequestError(f"There is no file or folder {source!r}; check the path, or give a hub id as owner/name.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, inner = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RequestError(
            f"{source[:80]!r} is neither a file nor a folder here, and not in the hub's cache: check the name, or "
            f"fetch it once with `hf download {repository[:80]}`."
        ) from error
    return folder / inner if inner else folder


def load_controlnet(
    info: checkpoints.CheckpointInfo, kind: type[ControlNet] = ControlNet, *, dtype: torch.dtype = torch.float32
) -> Any:
    """A ControlNet folder, or a single file of one in either layout; a ControlNet-Union becomes a `UnionNet`.

    Raises:
        RequestError: its files are not all here, or do not fit its config.
    """
    known: Any = UnionNet if info.kind == "controlnet-union" else kind
    with complete(info.path):
        if info.path.is_dir():
            return _folder(known, info.path, dtype, info.variant)
        if known is UnionNet:
            raise RequestError(
                f"{info.path.name!r} is a ControlNet-Union without its config: give the folder that holds both."
            )
        state = checkpoints.read_state(info.path)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        config = architectures.controlnet_config(shapes, info.architecture or "sdxl")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            converted = architectures.controlnet_weights(state, config)
            return known.from_single_file(converted, config=folder, torch_dtype=dtype, local_files_only=True)


def _folder(kind: Any, folder: Path, dtype: torch.dtype, variant: str | None) -> Any:
    for pickle in folder.glob("*.bin"):
        checkpoints.scan_pickle(pickle)
    return kind.from_pretrained(str(folder), torch_dtype=dtype, variant=variant, local_files_only=True)


@contextmanager
def complete(path: Path) -> Iterator[None]:
    """Inside it every failure of a library to load `path` becomes one sentence."""
    try:
        yield
    except (RequestError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # missing files, foreign keys, other sizes: each library has errors of its own
        from instantid_demo.memory import is_out_of_memory

        if is_out_of_memory(error):
            raise
        raise RequestError(
            f"{path.name!r} could not be loaded: a file of it is missing, damaged or of another size. Download it "
            "again, or choose another model."
        ) from error


def load_base(
    info: checkpoints.CheckpointInfo,
    dtype: torch.dtype,
    *,
    variant: str | None = None,
    half_vae: Path | None = None,
    lenders: Sequence[Path] = (),
) -> Any:
    """The stock pipeline of a base model, on the CPU; arguments as for `load_pipeline`.

    Raises:
        RequestError: something of it is missing and cannot be lent, or damaged.
    """
    sdxl = info.architecture == "sdxl"
    stock = diffusers.StableDiffusionXLPipeline if sdxl else diffusers.StableDiffusionPipeline
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True}
    options |= {"add_watermarker": False} if sdxl else {"safety_checker": None, "requires_safety_checker": False}
    with complete(info.path):
        if info.kind == "base-folder":
            if not (info.path / "scheduler" / "scheduler_config.json").is_file():
                options["scheduler"] = _scheduler(info, architectures.PUBLISHED / (info.architecture or "sdxl"))
            return stock.from_pretrained(info.path, variant=variant or info.variant, **options)
        if info.path.suffix != info.path.suffix.lower():
            raise RequestError(f"Rename {info.path.name!r} so that it ends in {info.path.suffix.lower()!r}.")
        configs = architectures.configs_for(info, lenders)
        parts = {
            **architectures.tokenizers_for(info.architecture or "sdxl", configs),
            **{part: _lent(part, info, dtype, configs, half_vae, lenders) for part in info.missing},
            "scheduler": _scheduler(info, configs),
        }
        if sdxl and info.missing[:1] == ("text_encoder_2",):
            parts["text_encoder"] = _first_encoder(info, dtype, configs)
        return stock.from_single_file(str(info.path), config=str(configs), **parts, **options)


def _first_encoder(info: checkpoints.CheckpointInfo, dtype: torch.dtype, configs: Path) -> Any:
    """The first text encoder of an SDXL file without the second, in which diffusers does not look for it."""
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
    from transformers import CLIPTextModel

    return create_diffusers_clip_model_from_ldm(
        CLIPTextModel,
        checkpoints.read_state(info.path),
        subfolder="text_encoder",
        config=str(configs),
        torch_dtype=dtype,
        local_files_only=True,
    )


def _scheduler(info: checkpoints.CheckpointInfo, configs: Path) -> Any:
    """The noise schedule of a base, with what its own file says about it."""
    if info.kind == "base-folder":
        return diffusers.EulerDiscreteScheduler.from_pretrained(configs, subfolder="scheduler")
    # The folder may be another model's: what that one predicts says nothing about this file.
    changes: dict[str, Any] = {"prediction_type": info.prediction or "epsilon", "rescale_betas_zero_snr": info.zero_snr}
    if info.zero_snr:
        changes["timestep_spacing"] = "trailing"  # the first step must be the one without any signal
    kind = diffusers.EulerDiscreteScheduler
    return kind.from_config(kind.load_config(configs, subfolder="scheduler", local_files_only=True), **changes)


def _lent(
    part: str,
    info: checkpoints.CheckpointInfo,
    dtype: torch.dtype,
    configs: Path,
    half_vae: Path | None,
    lenders: Sequence[Path],
) -> Any:
    """A part that the file lacks, from another model that is here.

    Raises:
        RequestError: none has it; the message says which download brings it.
    """
    import transformers

    kinds: dict[str, Any] = {
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
        "vae": diffusers.AutoencoderKL,
    }
    if part == "vae" and half_vae is not None:
        return _folder(kinds[part], half_vae, dtype, None)
    for lender in lenders:
        if _weight_files(lender / part) and _same_config(lender / part, configs / part):
            return _folder(kinds[part], lender / part, dtype, checkpoints.variant_of(lender / part))
    name = "fp16-vae" if part == "vae" else "sdxl-base"
    what_next = f"run `python -m instantid_demo download {name}` once, which brings one"
    if info.architecture != "sdxl":
        what_next = "choose a complete file"
    raise RequestError(f"{info.path.name!r} has no {checkpoints.PARTS[part]} in it: {what_next}.")


def _same_config(one: Path, other: Path) -> bool:
    """Whether two parts have the same sizes."""
    sizes = ("hidden_size", "num_hidden_layers", "vocab_size", "block_out_channels", "latent_channels")
    first, second = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (one, other))
    return all(first.get(name) == second.get(name) for name in sizes)


def weight_bytes(sources: Sequence[Path], dtype: torch.dtype) -> tuple[int, int]:
    """Bytes that the weights of models take when they are loaded as `dtype`; and how much of it is converted.

    What is stored as `dtype` can stay in the file until it is used; what is converted must be held in main memory.

    Args:
        sources: base folders or files, folders of networks, adapters.
        dtype: of the loaded networks.

    Raises:
        RequestError: a file is incomplete or damaged.
    """
    stored = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}.get(dtype)
    total = converted = 0
    for file in (file for source in sources for file in _weight_files(source)):
        if file.suffix.lower() == ".safetensors":
            entries = checkpoints.read_header(file)[0].values()
            sizes = [(math.prod(entry.shape) * dtype.itemsize, entry.dtype) for entry in entries]
        else:
            sizes = [(math.prod(shape) * dtype.itemsize, "") for shape in checkpoints.read_shapes(file).values()]
        total += sum(size for size, _ in sizes)
        converted += sum(size for size, kind in sizes if kind != stored)
    return total, converted


def _weight_files(source: Path) -> list[Path]:
    """The files that loading a folder reads, or the file itself."""
    if source.is_file():
        return [source]
    folders = [source / name for name in ("unet", *checkpoints.PARTS)] if (source / "unet").is_dir() else [source]
    found = []
    for folder in folders:
        half = checkpoints.variant_of(folder) == "fp16"
        files = [file for file in folder.glob("*.safetensors") if ".non_ema" not in file.name]
        files = [file for file in files if half or ".fp16" not in file.name]
        found += files or list(folder.glob("*.bin"))
    return found


def _bytes(module: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())
