"""All modes on random networks of one size: interleaved rounds, medians, ratios to the reference."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Run, difference, run
from benchmarks.models import Size, build
from benchmarks.modes import Mode
from instantid_demo.backends.openvino import OpenVino

WARM_UP = ("reference", "exact", "bf16", "openvino", "openvino-bf16")


def compare(
    size: Size,
    modes: Sequence[Mode],
    *,
    budget: float,
    most: int,
    cache: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures every mode in rounds until `budget` seconds are over: at least one, at most `most`.

    Where the machine is so busy that not even one fits, approximate modes are left out and named as skipped.

    A mode runs once in a round, so that a busy moment of the machine hits all modes alike. A step of each kind is run
    before, so that no mode pays for what the libraries prepare at their first call. `cache` holds OpenVINO's networks.
    """
    started = time.perf_counter()
    pipes: dict[torch.dtype, Any] = {}
    built = {}
    for dtype in dict.fromkeys(mode.dtype for mode in modes):
        start = time.perf_counter()
        pipes[dtype] = build(size, dtype)
        built[str(dtype).removeprefix("torch.")] = round(time.perf_counter() - start, 3)
    backends = {mode.precision: OpenVino(cache, mode.precision) for mode in modes if mode.backend == "openvino"}
    for mode in modes:
        if mode.name in WARM_UP:
            say(f"warming up: {mode.name}")
            run(pipes[mode.dtype], size, mode, 1, backends.get(mode.precision))
    rounds: list[dict[str, Run]] = []
    for number in range(most):
        begin = time.perf_counter()
        rounds.append({})
        for mode in modes:
            if number and mode.name not in rounds[0]:
                continue
            if not number and not mode.exact and time.perf_counter() - started > budget:
                continue
            say(f"round {number + 1}: {mode.name}")
            rounds[-1][mode.name] = run(pipes[mode.dtype], size, mode, mode.measured, backends.get(mode.precision))
        took = time.perf_counter() - begin
        if time.perf_counter() - started + took > budget:
            break
    done = [mode for mode in modes if mode.name in rounds[0]]
    return {
        "size": size.name,
        "side": size.side,
        "steps": size.steps,
        "rounds": len(rounds),
        "threads": torch.get_num_threads(),
        "build_seconds": built,
        "skipped": [mode.name for mode in modes if mode not in done],
        "modes": [_entry(mode, rounds) for mode in done],
    }


def _entry(mode: Mode, rounds: list[dict[str, Run]]) -> dict[str, Any]:
    base = mode.compared_with if mode.savings is not None else mode.name
    runs, references = [found[mode.name] for found in rounds], [found[base] for found in rounds]
    totals = [one.total for one in runs]
    total, reference = statistics.median(totals), statistics.median(one.total for one in references)
    cpu = statistics.median(one.cpu_seconds for one in runs)
    return {
        "name": mode.name,
        "about": mode.about,
        "dtype": "bfloat16" if mode.precision == "bf16" else str(mode.dtype).removeprefix("torch."),
        "backend": mode.backend,
        "exact": mode.exact,
        "steps_measured": mode.measured,
        "steps": mode.steps,
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
        f"{report['size']}: {report['side']}x{report['side']}, {report['steps']} steps, each kind of step "
        f"measured and summed over all of them; medians of {report['rounds']} round(s), "
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
        lines += ["", f"Too busy a machine to measure: {', '.join(report['skipped'])}. Give --budget more seconds."]
    lines += ["", "~ approximate: another picture than the reference's. Ratios are to the original's schedule."]
    return "\n".join(lines)


def is_converted(cache: Path) -> bool:
    """Whether OpenVINO's networks of this size are on disk already: converting takes longer than measuring."""
    return any(cache.glob("unet-*.xml")) and any(cache.glob("identity-net-*.xml"))
