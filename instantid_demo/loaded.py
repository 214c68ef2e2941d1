"""One model in memory: its pipelines, its face analyser, and how lean it runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderTiny

from instantid_demo import sources
from instantid_demo.backends import choice, compiled
from instantid_demo.memory import available_memory, free_memory
from instantid_demo.method import checkpoints, loading
from instantid_demo.method.identity_net import ControlNet, UnionNet
from instantid_demo.presets import Defaults, Recipe, merged, of
from instantid_demo.preview import Previewer
from instantid_demo.request import ControlKind, GenerationRequest, RequestError
from instantid_demo.settings import Settings
from instantid_demo.sources import Source

Say = Callable[[str], None]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NetOf = tuple[ControlKind, str]
"""A kind of map, and the user's own ControlNet for it; empty: the model's."""
UNION_MODES: dict[ControlKind, int] = {"pose": 0, "depth": 1, "canny": 3}
"""Kinds of maps as ControlNet-Union counts them."""
FEW_STEP_NAMES: dict[checkpoints.FewStep, str] = {
    "lightning": "Lightning",
    "turbo": "Turbo",
    "hyper": "Hyper",
    "lcm": "LCM",
    "dmd": "DMD",
}
MANY_STEPS, MUCH_GUIDANCE = 12, 2.5
"""Beyond these a base of few steps burns."""
LEANER: dict[str, Literal["model", "sequential"]] = {"none": "model", "model": "sequential"}


class Loaded:
    """The networks of one model. Only the engine's running job touches them."""

    def __init__(self, source: Source, settings: Settings, say: Say) -> None:
        """Reads everything from disk; `say` hears a sentence per part."""
        self.source, self._settings = source, settings
        self.device = loading.choose_device(None if settings.device == "auto" else settings.device)
        self.defaults: Defaults = merged(of(source.family, source.folder), source.few_step)
        say(f"Loading {source.label} …")
        self._text = loading.load_pipeline(
            source.base,
            source.identity_net,
            source.adapter,
            dtype=self._fitting_dtype(say),
            device=self.device,
            offload=settings.offload,
            half_vae=source.vae,
            lenders=source.lenders,
        )
        self.backend = choice.choose(settings, self._text, source, say)
        """What computes instead of PyTorch; None: nothing does."""
        self.scheduler_config = self._text.scheduler.config
        self._tiny = None if source.preview is None else self._tiny_vae(source.preview)
        self.previewer = Previewer(self._tiny or self._text.vae)
        self._extra: dict[Path, Any] = {}
        self._offload = settings.offload
        self._mixed = False
        self.batch = 4
        """Pictures denoised together."""
        self.halves = self.device.type == "cpu" and source.family != "pocket"
        """Guidance's two halves run one after the other: for large networks on a processor as fast, in less memory."""
        if self._compiles():
            compiled.compile_repeated(self._text.unet)
            compiled.compile_repeated(self._text.controlnets[0])

    def _fitting_dtype(self, say: Say) -> torch.dtype:
        """The type of numbers that the settings or the device ask for, or a leaner one where memory is too small.

        Raises:
            RequestError: the weights do not fit into the memory in any way; the message has both numbers.
        """
        source, free = self.source, available_memory()
        dtype = DTYPES.get(self._settings.dtype) or loading.choose_dtype(self.device, large=source.family != "pocket")
        parts = [source.base, source.identity_net, source.adapter]

        def needed(kind: torch.dtype) -> int:
            total, converted = loading.weight_bytes(parts, kind)
            return converted if self.device.type == "cuda" else total

        if self._settings.dtype == "auto" and dtype == torch.float32 and needed(dtype) > free:
            say("Memory is too small for full precision: loading in bfloat16 …")
            dtype = torch.bfloat16
        if needed(dtype) > free:
            raise RequestError(
                f"{source.label} needs {needed(dtype) / 1e9:.1f} GB of memory for its weights, but only "
                f"{free / 1e9:.1f} GB are free: close other programs, or use Pocket."
            )
        return dtype

    def pipeline(self, task: str, nets: Sequence[NetOf] = (), say: Say = lambda _: None) -> Any:
        """The pipeline for a task (`text`, `image`, `inpaint`) with IdentityNet and these extra ControlNets.

        Raises:
            RequestError: this model has no such ControlNet here.
        """
        pipe = self._text
        if nets:
            all_nets = [self._text.controlnets[0], *(self._control(kind, own, say) for kind, own in nets)]
            pipe = type(pipe).of(pipe, controlnet=all_nets)
        found = {"text": pipe.text_to_image, "image": pipe.image_to_image, "inpaint": pipe.inpaint}[task]()
        found.set_progress_bar_config(disable=True)
        return found

    @property
    def text(self) -> Any:
        """The text-to-image pipeline with IdentityNet alone."""
        return self._text

    def recipe(self, request: GenerationRequest) -> tuple[Recipe, list[str]]:
        """How the request's quality preset samples here, and what to tell the user about it."""
        recipe, notes = self.defaults.recipes[request.quality], list[str]()
        few = self._few_step(request)
        if few is not None:
            recipe, note = few
            notes.append(note)
        elif recipe.lora is not None and self._lora_file(recipe.lora) is None:
            notes.append(
                f"Faster with the few-step add-on: run `python -m instantid_demo download {recipe.lora}` once."
            )
            recipe = self.defaults.without_lora.get(request.quality, self.defaults.recipes["quality"])
        if request.quick_decode and not isinstance(self.autoencoder(request), AutoencoderTiny):
            what_next = "run `python -m instantid_demo download taesdxl` once."
            if self.source.architecture != "sdxl":
                what_next = "there is none for this kind of model."
            notes.append(f"Quick decoding needs a tiny autoencoder: {what_next}")
        return recipe, [*notes, *self._about_base(request, recipe)]

    def _about_base(self, request: GenerationRequest, recipe: Recipe) -> list[str]:
        """What the base's own name or file says about how it wants to be run."""
        label, kind = self.source.label, self.source.few_step
        said = []
        if self.source.v_prediction:
            said.append(f"{label} predicts velocity instead of noise (v-prediction): it was run that way.")
        if kind is None:
            return said
        own = f"{label} is {'an' if kind == 'lcm' else 'a'} {FEW_STEP_NAMES[kind]} model by its name"
        if (request.steps or 0) > MANY_STEPS or (request.guidance or 0) > MUCH_GUIDANCE:
            burns = f"more than about {MANY_STEPS} steps, or guidance above {MUCH_GUIDANCE:g}, burns its pictures."
            said.append(f"{own}: {burns}")
        elif request.steps is None or request.guidance is None:
            said.append(f"{own}: where you left them open it got {recipe.steps} steps and no guidance.")
        return said

    def _few_step(self, request: GenerationRequest) -> tuple[Recipe, str] | None:
        """How a few-step LoRA among the request's own samples, and a sentence on that; None where there is none.

        Raises:
            RequestError: there are two, which would spoil each other.
        """
        if not request.lora:
            return None
        from instantid_demo.models import addons, lora

        found = [
            (entry.source, recipe)
            for entry in request.lora
            if entry.weight > 0 and (recipe := lora.few_step(entry.source, self._settings))
        ]
        if not found:
            return None
        name = addons.find(found[0][0], self._settings).name
        if self.source.few_step:
            raise RequestError(
                f"{name} is a few-step LoRA, and this base draws in few steps by itself ({self.source.few_step}): "
                "leave the LoRA out."
            )
        if len(found) > 1:
            other = addons.find(found[1][0], self._settings).name
            raise RequestError(f"{name} and {other} are both few-step LoRAs, which spoil each other: keep one of them.")
        recipe = found[0][1]
        guidance = "no guidance" if recipe.guidance <= 1 else f"guidance {recipe.guidance:g}"
        instead = ", and takes the place of the preset's own" if self.defaults.recipes[request.quality].lora else ""
        return recipe, (
            f"{name} draws in few steps: it brings its {recipe.steps} steps, {guidance} and the scheduler "
            f"{recipe.scheduler} where you left them open{instead}."
        )

    def autoencoder(self, request: GenerationRequest) -> Any:
        """What makes the picture of the finished latents."""
        return self._tiny if request.quick_decode and self._tiny is not None else self._text.vae

    @contextmanager
    def adapted(self, request: GenerationRequest, recipe: Recipe, say: Say) -> Iterator[list[str]]:
        """The networks with the request's LoRAs and the preset's own, and notes on them; as before afterwards.

        Raises:
            RequestError: a LoRA is not here, or is something else.
        """
        own = self._lora_file(recipe.lora) if recipe.lora else None
        if own is None and not request.lora:
            yield []
            return
        from instantid_demo.models import addons, lora

        wanted = [(addons.find(entry.source, self._settings), entry.weight) for entry in request.lora]
        if own is not None:
            wanted.append((own, 1.0))
        say("Adding LoRAs …")
        # The preset's own LoRA comes back with every fast picture; converting networks for each other mix is too dear.
        self._mixed = bool(request.lora)
        try:
            with lora.applied(self._text, wanted) as notes:
                yield notes
        finally:
            self._mixed = False

    @contextmanager
    def accelerated(self, pipe: Any, say: Say) -> Iterator[None]:
        """One run of `pipe` on the backend, where there is one and the request suits it; inside `pipe.conditioned`.

        Raises:
            BackendError: the backend failed.
        """
        if self.backend is None or self._mixed or not self.backend.fits(pipe):
            yield
            return
        if not self.backend.ready(pipe):
            if not self.backend.may_convert():
                yield
                return
            say(self.backend.forecast(pipe))
        with self.backend.applied(pipe, say):
            yield

    def _lora_file(self, name: str) -> Path | None:
        """A preset's LoRA: a file of the model's folder, or a downloaded one."""
        if self.source.folder is not None and (self.source.folder / name).is_file():
            return self.source.folder / name
        from instantid_demo.models import addons

        try:
            return addons.find(name, self._settings)
        except RequestError:
            return None

    def lean(self) -> str | None:
        """Goes to the next leaner way of running; returns how in words, or None where there is none."""
        free_memory()
        if self.batch > 1:
            self.batch, self.halves = 1, True
            if hasattr(self._text.vae, "enable_tiling"):
                self._text.vae.enable_tiling()
            return "one picture at a time, in smaller pieces"
        if self.device.type == "cuda" and self._offload != "sequential":
            self._offload = LEANER.get(self._offload, "model")
            if not self._compiles():
                for net in (self._text.unet, self._text.controlnets[0], *self._extra.values()):
                    compiled.compiled_no_more(net)
            loading.place_pipeline(self._text, self.device, self._offload)
            return "parts of the model wait in main memory"
        return None

    def _compiles(self) -> bool:
        """Whether PyTorch's networks are compiled: OpenVINO reads them as they are, and so does what moves them."""
        return self._settings.compile and self.backend is None and self._offload != "sequential"

    def _tiny_vae(self, folder: Path) -> Any:
        with loading.complete(folder):
            tiny = AutoencoderTiny.from_pretrained(folder, torch_dtype=self._text.vae.dtype, local_files_only=True)
        return tiny.to(self.device)

    def _control(self, kind: ControlKind, own: str, say: Say) -> Any:
        """The ControlNet for a kind of map: the user's `own`, or the one that is here; loaded once."""
        place = sources.control_net(own, self._settings) if own else self.source.controls.get(kind)
        if place is None:
            raise RequestError(f"{self.source.label} has no {kind} ControlNet here: {self._how_to_get(kind)}")
        if place not in self._extra:
            say(f"Loading the {kind} ControlNet …")
            info = checkpoints.require(
                place, kind=("controlnet", "identity-net", "controlnet-union"), architecture=self.source.architecture
            )
            checkpoints.require_fitting_control(info, self._text.unet.config.cross_attention_dim)
            net = loading.load_controlnet(info, ControlNet, dtype=self._text.unet.dtype).to(self.device)
            if self._compiles():
                compiled.compile_repeated(net)
            self._extra[place] = net
        net = self._extra[place]
        return net.for_mode(UNION_MODES[kind]) if isinstance(net, UnionNet) else net

    def _how_to_get(self, kind: ControlKind) -> str:
        if self.source.family == "pocket":
            return "this model comes without it."
        if self.source.takes_public_controls:
            return f"run `python -m instantid_demo download control-{kind}` first."
        return f"give one that was made for it: --control {kind}@FOLDER=PICTURE."
