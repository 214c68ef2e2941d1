"""Warm seconds of a real model through the engine: a picture alone, several pictures, several users."""

import statistics
import threading
import time
from pathlib import Path
from typing import Any, Literal

from instantid_demo.engine import Engine
from instantid_demo.request import GenerationRequest
from instantid_demo.settings import ROOT, Settings

Device = Literal["auto", "cpu", "cuda", "mps"]
BATCHES = (1, 2, 4, 8)
"""Pictures of one request."""
WAITING = (1, 2, 4)
"""Users who ask at the same moment."""


def measure(model: str, face: str | None, rounds: int, device: Device = "auto") -> dict[str, Any]:
    """Seconds by stage of the first picture, of further seeds, and of further prompts; medians with min and max.

    Then of requests for several pictures, and of several users at once.

    Args:
        model: its name, as for `generate --model`.
        face: a photo; None: an example of the program's own.
        rounds: pictures of each kind after the first.
        device: where it runs.
    """
    photo = Path(face) if face else ROOT / "assets" / "examples" / "woman.jpg"
    engine = Engine(Settings(model=model, device=device))  # type: ignore[call-arg]
    begin = time.perf_counter()
    engine.warm_up()
    load = time.perf_counter() - begin
    kinds: dict[str, list[dict[str, float]]] = {"first picture": [], "another seed": [], "another prompt": []}
    kinds["first picture"].append(_seconds(engine, photo, 0, "in the snow"))
    for number in range(1, rounds + 1):
        kinds["another seed"].append(_seconds(engine, photo, number, "in the snow"))
        kinds["another prompt"].append(_seconds(engine, photo, number, f"in the snow, photo {number}"))
    batches = [
        (count, statistics.median(_seconds(engine, photo, 100, "in the snow", count)["total"] for _ in range(rounds)))
        for count in BATCHES
    ]
    return {
        "model": model,
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
        "batches": [
            {
                "pictures": count,
                "seconds": round(seconds, 3),
                "per_extra_picture": round((seconds - batches[0][1]) / (count - 1), 3) if count > 1 else None,
            }
            for count, seconds in batches
        ],
        "queue": [_line(engine, photo, users) for users in WAITING],
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
    lines += ["", "| pictures in one request | seconds | each further picture |", "|---|---|---|"]
    for entry in report["batches"]:
        further = "" if entry["per_extra_picture"] is None else f"{entry['per_extra_picture']:.2f}"
        lines.append(f"| {entry['pictures']} | {entry['seconds']:.2f} | {further} |")
    lines += ["", "| users at once | pictures a minute | the last one waits, s |", "|---|---|---|"]
    lines += [
        f"| {entry['users']} | {entry['pictures_per_minute']:.0f} | {entry['longest_seconds']:.2f} |"
        for entry in report["queue"]
    ]
    return "\n".join(lines)


def _seconds(engine: Engine, photo: Path, seed: int, prompt: str, pictures: int = 1) -> dict[str, float]:
    return engine.generate(GenerationRequest(face=(photo,), prompt=prompt, seed=seed, images=pictures)).seconds


def _line(engine: Engine, photo: Path, users: int) -> dict[str, Any]:
    """Several users ask for a picture at once, each with words and a seed of his own."""
    ends: list[float] = []

    def ask(user: int) -> None:
        _seconds(engine, photo, 200 + user, f"in the snow, photo {user}")
        ends.append(time.perf_counter())

    threads = [threading.Thread(target=ask, args=(user,)) for user in range(users)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = max(ends) - begin
    return {"users": users, "pictures_per_minute": round(60 * users / took, 1), "longest_seconds": round(took, 3)}
