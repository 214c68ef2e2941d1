"""Warm seconds of the embedded model through the engine: what a user waits for."""

import statistics
import time
from pathlib import Path
from typing import Any

from instantid_demo.engine import Engine
from instantid_demo.request import GenerationRequest
from instantid_demo.settings import ROOT, Settings


def measure(face: str | None, rounds: int) -> dict[str, Any]:
    """Seconds by stage of the first picture, of further seeds, and of further prompts; medians with min and max.

    Args:
        face: a photo; None: the first of the portraits beside the repository.
        rounds: pictures of each kind after the first.
    """
    photo = Path(face) if face else _portrait()
    engine = Engine(Settings(model="pocket"))  # type: ignore[call-arg]
    begin = time.perf_counter()
    engine.warm_up()
    load = time.perf_counter() - begin
    kinds: dict[str, list[dict[str, float]]] = {"first picture": [], "another seed": [], "another prompt": []}
    kinds["first picture"].append(_seconds(engine, photo, 0, "in the snow"))
    for number in range(1, rounds + 1):
        kinds["another seed"].append(_seconds(engine, photo, number, "in the snow"))
        kinds["another prompt"].append(_seconds(engine, photo, number, f"in the snow, photo {number}"))
    return {
        "model": "pocket",
        "load_seconds": round(load, 3),
        "pictures": [
            {
                "name": name,
                "stages": {stage: statistics.median(one[stage] for one in found) for stage in found[0]},
                "total_min": min(one["total"] for one in found),
                "total_max": max(one["total"] for one in found),
            }
            for name, found in kinds.items()
        ],
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    stages = [stage for stage in report["pictures"][0]["stages"] if stage != "total"]
    lines = [
        f"{report['model']}: loaded in {report['load_seconds']:.2f} s",
        "",
        f"| picture | total s (min-max) | {' | '.join(stages)} |",
        "|---" * (len(stages) + 2) + "|",
    ]
    for entry in report["pictures"]:
        each = " | ".join(f"{entry['stages'][stage]:.3f}" for stage in stages)
        total = f"{entry['stages']['total']:.2f} ({entry['total_min']:.2f}-{entry['total_max']:.2f})"
        lines.append(f"| {entry['name']} | {total} | {each} |")
    return "\n".join(lines)


def _seconds(engine: Engine, photo: Path, seed: int, prompt: str) -> dict[str, float]:
    return engine.generate(GenerationRequest(face=(photo,), prompt=prompt, seed=seed)).seconds


def _portrait() -> Path:
    found = sorted((ROOT.parent / "shared" / "portraits").glob("*.jpg"))
    if not found:
        raise SystemExit("Give a photo of a face: --pocket --face photo.jpg")
    return found[0]
