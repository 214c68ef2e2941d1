"""UNet, IdentityNet and VAE on OpenVINO: the CPU's fast lane. PyTorch keeps the weights and does what does not fit.

    backend = OpenVino(cache, "f32")
    with pipe.conditioned([...]), savings.applied(pipe), backend.applied(pipe):
        latents = pipe(..., output_type="latent").images
    picture = backend.decode(pipe.vae, latents / scale)

A network is converted at its first call and kept on disk, so that it costs its minute once; with active LoRAs it is
another network. Regions and several people, and guess mode run in PyTorch. Large networks' own weights then wait on
the disk: two copies of them would need twice the memory.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from instantid_demo.backends import converted, mapped
from instantid_demo.memory import free_memory
from instantid_demo.method.conditioning import Conditioning
from instantid_demo.method.identity_net import IdentityNet
from instantid_demo.method.savings import replaced

Precision = Literal["f32", "bf16", "i8"]
"""What networks compute in; i8: in float32, the weights of their matrix products kept in 8 bits."""
ARITHMETIC = {"f32": "f32", "bf16": "bf16", "i8": "f32"}
SMALL = 2**14
"""Weights up to which a matrix stays as it is in i8."""
MINUTES = 2.0
"""That converting a billion weights takes, about."""
TELL = 5.0
"""Seconds between two signs of life while a network is converted."""
Say = Callable[[str], None]
LARGE = 100_000_000
"""Weights from which a network is large: PyTorch's copy waits on the disk."""


def available() -> bool:
    """Whether OpenVINO is installed."""
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def runtime() -> Any:
    """The package `openvino`, whose converter would tell a third party of each of its uses if this one let it."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class BackendError(RuntimeError):
    """OpenVINO could not do its part; PyTorch can."""


class OpenVino:
    """Converted networks of one model; belongs to whoever holds the pipeline."""

    def __init__(
        self,
        cache: Path,
        precision: Precision = "f32",
        *,
        identity: Path | None = None,
        may_convert: Callable[[], bool] = lambda: True,
    ) -> None:
        """Converts nothing yet.

        Args:
            cache: folder of converted networks.
            precision: what they compute in.
            identity: folder of converted IdentityNets, which serve many bases; None: `cache`.
            may_convert: whether networks that are not there yet may be converted now.
        """
        self.cache, self.precision = cache, precision
        self.identity, self.may_convert = identity or cache, may_convert
        self._say: Say = lambda said: None
        self._compiled: dict[str, Any] = {}
        self._waiting: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        """Fingerprints, without LoRAs, of networks that wait on the disk, where nobody changes them."""

    @contextmanager
    def applied(self, pipe: Any, say: Say = lambda said: None) -> Iterator[None]:
        """UNet and IdentityNet of `pipe` on OpenVINO for one request, to be entered inside `pipe.conditioned`.

        Does nothing where the request needs PyTorch. `say` hears of conversions.
        """
        request, net = pipe.conditioning, pipe.controlnets[0]
        if request is None or not self.fits(pipe):
            yield
            return
        unet, plain = pipe.unet, type(net)
        self._say = say
        for network in (unet, net):
            self._make_room(network)
        net.__class__ = Compiled
        net.backend = self, self._key(net)
        key, before = self._key(unet), unet.forward

        def forward(sample: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor]:
            # In such sizes the UNet rounds on its way down, which is another graph.
            if any(side % 2**unet.num_upsamplers for side in sample.shape[-2:]):
                return before(sample, *args, **kwargs)
            return (self._unet(unet, key, request, sample, *args, **kwargs),)

        try:
            with replaced(unet, forward):
                yield
        finally:
            net.__class__ = plain
            del net.backend
            self._say = lambda said: None

    def decode(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """A picture `(n, 3, h, w)` in -1..1, float32, of unscaled latents; in tiles or small, PyTorch decodes it.

        Raises:
            BackendError: OpenVINO failed, or the disk is full.
        """
        if not isinstance(vae, AutoencoderKL) or vae.use_tiling:
            return vae.decode(latents, return_dict=False)[0].float()
        (picture,) = self.run(fingerprint(vae), _Decoder(vae), [latents])
        return picture

    def fits(self, pipe: Any) -> bool:
        """Whether the running request can do without PyTorch's networks: one person everywhere, on a CPU."""
        request, net = pipe.conditioning, pipe.controlnets[0]
        masks = (request.regions.people, request.regions.residuals, request.regions.control)
        return (
            pipe.unet.device.type == "cpu"
            and type(net) is IdentityNet
            and len(request.adapter_scales) == 1
            and all(mask is None for mask in masks)
        )

    def ready(self, pipe: Any) -> bool:
        """Whether the networks of `pipe` have been converted before, so that nobody waits for it now."""
        keys = self._key(pipe.unet), self._key(pipe.controlnets[0])
        return all(key in self._compiled or self._file(key).is_file() for key in keys)

    def forecast(self, pipe: Any) -> str:
        """What converting the networks of `pipe` that are missing will take, as a sentence."""
        missing = [net for net in (pipe.unet, pipe.controlnets[0]) if not self._file(self._key(net)).is_file()]
        weights = [sum(weight.numel() for weight in net.parameters()) for net in missing]
        waiting = sum(count * pipe.unet.dtype.itemsize for count in weights if count >= LARGE)
        keeps = (waiting + sum(weights) * (4 if self.precision == "f32" else 2)) / 1e9
        meanwhile = keeps + 4 * max(weights, default=0) / 1e9
        minutes = max(1, round(MINUTES * sum(weights) / 1e9))
        return (
            f"Converting the networks for this processor, once: about {minutes} minutes and {keeps:.1f} GB of disk "
            f"({meanwhile:.1f} GB meanwhile). To do without, stop and set INSTANTID_BACKEND=torch, or say so in Models."
        )

    def adopt(self, folder: Path) -> None:
        """Takes over networks that an earlier version of this program left in `folder` itself."""
        for file in folder.glob("*-*.*"):
            if file.suffix in (".xml", ".bin", ".weights") and file.is_file():
                home = self._home(file.name)
                home.mkdir(parents=True, exist_ok=True)
                file.replace(home / file.name)

    def _home(self, key: str) -> Path:
        return self.identity if key.startswith("identity-net") else self.cache

    def _make_room(self, network: nn.Module) -> None:
        """Lets a large network's weights wait on the disk."""
        if network in self._waiting or sum(weight.numel() for weight in network.parameters()) < LARGE:
            return
        key = fingerprint(network, loras=False)
        try:
            home = self._home(key)
            with converted.converting(home):
                mapped.mapped(network, home / f"{key}.{str(network.dtype).removeprefix('torch.')}.weights")
        except OSError as error:
            raise BackendError(str(error)) from error
        self._waiting[network] = key
        free_memory()  # many weights are so small that the C library would keep their memory

    def _key(self, network: nn.Module) -> str:
        """The network's fingerprint; looking at all weights on the disk again would take seconds."""
        if network in self._waiting and not any(_active_loras(network)):
            return self._waiting[network]
        return fingerprint(network)

    def _file(self, key: str) -> Path:
        return self._home(key) / f"{key}-{self.precision}.xml"

    def _unet(
        self,
        unet: UNet2DConditionModel,
        key: str,
        request: Conditioning,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: dict[str, Any],
        down_block_additional_residuals: Sequence[Tensor],
        mid_block_additional_residual: Tensor,
        **_: Any,
    ) -> Tensor:
        added = dict(added_cond_kwargs)
        (tokens,) = added.pop("image_embeds")
        strength = torch.tensor(float(request.adapter_scales[0]))
        network = _Unet(unet, list(added))
        inputs = [sample, timestep, encoder_hidden_states, tokens, strength, mid_block_additional_residual]
        inputs += [*added.values(), *down_block_additional_residuals]
        return self.run(key, network, inputs)[0].to(sample.dtype)

    def run(self, key: str, network: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of `network`, converted at the first call; float32.

        Raises:
            BackendError: OpenVINO failed, or the disk is full.
        """
        import numpy as np

        arrays = [tensor.detach().float().contiguous().numpy() for tensor in inputs]
        try:
            if key not in self._compiled:
                example = [torch.from_numpy(np.array(array)) for array in arrays]
                self._compiled[key] = self._compile(key, network, smaller(example))
            request = self._compiled[key]
            outputs = request.infer(arrays, share_inputs=True)
            if self._waiting:
                # What lies between the layers of one large network leaves the next one its room.
                request.get_compiled_model().release_memory()
        except (RuntimeError, OSError) as error:
            raise BackendError(str(error)) from error
        return [torch.from_numpy(output) for output in outputs.values()]

    def _compile(self, key: str, network: nn.Module, example: list[Tensor]) -> Any:
        openvino = runtime()
        file = self._file(key)
        with converted.converting(file.parent):
            if not file.is_file():
                self._convert(file, network, example)
        settings = {
            "INFERENCE_PRECISION_HINT": ARITHMETIC[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        return openvino.Core().compile_model(file, "CPU", settings).create_infer_request()

    def _convert(self, file: Path, network: nn.Module, example: list[Tensor]) -> None:
        """Writes `file` and its weights beside it; what is unfinished goes with any error."""
        openvino = runtime()
        part = file.with_name(f"{file.stem}.part.xml")
        try:
            numbers = file.with_name(f"{file.stem}.float32")
            # Without savings' kernels, which OpenVINO does not know.
            with (
                _told_of(self._say, f"Converting {NAMES[file.name.split('-')[0]]} for this processor"),
                torch.no_grad(),
                mapped.in_float32(network, numbers),
                _original_forward(network),
            ):
                model = openvino.convert_model(network.eval(), example_input=tuple(example))
                if self.precision == "i8":
                    _keep_in_eight_bits(model)
                # bfloat16 is coarser than float16: nothing is lost, and the file is half as large.
                openvino.save_model(model, part, compress_to_fp16=self.precision != "f32")
                del model
            free_memory()
            part.with_suffix(".bin").replace(file.with_suffix(".bin"))
            part.replace(file)
        finally:
            for unfinished in (part, part.with_suffix(".bin"), *file.parent.glob(f"{file.stem}.float32*")):
                unfinished.unlink(missing_ok=True)


NAMES = {"unet": "the UNet", "identity": "IdentityNet", "vae": "the autoencoder"}
"""Networks by the beginning of their fingerprint, for people."""


@contextmanager
def _told_of(say: Say, what: str) -> Iterator[None]:
    """Tells every few seconds that something is still going on, and since when."""
    start, over = time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(TELL):
            say(f"{what}: {time.monotonic() - start:.0f} s so far …")

    say(f"{what} …")
    teller = threading.Thread(target=tell, name="conversion", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _keep_in_eight_bits(model: Any) -> None:
    """Writes the weights of matrix products as 8-bit integers with a scale per row: a quarter of float32's memory.

    Convolutions keep theirs: OpenVINO would unfold them when it compiles.
    """
    import numpy as np
    from openvino import opset13

    for product in [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]:
        constant = product.input_value(1).get_node()
        if constant.get_type_name() != "Constant" or not product.get_attributes()["transpose_b"]:
            continue
        weights = constant.data
        if weights.ndim != 2 or weights.size <= SMALL:
            continue
        scale = np.maximum(np.abs(weights).max(1, keepdims=True) / 127, np.finfo(np.float16).tiny)
        whole = opset13.constant(np.round(weights / scale).astype(np.int8))
        unfolded = opset13.multiply(opset13.convert(whole, "f32"), opset13.constant(scale))
        product.input(1).replace_source_output(unfolded.output(0))


class _Converted(ControlNetModel):
    """Stands between IdentityNet and diffusers' ControlNet: its part runs on OpenVINO."""

    backend: tuple[OpenVino, str]

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: float = 1.0,
        *args: Any,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        guess_mode: bool = False,
        **kwargs: Any,
    ) -> tuple[list[Tensor], Tensor]:
        """As `ControlNetModel.forward`, as tuple."""
        added = added_cond_kwargs or {}
        if guess_mode:
            return super().forward(
                sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale, *args,
                added_cond_kwargs=added, guess_mode=True, **kwargs,
            )  # fmt: skip
        backend, key = self.backend
        # PyTorch encodes the map: it does so once per request.
        encoded = self.controlnet_cond_embedding(controlnet_cond)
        network = _Net(self, [name for name in added if name != "image_embeds"])
        inputs = [sample, timestep, encoder_hidden_states, encoded, *(added[name] for name in network.added)]
        outputs = [(output * conditioning_scale).to(sample.dtype) for output in backend.run(key, network, inputs)]
        return outputs[:-1], outputs[-1]


class Compiled(IdentityNet, _Converted):
    """IdentityNet whose network runs on OpenVINO."""


class _Unet(nn.Module):
    """The UNet as a function of tensors alone."""

    def __init__(self, unet: UNet2DConditionModel, added: Sequence[str]) -> None:
        super().__init__()
        self.unet, self.added = unet, added

    def forward(self, sample, timestep, text, tokens, strength, mid, *more):  # type: ignore[no-untyped-def]
        named = {name: more[index] for index, name in enumerate(self.added)}
        request = Conditioning(tokens=tokens, adapter_scales=[strength], reuse_keys=False)
        with _original_forward(self.unet):
            # `forward`: hooks are for the calls of the pipeline.
            return self.unet.forward(
                sample,
                timestep,
                text,
                added_cond_kwargs={**named, "image_embeds": [tokens]},
                cross_attention_kwargs={"ip_adapter_masks": request},
                down_block_additional_residuals=list(more[len(self.added) :]),
                mid_block_additional_residual=mid,
                return_dict=False,
            )[0]


class _Decoder(nn.Module):
    """The VAE's decoder as a function of latents."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents):  # type: ignore[no-untyped-def]
        return self.vae.decode(latents, return_dict=False)[0]


class _Net(nn.Module):
    """IdentityNet's network as a function of tensors alone; the map comes encoded."""

    def __init__(self, net: ControlNetModel, added: Sequence[str]) -> None:
        super().__init__()
        self.net, self.added = net, added

    def forward(self, sample, timestep, tokens, encoded, *more):  # type: ignore[no-untyped-def]
        named = dict(zip(self.added, more, strict=True))
        with replaced(self.net.controlnet_cond_embedding, lambda given: given):
            down, mid = ControlNetModel.forward(
                self.net, sample, timestep, tokens, encoded, added_cond_kwargs=named, return_dict=False
            )
        return (*down, mid)


@contextmanager
def _original_forward(module: nn.Module) -> Iterator[None]:
    """`module` without what `replaced` put on it, and on everything in it."""
    taken: list[tuple[nn.Module, Callable[..., Any]]] = [
        (part, part.__dict__.pop("forward")) for part in module.modules() if "forward" in part.__dict__
    ]
    try:
        yield
    finally:
        for part, forward in taken:
            part.forward = forward  # type: ignore[method-assign]


def smaller(example: Sequence[Tensor], side: int = 32) -> list[Tensor]:
    """Inputs with latents of at most `side`, the first of them the latents: tracing keeps all that lies between.

    The converted network takes any size.
    """
    height, width = example[0].shape[-2:]
    if min(height, width) <= side:
        return list(example)

    def reduced(tensor: Tensor) -> Tensor:
        # Tokens have four dimensions as well, but not the latents' shape.
        if tensor.dim() != 4 or width % tensor.shape[-1] or tensor.shape[-2] * width != tensor.shape[-1] * height:
            return tensor
        return F.adaptive_avg_pool2d(tensor, side * tensor.shape[-1] // width)

    return [reduced(tensor) for tensor in example]


def fingerprint(network: nn.Module, *, loras: bool = True) -> str:
    """A name for a network's weights: its config, shape and some values of every weight, and its active LoRAs."""
    openvino = runtime()
    told = hashlib.sha256(f"{diffusers.__version__} {openvino.__version__} {type(network).__mro__[-2]}".encode())
    config = {name: value for name, value in dict(getattr(network, "config", {})).items() if not name.startswith("_")}
    told.update(json.dumps(config, sort_keys=True, default=str).encode())
    plain = (
        (name.replace(".base_layer", ""), weight) for name, weight in network.named_parameters() if ".lora_" not in name
    )
    for name, weight in (*plain, *(_active_loras(network) if loras else ())):
        told.update(f"{name} {tuple(weight.shape)}".encode())
        # By index, so that neither the layout of a weight matters nor all of it is read from the disk.
        places = torch.arange(0, weight.numel(), max(1, weight.numel() // 16))
        told.update(weight.detach()[torch.unravel_index(places, weight.shape)].float().numpy().tobytes())
    kind = {UNet2DConditionModel: "unet", AutoencoderKL: "vae"}.get(type(network), "identity-net")
    return f"{kind}-{told.hexdigest()[:20]}"


def _active_loras(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of LoRAs that are on, named with their scale."""
    for name, module in network.named_modules():
        if hasattr(module, "lora_A") and not module.disable_adapters:
            for adapter in module.active_adapters:
                if adapter in module.lora_A:
                    for part in (module.lora_A, module.lora_B):
                        yield f"{name} {adapter} {module.scaling[adapter]}", part[adapter].weight
