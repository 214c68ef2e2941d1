"""Recipes and flags of `train`."""

import pytest

from instantid_demo.request import RequestError
from instantid_demo.training import adapter_run, cli, dry_run, pocket_run
from instantid_demo.training.drawing import Drops
from instantid_demo.training.vae import VaeRecipe


@pytest.mark.parametrize(("name", "architecture"), [("sdxl-adapter", "sdxl"), ("sd15-adapter", "sd15")])
def test_adapter_recipes_are_complete(name, architecture):
    recipe = adapter_run.recipe_of(cli.read_recipe(name)["adapter"])
    assert dry_run.architecture_of(recipe) == architecture
    assert adapter_run.recipe_of(cli.read_recipe(name)["adapter"], "mine").base == "mine"


def test_the_pocket_recipe_is_complete():
    recipe = cli.read_recipe("pocket")
    assert recipe["kind"] == "pocket"
    VaeRecipe(**recipe["vae"])
    for stage in recipe.keys() & pocket_run.STAGES.keys():
        numbers = dict(recipe[stage])
        assert 0 <= numbers.pop("styled") < 1
        Drops(**numbers.pop("drops", {}))
        pocket_run.STAGES[stage][1](**numbers)


def test_a_recipe_for_a_part_asks_for_a_checkpoint(tmp_path):
    with pytest.raises(RequestError, match="--start"):
        pocket_run.run({"few_step": {}}, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("table", [{"base": "x", "stepz": 1}, {}])
def test_wrong_numbers_are_named(table):
    with pytest.raises(RequestError, match=r"stepz|base"):
        adapter_run.recipe_of(table)


@pytest.mark.parametrize(
    "argv",
    [
        ["unknown", "--data", "x", "--out", "y"],
        ["sdxl-adapter"],
        ["pocket", "--dry-run"],
        ["sdxl-adapter", "--data", "nowhere"],
    ],
)
def test_what_cannot_run_ends_with_2_and_a_sentence(argv, capsys):
    assert cli.main(argv) == 2
    said = capsys.readouterr().err.strip()
    assert said
    assert "Traceback" not in said


def test_a_damaged_recipe_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("kind = ")
    with pytest.raises(RequestError, match="cannot be read"):
        cli.read_recipe(str(file))


def test_a_dry_run_trains_stops_goes_on_and_exports():
    recipe = adapter_run.recipe_of({**cli.read_recipe("sd15-adapter")["adapter"], "batch": 1})
    said = dry_run.run(recipe, 2)
    assert "sd15 at full size" in said
    assert '"steps": 2' in said
