"""All modes on random networks of one size: interleaved rounds, medians, ratios to the reference."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.measure import Ends, Run, difference, ends_alone, run
from benchmarks.models import PARTS, SHARE_OF_NETS, Size, build, weights_of
from benchmarks.modes import Mode
from instantid_demo.backends.openvino import OpenVino
from instantid_demo.memory import free_memory
from instantid_demo.settings import ROOT

WARM_UP = (
    "reference",
    "exact",
    "bf16",
    "openvino",
    "openvino-halves",
    "openvino-bf16",
    "openvino-i8",
    "compiled",
    "compiled-bf16",
)
BYTES = {"f32": 4, "bf16": 2, "i8": 2}
"""Of a weight while OpenVINO computes; in i8 it unfolds convolutions."""
OPENVINO_KINDS = {"bf16": "bfloat16", "i8": "8-bit weights"}
GENEROUS = 1.4
"""Times the weights' own size: what a run needs for activations."""


class Bench:
    """Runs modes on random networks: all of them in memory, or, where they do not fit, one kind of number at a time.

    Then text encoders and VAE are measured by themselves if UNet and IdentityNet leave them no room.
    """

    def __init__(
        self, size: Size, modes: Sequence[Mode], cache: Path, device: torch.device, say: Callable[[str], None]
    ) -> None:
        """`cache` holds OpenVINO's networks."""
        self.size, self.device, self.say = size, device, say
        self.weights = weights_of(size)
        self.memory = psutil.virtual_memory().available
        if device.type == "cuda":
            self.memory, _ = torch.cuda.mem_get_info(device)
        self.together = self._needed(modes) < self.memory
        self.cache = cache
        self.load_seconds: dict[str, float] = {}
        self._pipes: dict[torch.dtype, Any] = {}
        self._backends: dict[str, OpenVino] = {}
        self._ends: dict[torch.dtype, Ends] = {}
        self._warm: set[str] = set()

    def fits(self, mode: Mode) -> bool:
        """Whether this machine's memory is enough for a mode."""
        return self._needed([mode], SHARE_OF_NETS) < self.memory

    def warm_up(self, mode: Mode) -> None:
        """Runs a step once, so that no measurement holds a conversion or what libraries prepare at their first call.

        Beside one step of large networks only a conversion weighs anything.
        """
        if (
            mode.name in WARM_UP
            and mode.name not in self._warm
            and (self.together or mode.backend != "torch" or mode.compiled)
        ):
            self.say(f"warming up: {mode.name}")
            self._warm.add(mode.name)
            self._run(mode, 1)

    def run(self, mode: Mode) -> Run:
        """Measures a mode once; its networks are built first where they are not in memory."""
        return self._run(mode, mode.measured)

    def _run(self, mode: Mode, steps: int) -> Run:
        pipe = self._pipe(mode)
        free_memory()  # what building or another mode left behind is not this mode's
        return run(pipe, self.size, mode, steps, self._backend(mode), self._ends.get(mode.dtype))

    def _backend(self, mode: Mode) -> OpenVino | None:
        if mode.backend == "torch":
            return None
        if not self.together and mode.precision not in self._backends:
            self._backends.clear()
        return self._backends.setdefault(mode.precision, OpenVino(self.cache, mode.precision))

    def _needed(self, modes: Sequence[Mode], share: float = 1.0) -> float:
        """Bytes of memory, about, to have the networks of all these modes there, or this share of PyTorch's.

        Of one mode on OpenVINO the larger copy counts: while it computes, PyTorch's waits on the disk.
        """
        widths = share * sum(dtype.itemsize for dtype in {mode.dtype for mode in modes})
        converted = SHARE_OF_NETS * sum(BYTES[kind] for kind in {m.precision for m in modes if m.backend != "torch"})
        return self.weights * GENEROUS * (max(widths, converted) if len(modes) == 1 else widths + converted)

    def _pipe(self, mode: Mode) -> Any:
        if mode.dtype in self._pipes:
            return self._pipes[mode.dtype]
        if not self.together:
            self._pipes.clear()
            self._backends.clear()
            free_memory()
        name = str(mode.dtype).removeprefix("torch.")
        self.say(f"building the networks in {name}")
        parts = PARTS
        if not self.together and self._needed([mode]) > self.memory:
            self._ends[mode.dtype] = ends_alone(self.size, mode.dtype, self.device)
            gc.collect()
            parts = ("nets",)
        start = time.perf_counter()
        self._pipes[mode.dtype] = build(self.size, mode.dtype, parts, self.device)
        self.load_seconds[name] = round(time.perf_counter() - start, 3)
        return self._pipes[mode.dtype]

    @property
    def apart(self) -> list[str]:
        """Kinds of numbers whose text encoders and VAE were measured by themselves."""
        return [str(dtype).removeprefix("torch.") for dtype in self._ends]


def compare(
    size: Size,
    modes: Sequence[Mode],
    *,
    budget: float,
    most: int,
    cache: Path,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures every mode in rounds until `budget` seconds are over: at least one, at most `most`.

    Where the machine is so busy that not even one fits, all modes but the first two are left out and named as skipped,
    and so are modes that its memory cannot hold.

    A mode runs once in a round, so that a busy moment of the machine hits all modes alike. A step of each kind is run
    before, so that no mode pays for what the libraries prepare at their first call. Networks that do not fit in memory
    together go through one round, one kind of number after the other.
    """
    started = time.perf_counter()
    bench = Bench(size, modes, cache, device, say)
    if not bench.together:
        modes = sorted(modes, key=lambda mode: mode.dtype.itemsize, reverse=True)
    rounds: list[dict[str, Run]] = []
    for number in range(most if bench.together else 1):
        took = 0.0
        rounds.append({})
        for mode in modes:
            if number and mode.name not in rounds[0]:
                continue
            late = bench.together and time.perf_counter() - started > budget
            if not bench.fits(mode) or (not number and late and mode not in modes[:2]):
                continue
            bench.warm_up(mode)
            begin = time.perf_counter()
            made = rounds[-1][mode.name] = bench.run(mode)
            took += time.perf_counter() - begin
            say(f"{mode.name}: {made.total:.1f} s, at most {made.peak_gb:.1f} GB")
        if time.perf_counter() - started + took > budget:
            break
    done = [mode for mode in modes if mode.name in rounds[0]]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "size": size.name,
        "side": size.side,
        "steps": size.steps,
        "rounds": len(rounds),
        "threads": torch.get_num_threads(),
        "load_seconds": bench.load_seconds,
        "face_analysis_seconds": _face_analysis(),
        "measured_apart": bench.apart,
        "skipped": [mode.name for mode in modes if mode not in done],
        "modes": [_entry(mode, rounds, size.steps) for mode in done],
    }


def _face_analysis() -> float:
    """Seconds to find and describe the face in an example photo: the same in every mode, and in none of the totals."""
    from instantid_demo.faces.offline import OfflineAnalyser
    from instantid_demo.faces.photo import open_photo

    analyser = OfflineAnalyser()
    photo = open_photo(ROOT / "assets" / "examples" / "woman.jpg")
    analyser.detect(photo)
    begin = time.perf_counter()
    analyser.detect(photo)
    return round(time.perf_counter() - begin, 3)


def _entry(mode: Mode, rounds: list[dict[str, Run]], steps: int) -> dict[str, Any]:
    base = mode.compared_with if mode.savings is not None else mode.name
    runs, references = [found[mode.name] for found in rounds], [found[base] for found in rounds]
    totals = [one.total for one in runs]
    total, reference = statistics.median(totals), statistics.median(one.total for one in references)
    cpu = statistics.median(one.cpu_seconds for one in runs)
    return {
        "name": mode.name,
        "about": mode.about,
        "dtype": OPENVINO_KINDS.get(mode.precision, str(mode.dtype).removeprefix("torch.")),
        "backend": mode.backend,
        "exact": mode.exact,
        "steps_measured": mode.measured,
        "steps": mode.steps,
        "per_step": {
            name: round(statistics.median(r.stages[name] for r in runs) / (mode.steps or steps), 4)
            for name in ("identity_net", "unet")
        },
        "stages": {name: round(statistics.median(r.stages[name] for r in runs), 4) for name in runs[0].stages},
        "total_seconds": round(total, 3),
        "total_min": round(min(totals), 3),
        "total_max": round(max(totals), 3),
        "reference_total_seconds": round(reference, 3),
        "ratio": round(total / reference, 3),
        "cpu_seconds": round(cpu, 3),
        "cpu_ratio": round(cpu / statistics.median(one.cpu_seconds for one in references), 3),
        "peak_memory_gb": round(max(one.peak_gb for one in runs), 3),
        "max_difference": difference(runs[-1].latents, references[-1].latents),
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['size']} on {report['device']}: {report['side']}x{report['side']}, {report['steps']} steps, "
        f"each kind of step measured and summed over all of them; medians of {report['rounds']} round(s), "
        f"{report['threads']} threads.",
        "",
        "| mode | type | total s (min-max) | ratio | CPU ratio | IdentityNet s | UNet s | decode s | peak GB | max d |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for mode in report["modes"]:
        stages = mode["stages"]
        lines.append(
            f"| {mode['name']}{'' if mode['exact'] else ' ~'} | {mode['dtype']} "
            f"| {mode['total_seconds']:.2f} ({mode['total_min']:.2f}-{mode['total_max']:.2f}) | {mode['ratio']:.2f} "
            f"| {mode['cpu_ratio']:.2f} | {stages['identity_net']:.2f} | {stages['unet']:.2f} | {stages['decode']:.2f} "
            f"| {mode['peak_memory_gb']:.2f} | {mode['max_difference']:.1e} |"
        )
    if report["skipped"]:
        lines += ["", f"Too busy or too small a machine for: {', '.join(report['skipped'])} (see --budget)."]
    if report["measured_apart"]:
        lines += ["", f"Text encoders and VAE measured by themselves: {', '.join(report['measured_apart'])}."]
    lines += ["", "~ approximate: another picture than the reference's. Ratios are to the original's schedule."]
    return "\n".join(lines)


def is_converted(cache: Path) -> bool:
    """Whether OpenVINO's networks of this size are on disk already: converting takes longer than measuring."""
    return any(cache.glob("unet-*.xml")) and any(cache.glob("identity-net-*.xml"))
