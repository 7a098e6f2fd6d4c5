"""Recipes are checked before anything runs, and say in one sentence what is wrong."""

from pathlib import Path

import pytest

from training.errors import RecipeError
from training.recipe import RECIPES, Recipe

OURS = sorted(file.stem for file in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("name", OURS)
def test_each_recipe_of_ours_is_sound_and_opens_with_command_hardware_time_and_result(name: str) -> None:
    assert Recipe.load(name).name == name
    opening = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("name:")[0]
    for word in ("Hardware: ", "Time", "Expected"):
        assert word in opening
    assert "mmcat train " in opening or "python -m training.train " in opening


def test_the_published_values_stand_in_their_recipe() -> None:
    recipe = Recipe.load("seed_kakao")
    assert recipe.text_training is not None
    for learning in (recipe.text_training, recipe.fusion):
        assert (learning.optimizer, learning.lr, learning.warmup_share, learning.decay) == (
            "radam", 5e-5, 0.2, "linear",
        )  # fmt: skip
        assert (learning.batch, learning.epochs, learning.level_weights) == (128, 6, (1.0, 1.2, 1.3, 1.4))
    assert (recipe.fusion.dropout, recipe.text.max_tokens, recipe.text.pooling) == (0.1, 30, "pooler")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nencoders: pretrained\nlayers: 3\n", "layers: Extra inputs are not permitted"),
        ("name: x\nencoders: pretrained\nfusion: {width: 30, heads: 4}\n", "4 heads do not divide the width 30"),
        ("name: x\nencoders: scratch\n", "need text_training and image_training"),
        ("name: x\nencoders: pretrained\nfusion: {lr: -1}\n", "fusion.lr"),
        ("name: x\nencoders: pretrained\nfusion: {members: 3, tune: {text_layers: 1}}\n", "members share frozen"),
        ("name: x\nencoders: pretrained\nfusion: {batch: 4, accumulate: 8}\n", "4 cannot pass in 8 pieces"),
        ("name: x\nencoders: pretrained\ntext: {fields: [title, price]}\n", "title, brand, maker, model, not price"),
        ("name: x\nencoders: pretrained\ntext: {morphemes: true}\n", "set tokenizer to bpe"),
        ("name: x\nencoders: pretrained\ntext: {tokenizer: bpe, vocabulary: 200}\n", "at least 261 pieces"),
        (
            "name: x\nencoders: pretrained\ntext: {tokenizer: wordpiece}\n",
            "encoders: pretrained brings its tokenizer: leave out text.tokenizer, or say scratch",
        ),
        ("name: x\nencoders: pretrained\ntext: {vocabulary: 900}\n", "leave out text.vocabulary,"),
        (
            "name: x\nencoders: pretrained\ntext: {tokenizer: bpe, morphemes: true}\n",
            "leave out text.tokenizer, text.morphemes,",
        ),
        ("name: x\nencoders: pretrained\nfusion: {tune: {image_blocks: 12}}\n", "fusion.tune.image_blocks"),
        ("name: [\n", "is not YAML"),
        ("- 1\n", "valid dictionary"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        Recipe.load(path)


def test_a_recipe_as_a_report_keeps_it_is_a_recipe() -> None:
    for name in OURS:
        recipe = Recipe.load(name)
        assert Recipe.check(recipe.model_dump(mode="json"), "report.json") == recipe


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="fashion_cpu"):
        Recipe.load("fashion")


def test_single_values_change_by_dotted_keys_and_later_ones_win() -> None:
    changes = [
        "fusion.members=1",
        "fusion.lr=1e-4",
        "text.fields=[brand, title]",
        "fusion.tune.text_layers=2",
        "fusion.lr=0.5",
    ]
    recipe = Recipe.load("fashion_cpu", [*changes, "image_training={steps: 3}"])
    assert (recipe.fusion.lr, recipe.text.fields, recipe.fusion.tune.text_layers) == (0.5, ("brand", "title"), 2)
    assert recipe.image_training is not None
    assert recipe.image_training.steps == 3
    assert recipe.fusion.weight_decay == Recipe.load("fashion_cpu").fusion.weight_decay


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fusion.lr", "not key=value"),
        ("=3", "not key=value"),
        ("fusion.lr=[", "the value is not YAML"),
        ("fusion.depth=3", "fusion.depth: Extra inputs are not permitted"),
        ("fusion.lr.high=3", "fusion.lr: "),
    ],
)
def test_a_wrong_change_is_refused_in_one_sentence(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as refused:
        Recipe.load("fashion_cpu", [change])
    assert "\n" not in str(refused.value)
