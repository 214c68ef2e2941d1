"""`python -m instantid_demo train RECIPE --data DIR --out DIR`."""

import argparse
import logging
import tomllib
from pathlib import Path

from instantid_demo.request import RequestError

RECIPES = Path(__file__).parent / "recipes"


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = argparse.ArgumentParser(
        "instantid_demo train", description="Train an identity model; see docs/training.md."
    )
    result.add_argument("recipe", help="a recipe's name (pocket) or a .toml file")
    result.add_argument("--data", type=Path, required=True, help="folder of the training photographs")
    result.add_argument("--out", type=Path, required=True, help="folder for checkpoints; a stopped run resumes there")
    result.add_argument("--start", type=Path, help="checkpoint to train on instead of fresh networks")
    return result


def read_recipe(name: str) -> dict:
    """A recipe by name or file.

    Raises:
        RequestError: there is no such recipe, or it cannot be read.
    """
    file = RECIPES / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
        raise RequestError(f"There is no recipe {name}: give a .toml file or one of {known}.")
    try:
        return tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"The recipe {file.name} cannot be read: {error}.") from error


def main(argv: list[str]) -> int:
    """Runs a recipe to its end."""
    arguments = parser().parse_args(argv)
    recipe = read_recipe(arguments.recipe)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from instantid_demo.training import pocket_run

    pocket_run.run(recipe, arguments.data, arguments.out, arguments.start)
    return 0
