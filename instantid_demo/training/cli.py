"""`python -m instantid_demo train RECIPE --data DIR --out DIR`."""

import argparse
import logging
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

from instantid_demo.flags import Parser
from instantid_demo.request import RequestError

RECIPES = Path(__file__).parent / "recipes"


def parser() -> Parser:
    """The command's flags."""
    result = Parser("instantid_demo train", description="Train an identity model; see docs/training.md.")
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
    result.add_argument("recipe", help=f"a recipe's name ({known}) or a .toml file")
    result.add_argument("--data", type=Path, help="folder of the training photographs")
    result.add_argument("--out", type=Path, help="folder for everything that is made; a stopped run resumes there")
    result.add_argument("--start", type=Path, help="checkpoint to train on instead of fresh networks")
    result.add_argument("--base", help="base model instead of the recipe's: folder, file or hub id (adapter recipes)")
    result.add_argument("--resume", type=Path, help="training state to go on from instead of the newest (adapter)")
    result.add_argument("--max-steps", type=int, help="stop after so many steps (adapter recipes)")
    result.add_argument("--dry-run", action="store_true", help="check shapes and memory without data (adapter recipes)")
    return result


def read_recipe(name: str) -> dict[str, Any]:
    """A recipe by name or file.

    Raises:
        RequestError: there is no such recipe, or it cannot be read.
    """
    file = RECIPES / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
        raise RequestError(f"There is no recipe {name}: give a .toml file or one of {known}.")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"The recipe {file.name} cannot be read: {error}.") from error


def main(argv: list[str]) -> int:
    """Runs a recipe to its end; 2 where something is wrong with what was asked for."""
    given = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        _run(read_recipe(given.recipe), given)
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(recipe: dict[str, Any], given: argparse.Namespace) -> None:
    kind = recipe.get("kind")
    if kind not in ("pocket", "adapter"):
        raise RequestError('The recipe must say kind = "pocket" or kind = "adapter".')
    if not given.dry_run and not (given.data and given.out):
        raise RequestError("Training needs --data, a folder of photographs, and --out, a folder for the results.")
    if kind == "pocket":
        if given.dry_run or given.max_steps or given.base or given.resume:
            raise RequestError("--dry-run, --max-steps, --base and --resume belong to adapter recipes, not to pocket.")
        from instantid_demo.training import pocket_run

        stopped: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: stopped.append(number))
        pocket_run.run(recipe, given.data, given.out, given.start, lambda: bool(stopped))
        return
    from instantid_demo import quiet
    from instantid_demo.training import adapter_run

    quiet.libraries()
    numbers = adapter_run.recipe_of(recipe.get("adapter", {}), given.base)
    if given.dry_run:
        from instantid_demo.training import dry_run

        print(dry_run.run(numbers, given.max_steps or 2))
        return
    adapter_run.run(numbers, given.data, given.out, start=given.start, state=given.resume, max_steps=given.max_steps)
