"""All modes on random networks of one size: interleaved rounds, medians, ratios to the reference."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.measure import Run, difference, run
from benchmarks.models import Size, build
from benchmarks.modes import Mode

WARM_UP = ("reference", "exact", "bf16")


def compare(
    size: Size, modes: Sequence[Mode], *, measured: int, budget: float, most: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures every mode in rounds until `budget` seconds are over: at least one, at most `most`.

    A mode runs once in a round, so that a busy moment of the machine hits all modes alike. A step of each kind is run
    before, so that no mode pays for what the libraries prepare at their first call.
    """
    started = time.perf_counter()
    pipes: dict[torch.dtype, Any] = {}
    built = {}
    for dtype in dict.fromkeys(mode.dtype for mode in modes):
        start = time.perf_counter()
        pipes[dtype] = build(size, dtype)
        built[str(dtype).removeprefix("torch.")] = round(time.perf_counter() - start, 3)
    for mode in modes:
        if mode.name in WARM_UP:
            run(pipes[mode.dtype], size, mode, 1)
    rounds: list[dict[str, Run]] = []
    for number in range(most):
        begin = time.perf_counter()
        rounds.append({})
        for mode in modes:
            say(f"round {number + 1}: {mode.name}")
            rounds[-1][mode.name] = run(pipes[mode.dtype], size, mode, measured)
        took = time.perf_counter() - begin
        if time.perf_counter() - started + took > budget:
            break
    entries = [_entry(mode, rounds) for mode in modes]
    return {
        "size": size.name,
        "side": size.side,
        "steps": size.steps,
        "steps_measured": measured,
        "rounds": len(rounds),
        "threads": torch.get_num_threads(),
        "build_seconds": built,
        "modes": entries,
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
        "dtype": str(mode.dtype).removeprefix("torch."),
        "exact": mode.exact,
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
        f"{report['size']}: {report['side']}x{report['side']}, {report['steps']} steps, each mode measured over "
        f"{report['steps_measured']} and summed over all its steps; medians of {report['rounds']} round(s), "
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
    lines += ["", "~ approximate: another picture than the reference's. Ratios are to the original's schedule."]
    return "\n".join(lines)
