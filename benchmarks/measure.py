"""One run of one mode, stage by stage, through the product's own pipeline."""

import gc
import io
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.models import FACE, Size, build, tiny_autoencoder
from benchmarks.modes import Mode
from benchmarks.original import original
from instantid_demo.backends.compiled import repeated_parts_compiled
from instantid_demo.backends.openvino import OpenVino
from instantid_demo.guidance import guided
from instantid_demo.method import prompts, savings
from instantid_demo.method.conditioning import IdentityCondition
from instantid_demo.method.halves import one_half_at_a_time
from instantid_demo.method.reuse import deep_blocks_reused
from instantid_demo.render import decode

GIGABYTE = 2**30
PROMPT, NEGATIVE = "a person in a red coat in the snow, film photo", "blurry, painting, low quality"


@dataclass
class Run:
    """What one run took, projected to the mode's number of steps."""

    stages: dict[str, float]
    """Wall-clock seconds."""
    cpu_seconds: float
    peak_gb: float
    latents: Tensor

    @property
    def total(self) -> float:
        """Wall-clock seconds of the whole picture."""
        return sum(self.stages.values())


@dataclass
class Calls:
    """Wall and CPU seconds of each call of a network."""

    device: torch.device
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    _start: tuple[float, float] = (0.0, 0.0)

    def before(self, module: Any, args: tuple) -> None:
        """Forward pre-hook."""
        finish(self.device)
        self._start = time.perf_counter(), time.process_time()

    def after(self, module: Any, args: tuple, output: Any) -> None:
        """Forward hook."""
        finish(self.device)
        self.wall.append(time.perf_counter() - self._start[0])
        self.cpu.append(time.process_time() - self._start[1])


def finish(device: torch.device) -> None:
    """Waits until the device has computed all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def projected(seconds: Sequence[float], rows: Sequence[int], planned: Sequence[int]) -> float:
    """Seconds of all planned calls of a network from those measured.

    Args:
        seconds: of the measured calls, one per step.
        rows: of the batch in these calls; 0: it rested, negative: its deep blocks did.
        planned: rows in every step of the whole run.
    """
    wanted = [count for count in planned if count]
    if not wanted:
        return 0.0
    total = seconds[0]
    for count in wanted[1:]:
        # The first call also does what is done once per request; the others are like the later ones of their kind.
        known = [taken for taken, kind in list(zip(seconds, rows, strict=True))[1:] if kind == count]
        total += statistics.median(known) if known else seconds[0] * count / rows[0]
    return total


@dataclass
class Ends:
    """What comes before and after denoising, measured by itself where all networks do not fit in memory together."""

    text: dict[str, Tensor]
    """Text embeddings."""
    stages: dict[str, float]
    """Wall-clock seconds of text, decode and save."""
    cpu_seconds: float
    peak_gb: float


def ends_alone(size: Size, dtype: torch.dtype, device: torch.device) -> Ends:
    """Text encoders and VAE, one after the other, each in memory alone."""
    peak = Peak(device)
    with torch.no_grad():
        pipe = build(size, dtype, ["text"], device)
        prompts.encode(pipe, PROMPT, NEGATIVE)  # libraries prepare at their first call
        finish(device)
        cpu, begin = time.process_time(), time.perf_counter()
        text = prompts.encode(pipe, PROMPT, NEGATIVE)
        finish(device)
        texts, cpu_texts = time.perf_counter() - begin, time.process_time() - cpu
        del pipe
        gc.collect()
        pipe = build(size, dtype, ["vae"], device)
        latents = torch.randn(4, size.side // 8, size.side // 8, generator=torch.Generator().manual_seed(3))
        cpu = time.process_time()
        stages = {"text": texts, **_finished(pipe, latents.to(device, dtype))}
    return Ends(text, stages, cpu_texts + time.process_time() - cpu, peak.read())


def _finished(pipe: Any, latents: Tensor, backend: OpenVino | None = None, vae: Any = None) -> dict[str, float]:
    """Wall-clock seconds of decoding, by `vae` if it is given, and saving."""
    finish(latents.device)
    begin = time.perf_counter()
    picture = decode(pipe, latents, backend, vae)
    decoded = time.perf_counter()
    picture.save(io.BytesIO(), "PNG")
    return {"decode": decoded - begin, "save": time.perf_counter() - decoded}


def run(
    pipe: Any, size: Size, mode: Mode, measured: int, backend: OpenVino | None = None, alone: Ends | None = None
) -> Run:
    """Measures `mode` over `measured` steps and projects it to all its steps.

    Text, tokens, decoding and saving are measured whole. Which networks run in which step follows from `Mode.plan`.

    Args:
        pipe: of `build`.
        size: what it was built for.
        mode: what is measured.
        measured: steps to run.
        backend: for modes that use it.
        alone: text, decoding and saving if they were measured before; `pipe` then needs its `nets` alone.
    """
    steps = mode.steps or size.steps
    measured = min(measured, steps)
    device = pipe.unet.device
    calls = {name: Calls(device) for name in ("text", "tokens", "identity_net", "unet")}
    ends: list[float] = []
    tiny = tiny_autoencoder(size, mode.dtype, device) if mode.quick_decode else None

    def on_step(_pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        finish(device)
        ends.append(time.perf_counter())
        return values

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name, module in (
            ("text", pipe.text_encoder),
            ("text", pipe.text_encoder_2),
            ("tokens", pipe.resampler),
            ("identity_net", pipe.controlnets[0]),
            ("unet", pipe.unet),
        ):
            if module is not None:
                stack.enter_context(_hooked(module, calls[name]))
        if mode.savings is None:
            stack.enter_context(original(pipe))
        elif mode.savings.layout and device.type == "cpu":
            for net in (pipe.unet, *pipe.controlnets):
                savings.channels_last(net)  # once in a process, not once per picture
        if mode.compiled:
            stack.enter_context(repeated_parts_compiled([pipe.unet, *pipe.controlnets]))
        peak = Peak(device)
        cpu = time.process_time()
        text = prompts.encode(pipe, PROMPT, NEGATIVE) if alone is None else alone.text
        begin = time.perf_counter()
        conditioned = pipe.conditioned([_person(size, pipe.unet.dtype)], identity_scale=mode.strength, every=mode.every)
        stack.enter_context(conditioned)
        if mode.savings is not None:
            stack.enter_context(savings.applied(pipe, mode.savings))
        if mode.backend == "openvino":
            assert backend is not None
            stack.enter_context(backend.applied(pipe))
        window = guided(
            pipe.unet,
            pipe.controlnets,
            lambda: len(ends) / measured,
            scale=mode.guidance,
            window=(0.0, mode.guided_until),
        )
        stack.enter_context(window)
        stack.enter_context(deep_blocks_reused(pipe.unet, mode.deep_every))
        if mode.halves:
            stack.enter_context(one_half_at_a_time(pipe))
        latents = pipe(
            **text,
            image=_keypoints(size),
            height=size.side,
            width=size.side,
            num_inference_steps=measured,
            guidance_scale=mode.guidance,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
            callback_on_step_end=on_step,
        ).images
        uses = backend if mode.backend == "openvino" else None
        finished = _finished(pipe, latents[0], uses, tiny) if alone is None or tiny else {}
        cpu = time.process_time() - cpu

    planned, tried = (list(zip(*mode.plan(count), strict=True)) for count in (steps, measured))
    nets = {name: calls[name] for name in ("identity_net", "unet")}
    of_nets = {name: projected(net.wall, tried[i], planned[i]) for i, (name, net) in enumerate(nets.items())}
    in_nets = sum(sum(entry.wall) for entry in nets.values())
    loop = ends[-1] - begin - in_nets - sum(calls["tokens"].wall)
    # Between the networks: the scheduler and the rest of the loop in every step, preparing before the first.
    later = max(0.0, ends[-1] - ends[0] - sum(sum(entry.wall[1:]) for entry in nets.values()))
    per_step = later / max(1, measured - 1)
    stages = {
        "text": sum(calls["text"].wall),
        "tokens": sum(calls["tokens"].wall),
        "prepare": max(0.0, loop - per_step * measured),
        **of_nets,
        "scheduler": per_step * steps,
        **finished,
    }
    if alone is not None:
        stages |= {name: taken for name, taken in alone.stages.items() if name not in finished}
        cpu += alone.cpu_seconds
    cpu_nets = sum(projected(net.cpu, tried[i], planned[i]) for i, net in enumerate(nets.values()))
    cpu_once = cpu - sum(sum(entry.cpu) for entry in nets.values())
    highest = max(peak.read(), alone.peak_gb if alone else 0.0)
    return Run(stages, cpu_once + cpu_nets, highest, latents.float().cpu())


@contextmanager
def _hooked(module: torch.nn.Module, calls: Calls) -> Iterator[None]:
    hooks = [
        module.register_forward_pre_hook(calls.before),
        module.register_forward_hook(calls.after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _person(size: Size, dtype: torch.dtype) -> IdentityCondition:
    return IdentityCondition(torch.randn(FACE, generator=torch.Generator().manual_seed(2)).to(dtype))


def _keypoints(size: Size) -> Image.Image:
    from instantid_demo.faces import keypoints

    points = np.array([(0.4, 0.4), (0.6, 0.4), (0.5, 0.5), (0.42, 0.62), (0.58, 0.62)], np.float32)
    return keypoints.draw(size.side, size.side, points * size.side)


class Peak:
    """The most memory held since this object was made, in GB: of a CUDA device what PyTorch allocated there.

    Of a processor what the process itself held, on Linux without the files that are mapped into it, which the system
    takes back at need: looked at every 20 ms. Elsewhere everything since the process began.
    """

    _STATUS, _PAUSE = Path("/proc/self/status"), 0.02
    _OWN = ("RssAnon:", "RssShmem:")

    def __init__(self, device: torch.device) -> None:
        self._device, self._most, self._ended = device, 0, threading.Event()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif self._STATUS.is_file():
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            lines = self._STATUS.read_text().splitlines()
            now = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(self._OWN))
            self._most = max(self._most, now)
            if self._ended.wait(self._PAUSE):
                return

    def read(self) -> float:
        """Gigabytes at their highest; ends the watch."""
        self._ended.set()
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / GIGABYTE
        if self._STATUS.is_file():
            return self._most / GIGABYTE
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIGABYTE


def difference(one: Tensor, reference: Tensor) -> float:
    """max|d| / std of the reference."""
    return float((one - reference).abs().max() / reference.std())
