"""LoRAs for one request: found, read, put on inside a `with`, off again without a trace.

Plain LoRAs become peft's layers, which stay in memory, switched off; everything else (`lora_deltas`) changes the
weights for the time of the request. Every key of a file either acts or is named in a note.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instantid_demo import presets
from instantid_demo.memory import is_out_of_memory
from instantid_demo.method import checkpoints
from instantid_demo.models import catalogue, lora_deltas
from instantid_demo.models.addons import find, split
from instantid_demo.models.lora_layout import Layer, assigned, layers_of, networks, role_of
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

NAMED = 6
"""Layers that a note names before it only counts."""
MEANT = 0.5
"""Share of a file's layers that must be here; below that it was made for something else."""
_TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Of the text encoders: what peft's layers are put around."""
_TOLD = (
    (r"flux[-_. ]?2", "FLUX.2"),
    (r"flux", "FLUX"),
    (r"chroma", "Chroma"),
    (r"stable[-_ ]diffusion[-_ ]3|sd[-_]?3|sd35", "SD 3"),
    (r"qwen", "Qwen-Image"),
    (r"z[-_ ]?image", "Z-Image"),
    (r"wan", "Wan"),
    (r"hunyuan", "Hunyuan"),
    (r"lumina", "Lumina"),
    (r"cascade", "Stable Cascade"),
    (r"pixart", "PixArt"),
    (r"kolors", "Kolors"),
    (r"stable[-_ ]diffusion[-_ ]xl|sdxl|pony|illustrious|noobai", "SDXL"),
    (r"stable[-_ ]diffusion[-_ ]v?2|sd[-_]?v?2", "SD 2"),
    (r"stable[-_ ]diffusion[-_ ]v?1|sd[-_]?v?1", "SD1.5"),
)
"""What trainers write into a file about the base, and its name."""
_SHAPED = (
    (r"motion_modules|temporal_transformer", "AnimateDiff, which makes films"),
    (r"double_stream_modulation", "FLUX.2"),
    (r"single_transformer_blocks|double_blocks|single_blocks", "FLUX"),
    (r"transformer_blocks.*(img|txt)_m(lp|od)", "Qwen-Image"),
    (r"joint_blocks|attn[._]add_[qkv]_proj|context_block", "SD 3"),
    (r"(^|[._])blocks[._]\d+[._](self|cross)_attn", "Wan"),
    (r"adaln_single|caption_projection", "PixArt"),
    (r"(^|[._])layers[._]\d+[._](attention|feed_forward)[._]", "Lumina or Z-Image"),
    (r"prior_|clf[._]|effnet", "Stable Cascade"),
)
"""What other architectures call their layers."""
_WIDTHS = {2048: "SDXL", 768: "SD1.5", 1024: "SD 2"}
"""Width of the text in a UNet."""
_UNSUPPORTED = re.compile(r"\b(oft_blocks|oft_diag|oft_r|boft|vera_lambda|ia3|on_input|glora|[ab][12])\b")


class Tensors:
    """A file's tensors, read when they are asked for; no code in it is run."""

    def __init__(self, file: Path) -> None:
        """Raises RequestError where the file is damaged, no model file, or holds code."""
        self.shapes = checkpoints.read_shapes(file)
        self.told: dict[str, str] = {}
        if file.suffix.lower() == ".safetensors":
            from safetensors import SafetensorError, safe_open

            try:
                opened = safe_open(file, framework="pt")
                self.told = dict(opened.metadata() or {})
            except (SafetensorError, OSError, ValueError) as error:
                raise RequestError(f"{file.name!r} is incomplete or damaged; download it again.") from error
            self._read = opened.get_tensor
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
            self._read = _flat(content.get("state_dict", content)).__getitem__

    def __getitem__(self, key: str) -> Tensor:
        """A tensor by its name."""
        return self._read(key)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            flat[f"{prefix}{key}"] = value
    return flat


@dataclass(frozen=True)
class Plan:
    """What a file does to a pipeline."""

    file: Path
    tensors: Tensors
    plain: tuple[Layer, ...]
    """For peft."""
    exact: tuple[Layer, ...]
    """For `lora_deltas`."""
    scales: Mapping[tuple[str, str], float]
    """alpha / rank by part and path."""
    notes: tuple[str, ...] = ()

    def of(self, layer: Layer) -> dict[str, Tensor]:
        """The tensors of a layer by role."""
        return {role: self.tensors[key] for role, key in layer.keys.items()}


# -- few steps --------------------------------------------------------------------------------------------------


def few_step(source: str, settings: Settings) -> presets.Recipe | None:
    """How a few-step LoRA wants to be sampled, told by its name or by what its maker wrote into it; None: any other.

    Raises:
        RequestError: it is not here.
    """
    file = find(source, settings)
    if not Path(source).is_absolute() and (recipe := presets.few_step(Path(source).with_suffix("").name)):
        return recipe
    nondescript = file.stem.lower() in ("pytorch_lora_weights", "adapter_model", "model")
    names = [f"{file.parent.name} {file.stem}" if nondescript else file.stem]
    if catalogue.knows(split(source)[0]):
        names.append(catalogue.entry(split(source)[0]).name)
    if file.suffix.lower() == ".safetensors":
        told = Tensors(file).told
        names += [told[key] for key in ("ss_output_name", "modelspec.title", "name") if key in told]
    return next((recipe for name in names if (recipe := presets.few_step(name))), None)


# -- putting on -------------------------------------------------------------------------------------------------


@contextmanager
def applied(pipe: Any, wanted: Sequence[tuple[Path, float]]) -> Iterator[list[str]]:
    """The pipeline with these LoRAs at these weights, and notes on what of them has no place in it.

    Afterwards its weights are bit for bit what they were.

    Raises:
        RequestError: a file is no LoRA, or one for another architecture.
    """
    weights: dict[Path, float] = {}
    for file, weight in wanted:
        weights[file] = weights.get(file, 0.0) + weight
    plans = [(planned(pipe, file), weight) for file, weight in weights.items()]
    adapters = {_loaded(pipe, plan): weight for plan, weight in plans if plan.plain}
    changes = [change for plan, weight in plans for change in _changes(pipe, plan, weight)]
    with lora_deltas.added(changes, lambda: _at_home(pipe)) if changes else nullcontext():
        if not adapters:
            yield [note for plan, _ in plans for note in plan.notes]
            return
        pipe.enable_lora()
        try:
            pipe.set_adapters(list(adapters), list(adapters.values()))
            yield [note for plan, _ in plans for note in plan.notes]
        finally:
            pipe.disable_lora()


def planned(pipe: Any, file: Path) -> Plan:
    """What a file does to a pipeline; nothing is changed yet.

    Raises:
        RequestError: it is no LoRA, or for another architecture.
    """
    tensors = Tensors(file)
    if {role_of(key)[1] for key in tensors.shapes} <= {"", "alpha"}:  # kinds that are not supported have alphas too
        if any(_UNSUPPORTED.search(key) for key in tensors.shapes):
            raise RequestError(f"{file.name!r} is a LoRA of a kind (OFT, GLoRA, IA³ …) that is not supported here.")
        if {"clip_l", "clip_g", "emb_params"} & tensors.shapes.keys():
            raise RequestError(
                f"{file.name!r} is an embedding, not a LoRA: put it into the models folder's embeddings and write its "
                "name in the prompt."
            )
        checkpoints.require(file, kind="lora")
    layers, strangers = assigned(tensors.shapes, pipe)
    modules = {part: dict(layers_of(network)) for part, network in networks(pipe).items()}
    told = _alphas_told(file, tensors)
    plain, exact, misfits = list[Layer](), list[Layer](), list[Layer]()
    scales: dict[tuple[str, str], float] = {}
    for layer in layers:
        module = modules[layer.part][layer.path]
        try:
            scales[layer.part, layer.path] = _scale(layer, tensors, told)
            shapes = {role: torch.empty(tensors.shapes[key], device="meta") for role, key in layer.keys.items()}
            lora_deltas.require_fits(module, shapes)
        except lora_deltas.DeltaError:
            misfits.append(layer)
            continue
        (plain if _is_plain(layer, module) else exact).append(layer)
    _require_meant(pipe, file, tensors, [*plain, *exact], misfits, strangers)
    left = [*strangers, *(f"{layer.part}.{layer.path}" for layer in misfits)]
    return Plan(file, tensors, tuple(plain), tuple(exact), scales, (_left_out(file, left),) if left else ())


def _is_plain(layer: Layer, module: nn.Module) -> bool:
    """Whether peft's own layer does it."""
    if set(layer.keys) - {"alpha"} != {"down", "up"} or not isinstance(module, (nn.Linear, nn.Conv2d)):
        return False
    return layer.part == "unet" or layer.path.rpartition(".")[2] in _TEXT_LAYERS


def _scale(layer: Layer, tensors: Tensors, told: Mapping[str, Any]) -> float:
    """alpha / rank of a layer."""
    shapes = {role: torch.empty(tensors.shapes[key], device="meta") for role, key in layer.keys.items()}
    rank = lora_deltas.rank_of(shapes)
    if rank is None:
        return 1.0
    if rank == 0:
        raise lora_deltas.DeltaError("rank")
    if "alpha" in layer.keys:
        alpha = tensors[layer.keys["alpha"]]
        if alpha.numel() != 1 or not math.isfinite(alpha.item()):
            raise lora_deltas.DeltaError("alpha")
        return alpha.item() / rank
    told_alpha = _alpha_told(told, layer)
    return 1.0 if told_alpha is None else told_alpha / _measure(told, layer, rank)


def _alphas_told(file: Path, tensors: Tensors) -> Mapping[str, Any]:
    """peft's own settings of a file: diffusers writes them into it, peft beside it."""
    beside = file.parent / "adapter_config.json"
    text = tensors.told.get("lora_adapter_metadata", "")
    if not text and file.stem == "adapter_model" and beside.is_file() and beside.stat().st_size < 10_000_000:
        text = beside.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _setting(told: Mapping[str, Any], layer: Layer, name: str) -> Any:
    """A setting of peft's for a layer's network, which may stand before its name."""
    return told.get(f"{layer.part}.{name}", told.get(name))


def _alpha_told(told: Mapping[str, Any], layer: Layer) -> float | None:
    patterns = _setting(told, layer, "alpha_pattern")
    for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
        plain = str(pattern).removeprefix("^").replace("\\.", ".")
        if (layer.path == plain or layer.path.endswith(f".{plain}")) and isinstance(alpha, (int, float)):
            return float(alpha)
    for name in ("lora_alpha", "alpha"):
        alpha = _setting(told, layer, name)
        if isinstance(alpha, (int, float)) and math.isfinite(alpha):
            return float(alpha)
    return None


def _measure(told: Mapping[str, Any], layer: Layer, rank: int) -> float:
    return math.sqrt(rank) if _setting(told, layer, "use_rslora") is True else rank


def _require_meant(
    pipe: Any, file: Path, tensors: Tensors, fitting: list[Layer], misfits: list[Layer], strangers: list[str]
) -> None:
    """Refuses a file that was made for another architecture, by its name."""
    ours = _ours(pipe)
    all_layers = len(fitting) + len(misfits) + len(strangers)
    attends = [layer for layer in misfits if re.search(r"attn2\.to_[kv]$", layer.path)]
    widths = {_width(layer, tensors) for layer in attends}
    heard = any(re.search(r"attn2\.to_[kv]$", layer.path) for layer in fitting)
    if fitting and len(fitting) >= MEANT * all_layers and (heard or not attends):
        return
    theirs = next((_WIDTHS[width] for width in widths if width in _WIDTHS), None) if not heard else None
    theirs = theirs or _foreign(tensors)
    if theirs and theirs != ours:
        raise RequestError(f"{file.name!r} is a LoRA for {theirs}: this model needs one for {ours}.")
    raise RequestError(
        f"The LoRA {file.name!r} does not fit this model ({len(fitting)} of its {all_layers} layers do): "
        f"choose one made for {ours}."
    )


def _ours(pipe: Any) -> str:
    known = _WIDTHS.get(pipe.unet.config.cross_attention_dim)
    return known or "its own small networks"


def _width(layer: Layer, tensors: Tensors) -> int | None:
    """Width of the text that a cross-attention layer hears."""
    for role in ("down", "hada_w1_b", "diff"):
        if role in layer.keys and len(tensors.shapes[layer.keys[role]]) >= 2:
            return tensors.shapes[layer.keys[role]][1]
    given = {role: torch.empty(tensors.shapes[key], device="meta") for role, key in layer.keys.items()}
    try:
        found = lora_deltas.product(given)
    except (RuntimeError, IndexError, KeyError):
        return None
    return found.shape[1] if found is not None and found.ndim >= 2 else None


def _foreign(tensors: Tensors) -> str | None:
    """The architecture that a file was made for, as far as it tells."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        for pattern, name in _TOLD if key in tensors.told else ():
            if re.match(pattern, tensors.told[key], re.IGNORECASE):
                return name
    keys = "\n".join(tensors.shapes)
    found = next((name for pattern, name in _SHAPED if re.search(pattern, keys, re.MULTILINE)), None)
    if found is None and re.search(r"^(base_model\.model\.)?(transformer\.|lora_transformer_)", keys, re.MULTILINE):
        return "another architecture (a transformer)"
    if found is None and re.search(r"^lora_te2_|^text_encoder_2\.", keys, re.MULTILINE):
        return "SDXL"
    return found


def _left_out(file: Path, names: Sequence[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Left out of the LoRA {file.name}, because this model has no place for it: {shown}{more}."


def _changes(pipe: Any, plan: Plan, weight: float) -> Iterator[lora_deltas.Change]:
    modules = {part: dict(layers_of(network)) for part, network in networks(pipe).items()}
    for layer in plan.exact:
        scale = plan.scales[layer.part, layer.path]
        yield lora_deltas.Change(modules[layer.part][layer.path], plan.of(layer), scale, weight)


def _loaded(pipe: Any, plan: Plan) -> str:
    """The adapter's name in the pipeline; read from disk the first time only."""
    file = plan.file
    name = "lora_" + hashlib.sha256(f"{file.resolve()}:{file.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    known = {adapter for part in pipe.get_list_adapters().values() for adapter in part}
    if name in known:
        return name
    try:
        with _at_home(pipe):
            for part, network in networks(pipe).items():
                _inject(network, [layer for layer in plan.plain if layer.part == part], plan, name)
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        pipe.delete_adapters(name)
        if is_out_of_memory(error):
            raise
        raise RequestError(f"The LoRA {file.name!r} cannot be used with this model: choose another one.") from error
    return name


def _inject(network: nn.Module, layers: Sequence[Layer], plan: Plan, name: str) -> None:
    """Puts peft's layers of one file around those of a network.

    Raises:
        KeyError: a layer was overlooked.
    """
    if not layers:
        return
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    state, ranks, alphas = dict[str, Tensor](), dict[str, float](), dict[str, float]()
    modules = dict(layers_of(network))
    for layer in layers:
        tensors = plan.of(layer)
        shapes = _peft_shapes(modules[layer.path], tensors)
        for role, factor in (("down", "lora_A"), ("up", "lora_B")):
            state[f"{layer.path}.{factor}.weight"] = tensors[role].reshape(shapes[role]).contiguous()
        ranks[layer.path] = shapes["down"][0]
        alphas[layer.path] = plan.scales[layer.part, layer.path] * shapes["down"][0]
    config = LoraConfig(target_modules=list(ranks), rank_pattern=_patterns(ranks), alpha_pattern=_patterns(alphas))
    inject_adapter_in_model(config, network, name, state_dict=state, low_cpu_mem_usage=True)
    network._hf_peft_config_loaded = True  # type: ignore[assignment]
    set_peft_model_state_dict(network, state, name, low_cpu_mem_usage=True)
    for layer in layers:
        module: Any = network.get_submodule(layer.path)
        if any(weight.is_meta for weight in (module.lora_A[name].weight, module.lora_B[name].weight)):
            raise KeyError(layer.path)


def _patterns(numbers: Mapping[str, float]) -> dict[str, Any]:
    """Numbers of layers as peft reads them, one expression per number: it tries each at every layer.

    By whole paths: peft takes a bare name for the end of any.
    """
    paths: dict[float, list[str]] = {}
    for path, number in numbers.items():
        paths.setdefault(number, []).append(re.escape(path))
    return {f"^({'|'.join(same)})": number for number, same in paths.items()}


def _peft_shapes(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes that peft's layers have, whatever trainers make of matrices and kernels of one pixel."""
    rank = tensors["down"].shape[0]
    if isinstance(module, nn.Conv2d):
        return {"down": (rank, *module.weight.shape[1:]), "up": (module.out_channels, rank, 1, 1)}
    assert isinstance(module, nn.Linear)
    return {"down": (rank, module.in_features), "up": (module.out_features, rank)}


@contextmanager
def _at_home(pipe: Any) -> Iterator[None]:
    """Brings weights back that wait elsewhere while nothing runs, so that they can be changed; then they wait again."""
    if not any(weight.is_meta for weight in pipe.unet.parameters()):
        yield
        return
    device = pipe._offload_device
    pipe.remove_all_hooks()
    try:
        yield
    finally:
        pipe.enable_sequential_cpu_offload(device=device)
