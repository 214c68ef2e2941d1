"""`python -m instantid_demo COMMAND`: the same engine as the page, for the command line.

Exit codes: 0 done; 2 the user's side is at fault, missing network or weights included, with one line on standard
error; 1 the program's own fault.
"""

import argparse
import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instantid_demo import __version__, flags
from instantid_demo.request import RequestError, Result
from instantid_demo.settings import Settings

CONSENT = "By using a photo you confirm that you may use the face in it."


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in DELEGATED:
        return _guarded(lambda: DELEGATED[arguments[0]](arguments[1:]))
    parser = _parser()
    given = parser.parse_args(arguments)
    return _guarded(lambda: given.run(given))


def _guarded(command: Callable[[], int]) -> int:
    try:
        return command()
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print("A name is longer than this disk allows: choose a shorter one.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = flags.Parser("instantid_demo", description="From one photo of a face to a new picture of the same person.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="make pictures of a person", description=CONSENT)
    flags.add(generate)
    generate.add_argument("--out", type=Path, metavar="FILE|FOLDER", help="where to save; default: the outputs folder")
    generate.add_argument("--settings-from", type=Path, metavar="PICTURE", help="start from a made picture's settings")
    generate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    generate.set_defaults(run=_generate)

    faces = commands.add_parser("faces", help="list the faces in a photo", description=CONSENT)
    faces.add_argument("photo", type=Path)
    faces.add_argument("--model", default="auto", help="whose face recogniser looks; default auto")
    faces.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    faces.set_defaults(run=_faces)

    doctor = commands.add_parser("doctor", help="tell what is installed and what to do next")
    doctor.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    doctor.set_defaults(run=_doctor)

    for name, (help_text, _) in _LATER.items():
        commands.add_parser(name, help=help_text, add_help=False)
    return parser


def _generate(given: argparse.Namespace) -> int:
    from instantid_demo import quiet, saving, ticker
    from instantid_demo.engine import shared

    settings = Settings()
    restored = None
    if given.settings_from:
        from instantid_demo.provenance import metadata

        restored = metadata.restored(given.settings_from)
    request = flags.request(vars(given), restored)
    where = given.out or settings.outputs
    saving.check_place(where)
    with quiet.stdout() as out:
        line = ticker.Line(sys.stderr)
        try:
            result = shared(settings).generate(request, told=ticker.Steps(line))
        finally:
            line.end()
        if restored and restored.note:
            result = result.model_copy(update={"notes": (restored.note, *result.notes)})
        files = saving.save(result, where, settings)
        _report(result, files, given.json, out)
    return 0


def _report(result: Result, files: list[Path], as_json: bool, out: Any) -> None:
    if as_json:
        alone = [
            entries[0].value if len(entries) == 1 else [entry.value for entry in entries] for entries in result.likeness
        ]
        report = {
            "seed": result.seeds[0],
            "files": [str(file) for file in files],
            "seconds": round(result.seconds["total"], 3),
            "likeness": alone,
            "notes": list(result.notes),
        }
        print(json.dumps(report), file=out)
        return
    for file, entries, seed in zip(files, result.likeness, result.seeds, strict=True):
        words = ", ".join(e.word if e.value is None else f"{e.word} ({e.value:.2f})" for e in entries)
        print(f"{file}  seed {seed}  likeness {words}", file=out)
    for note in result.notes:
        print(note, file=out)


def _faces(given: argparse.Namespace) -> int:
    from instantid_demo import quiet
    from instantid_demo.engine import shared

    with quiet.stdout() as out:
        report = shared(Settings()).report(given.photo, given.model)
        faces = report["faces"]
        if given.json:
            print(json.dumps(report), file=out)
        elif not faces:
            print("No face was found.", file=out)
        for number, face in enumerate(faces if not given.json else []):
            print(f"face {number}: box {face['box']}, score {face['score']}, pose {face['pose']}", file=out)
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from instantid_demo import doctor, quiet

    with quiet.stdout() as out:
        report = doctor.examine(Settings())
        print(json.dumps(report) if given.json else doctor.in_words(report), file=out)
    return 0


def _module(name: str) -> Callable[[list[str]], int]:
    def run(argv: list[str]) -> int:
        import importlib

        return importlib.import_module(f"instantid_demo.{name}").main(argv)

    return run


_LATER: dict[str, tuple[str, Callable[[list[str]], int]]] = {
    "verify": ("tell where a picture comes from", _module("provenance.verify")),
    "download": ("fetch models", _module("models.download")),
    "evaluate": ("measure a model on a folder of portraits", _module("evaluation.cli")),
    "train": ("train an identity model", _module("training.cli")),
    "export-comfyui": ("write a picture's settings as a ComfyUI workflow", _module("comfyui")),
}
DELEGATED = {name: command for name, (_, command) in _LATER.items()}
"""Commands whose flags live with their code, imported when they are called."""
