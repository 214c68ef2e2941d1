"""One model in memory: its pipelines, its face analyser, and how lean it runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderTiny

from instantid_demo.backends import choice, compiled
from instantid_demo.memory import free_memory
from instantid_demo.method import checkpoints, loading
from instantid_demo.method.identity_net import ControlNet
from instantid_demo.presets import Defaults, Recipe, of
from instantid_demo.preview import Previewer
from instantid_demo.request import ControlKind, GenerationRequest, RequestError
from instantid_demo.settings import Settings
from instantid_demo.sources import Source

Say = Callable[[str], None]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LEANER: dict[str, Literal["model", "sequential"]] = {"none": "model", "model": "sequential"}


class Loaded:
    """The networks of one model. Only the engine's running job touches them."""

    def __init__(self, source: Source, settings: Settings, say: Say) -> None:
        """Reads everything from disk; `say` hears a sentence per part."""
        self.source, self._settings = source, settings
        self.device = loading.choose_device(None if settings.device == "auto" else settings.device)
        self.defaults: Defaults = of(source.family, source.folder)
        say(f"Loading {source.label} …")
        self._text = loading.load_pipeline(
            source.base,
            source.identity_net,
            source.adapter,
            dtype=DTYPES.get(settings.dtype) or loading.choose_dtype(self.device, large=source.family != "pocket"),
            device=self.device,
            offload=settings.offload,
            half_vae=source.vae,
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

    def pipeline(self, task: str, kinds: Sequence[ControlKind] = (), say: Say = lambda _: None) -> Any:
        """The pipeline for a task (`text`, `image`, `inpaint`) with IdentityNet and these extra ControlNets.

        Raises:
            RequestError: this model has no such ControlNet here.
        """
        pipe = self._text
        if kinds:
            nets = [self._text.controlnets[0], *(self._control(kind, say) for kind in kinds)]
            pipe = type(pipe).of(pipe, controlnet=nets)
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
        if recipe.lora is not None and self._lora_file(recipe.lora) is None:
            notes.append(
                f"Faster with the few-step add-on: run `python -m instantid_demo download {recipe.lora}` once."
            )
            recipe = self.defaults.without_lora.get(request.quality, self.defaults.recipes["quality"])
        if request.quick_decode and not isinstance(self.autoencoder(request), AutoencoderTiny):
            what_next = "run `python -m instantid_demo download taesdxl` once."
            if self.source.architecture != "sdxl":
                what_next = "there is none for this kind of model."
            notes.append(f"Quick decoding needs a tiny autoencoder: {what_next}")
        return recipe, notes

    def autoencoder(self, request: GenerationRequest) -> Any:
        """What makes the picture of the finished latents."""
        return self._tiny if request.quick_decode and self._tiny is not None else self._text.vae

    @contextmanager
    def adapted(self, request: GenerationRequest, recipe: Recipe, say: Say) -> Iterator[None]:
        """The networks with the request's LoRAs and the preset's own; as before afterwards.

        Raises:
            RequestError: a LoRA is not here, or is something else.
        """
        own = self._lora_file(recipe.lora) if recipe.lora else None
        if own is None and not request.lora:
            yield
            return
        from instantid_demo.models import lora

        wanted = [(lora.find(entry.source, self._settings), entry.weight) for entry in request.lora]
        if own is not None:
            wanted.append((own, 1.0))
        say("Adding LoRAs …")
        # The preset's own LoRA comes back with every fast picture; converting networks for each other mix is too dear.
        self._mixed = bool(request.lora)
        try:
            with lora.applied(self._text, wanted):
                yield
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
        from instantid_demo.models import lora

        try:
            return lora.find(name, self._settings)
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
        return AutoencoderTiny.from_pretrained(folder, torch_dtype=self._text.vae.dtype).to(self.device)

    def _control(self, kind: ControlKind, say: Say) -> Any:
        folder = self.source.controls.get(kind)
        if folder is None:
            what_next = f"run `python -m instantid_demo download control-{kind}` first."
            if self.source.family == "pocket":
                what_next = "this model comes without it."
            raise RequestError(f"{self.source.label} has no {kind} ControlNet here: {what_next}")
        if folder not in self._extra:
            say(f"Loading the {kind} ControlNet …")
            info = checkpoints.require(folder, kind=("controlnet", "identity-net"))
            net = loading.load_controlnet(info, ControlNet, dtype=self._text.unet.dtype).to(self.device)
            if self._compiles():
                compiled.compile_repeated(net)
            self._extra[folder] = net
        return self._extra[folder]
