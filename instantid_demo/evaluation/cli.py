"""`python -m instantid_demo evaluate --model pocket --portraits DIR --report out/ --json`."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from instantid_demo import flags
from instantid_demo.flags import Parser
from instantid_demo.request import GenerationRequest, RequestError, extra
from instantid_demo.settings import Settings


def parser() -> Parser:
    """The command's flags."""
    result = Parser(
        "instantid_demo evaluate",
        description="Measure how well a model keeps people's identity, over a folder of portraits (one person each).",
    )
    result.add_argument("--model", default="pocket", help="pocket, sdxl, a folder, a file or a hub id; default pocket")
    result.add_argument("--portraits", type=Path, required=True, help="folder of portraits, one different person each")
    result.add_argument("--report", type=Path, help="folder for report.json and report.html, which holds the pictures")
    result.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    result.add_argument("--full", action="store_true", help="styles and several seeds as well: takes much longer")
    result.add_argument("--seed", type=int, default=0, help="of every picture; default 0")
    result.add_argument("--quality", choices=("quality", "fast", "draft"), default="quality", help="preset to measure")
    result.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another request field, such as identity_every=2: what it costs; may be given several times",
    )
    result.add_argument("--limit", type=int, help="only the first LIMIT portraits")
    result.add_argument("--embedder", type=Path, help="an ArcFace .onnx file as a second, independent recogniser")
    result.add_argument("--card", type=Path, help="model card whose table is to be replaced")
    return result


def main(argv: list[str]) -> int:
    """Runs the evaluation; 2 where something is wrong with what was asked for."""
    given = parser().parse_args(argv)
    from instantid_demo import quiet

    try:
        with quiet.stdout() as out:
            said = _run(given)
            print(said, file=out)
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(given: argparse.Namespace) -> str:
    from instantid_demo.engine import Engine
    from instantid_demo.evaluation import measure, report

    settings = Settings()
    files = measure.portraits(given.portraits, given.limit)
    changes = _changes(given.set)
    plan = measure.Plan(given.model, given.seed, given.full, given.limit, given.embedder, given.quality, changes)
    evaluation = measure.evaluate(Engine(settings), files, plan, _tell)
    if given.card:
        report.fill_card(given.card, evaluation.figures)
    written: tuple[Path, ...] = ()
    if given.report:
        written = report.write(evaluation, given.report, _mark(settings))
    if given.json:
        return json.dumps(evaluation.figures)
    lines = [report.table(evaluation.figures), "", *report.remarks(evaluation.figures)]
    return "\n".join([*lines, *(f"Written: {file}" for file in written)])


def _changes(entries: list[str]) -> dict[str, str]:
    """Request fields by name.

    Raises:
        RequestError: no such field, a wrong value, or a field that the evaluation chooses itself.
    """
    changes = dict(entry.partition("=")[::2] for entry in entries)
    usual = {"model", "face", "prompt", "style", "seed", "quality", "images"}
    free = {name for name in GenerationRequest.model_fields if not extra(name).get("private")} - usual
    if wrong := sorted(changes.keys() - free):
        raise RequestError(f"--set takes other request fields than {', '.join(wrong)}, such as steps=8.")
    flags.request(changes)  # complains at once, not at the first portrait
    return changes


def _mark(settings: Settings) -> Callable[[Image.Image], Image.Image]:
    """The watermark, unless the host has switched it off."""
    if not settings.watermark:
        return lambda picture: picture
    from instantid_demo.provenance import watermark

    return watermark.embed


def _tell(said: str) -> None:
    """Progress, for a person who watches; a log gets none."""
    if sys.stderr.isatty():
        print(f"\r\033[K{said}", end="", file=sys.stderr, flush=True)
