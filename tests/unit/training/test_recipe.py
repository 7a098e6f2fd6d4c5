"""Recipes are checked before anything runs, and say in one sentence what is wrong."""

from pathlib import Path

import pytest

from training.errors import RecipeError
from training.recipe import RECIPES, Recipe


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_each_recipe_of_ours_is_sound_and_opens_with_its_command(name: str) -> None:
    assert Recipe.load(name).name == name
    assert "# " in (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("name:")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nencoders: pretrained\nlayers: 3\n", "layers: Extra inputs are not permitted"),
        ("name: x\nencoders: pretrained\nfusion: {width: 30, heads: 4}\n", "4 heads do not divide the width 30"),
        ("name: x\nencoders: scratch\n", "need text_training and image_training"),
        ("name: x\nencoders: pretrained\nimage_training: {steps: 3}\n", "are frozen"),
        ("name: x\nencoders: pretrained\nfusion: {lr: -1}\n", "fusion.lr"),
        ("name: [\n", "is not YAML"),
        ("- 1\n", "valid dictionary"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        Recipe.load(path)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="fashion_cpu"):
        Recipe.load("fashion")
