"""A whole comparison on a tiny data set: resumed where it was stopped, chosen on `select`, told in tables."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mmcat.paths import PathIndex
from tests.unit.training.small import jpeg, small_recipe, write_encoders, write_folder
from training import features, fusion_step, splits, store, task
from training.compare.kept import Arrays, Kept
from training.compare.learners import FeatureLearner, feature_learner
from training.compare.plan import Plan, Variant
from training.compare.runs import Runs, run
from training.compare.standings import Judge, Standing
from training.compare.tables import write_comparison
from training.data import Dataset
from training.errors import RecipeError
from training.figures.bootstrap import mean_interval
from training.progress import Quiet
from training.readers.folder import read_folder
from training.recipe import Tune
from training.splits import Split

PLAN = Plan(models=("text", "image", "concat", "late", "flat", "cross"), blocks=(1, 2), seeds=2, part="test")


class Looks:
    """Remembers who looked at the test part."""

    def __init__(self) -> None:
        self.purposes: list[str] = []

    def __call__(
        self,
        dataset: Dataset,
        split: Split,
        *,
        recipe: Mapping[str, Any],
        model: str,
        purpose: str,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self.purposes.append(purpose)


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> FeatureLearner:
    root = tmp_path_factory.mktemp("compare")
    recipe = small_recipe().model_copy(update={"baselines": True})
    recipe = recipe.model_copy(update={"fusion": recipe.fusion.model_copy(update={"epochs": 4})})
    dataset = read_folder(write_folder(root / "small"))
    return feature_learner(
        dataset, recipe, encoders=write_encoders(root / "encoders"), cache=root / "cache", progress=Quiet()
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def runs(learner: FeatureLearner, kept: Kept) -> Runs:
    return run(PLAN, learner, kept, Quiet(), Looks())


class Counting:
    """A learner that counts what it is asked to train."""

    def __init__(self, learner: FeatureLearner) -> None:
        self._learner, self.trained = learner, list[tuple[str, int]]()
        self.dataset, self.split, self.recipe = learner.dataset, learner.split, learner.recipe

    def facts(self, variant: Variant | None) -> Mapping[str, Any]:
        return self._learner.facts(variant)

    def there(self, part: str) -> Mapping[str, Any]:
        return self._learner.there(part)

    def learn(self, variant: Variant, seed: int, parts: tuple[str, ...]) -> Arrays:
        self.trained.append((variant.name, seed))
        if len(self.trained) == 3:
            raise KeyboardInterrupt
        return self._learner.learn(variant, seed, parts)

    def plain(self, part: str) -> Arrays:
        return self._learner.plain(part)


def test_a_comparison_that_was_stopped_goes_on_from_the_next_run(learner: FeatureLearner, tmp_path: Path) -> None:
    plan, counting = Plan(models=("text", "concat"), seeds=2), Counting(learner)
    with pytest.raises(KeyboardInterrupt):
        run(plan, counting, Kept(tmp_path), Quiet(), Looks())
    run(plan, counting, Kept(tmp_path), Quiet(), Looks())
    assert counting.trained == [("text", 0), ("text", 1), ("concat", 0), ("concat", 0), ("concat", 1)]
    run(plan, counting, Kept(tmp_path), Quiet(), Looks())
    assert len(counting.trained) == 5
    fusion = learner.recipe.fusion.model_copy(update={"lr": 0.02})
    pooled = learner.materials["pooled"]
    step = replace(pooled.step, recipe=learner.recipe.model_copy(update={"fusion": fusion}))
    changed = replace(pooled, step=step)
    again = Counting(replace(learner, materials={"pooled": changed}))
    with pytest.raises(KeyboardInterrupt):
        run(plan, again, Kept(tmp_path), Quiet(), Looks())
    assert again.trained[0] == ("text", 0)


def test_other_features_are_other_runs_and_the_same_are_the_same(learner: FeatureLearner, tmp_path: Path) -> None:
    encoders, recipe = write_encoders(tmp_path / "encoders"), learner.recipe
    folder = write_folder(tmp_path / "small", zipped=False)
    (folder / "photos" / "p5.jpg").write_bytes(jpeg((1, 2, 3), 5))

    def made(dataset: Dataset, **changes: Any) -> FeatureLearner:
        changed = recipe.model_copy(update=changes)
        return feature_learner(dataset, changed, encoders=encoders, cache=tmp_path / "cache", progress=Quiet())

    same = made(learner.dataset)
    others = {
        "views": made(learner.dataset, photo=recipe.photo.model_copy(update={"views": 2})),
        "precision": made(learner.dataset, features="fp16"),
        "photos": made(read_folder(folder)),
    }
    for variant in (Variant("cross"), None):
        assert same.facts(variant) == learner.facts(variant)
        assert not [name for name, other in others.items() if other.facts(variant) == learner.facts(variant)]


@pytest.mark.parametrize("module", [features, fusion_step, splits, store, task])
def test_other_code_that_learns_makes_other_runs(
    module: ModuleType, learner: FeatureLearner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, changed = learner.facts(Variant("cross")), tmp_path / "changed.py"
    changed.write_text(Path(str(module.__file__)).read_text() + "# changed\n")
    monkeypatch.setattr(module, "__file__", str(changed))
    assert learner.facts(Variant("cross")) != before


def test_where_the_recipe_tunes_every_run_tunes_encoders_of_its_own(learner: FeatureLearner) -> None:
    """What it answers is its own, another seed's is another, and what all variants share is as it was."""
    pooled = learner.materials["pooled"]
    tune = Tune(image_blocks=1, text_layers=1, lr_scale=1.0, views=2)
    fusion = pooled.recipe.fusion.model_copy(update={"tune": tune, "epochs": 1})
    recipe = pooled.recipe.model_copy(update={"fusion": fusion})
    tuned = replace(learner, materials={"pooled": replace(pooled, step=replace(pooled.step, recipe=recipe))})
    before = {name: value.clone() for name, value in pooled.encoders.model.state_dict().items()}
    for model in ("text", "cross"):
        first, again, other = (tuned.learn(Variant(model), seed, ("select",)) for seed in (0, 0, 1))
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert not np.array_equal(first["select.0"], other["select.0"])
    assert all(bool((value == before[name]).all()) for name, value in pooled.encoders.model.state_dict().items())
    assert tuned.facts(Variant("cross")) != learner.facts(Variant("cross"))


def test_an_encoder_that_is_not_tuned_is_not_run_again(learner: FeatureLearner) -> None:
    class Stages(Quiet):
        def __init__(self) -> None:
            self.begun: list[str] = []

        def begin(self, stage: str, total: int) -> None:
            self.begun.append(stage)

    pooled, stages = learner.materials["pooled"], Stages()
    fusion = pooled.recipe.fusion.model_copy(update={"tune": Tune(image_blocks=1, views=2), "epochs": 1})
    step = replace(pooled.step, recipe=pooled.recipe.model_copy(update={"fusion": fusion}), progress=stages)
    replace(learner, materials={"pooled": replace(pooled, step=step)}).learn(Variant("cross"), 0, ("select",))
    told = [stage.split(" (")[0] for stage in stages.begun]
    assert told == ["cross, seed 0", "photo features"]


def test_pooled_and_sequence_keys_stand_in_one_comparison(tmp_path: Path) -> None:
    recipe = small_recipe()
    fusion, photo = recipe.fusion.model_copy(update={"epochs": 2}), recipe.photo.model_copy(update={"px": 64})
    plan = Plan(models=("concat", "cross"), keys=("pooled", "sequence"), seeds=1)
    learner = feature_learner(
        read_folder(write_folder(tmp_path / "small")),
        recipe.model_copy(update={"fusion": fusion, "photo": photo}),
        keys=plan.keys,
        encoders=write_encoders(tmp_path / "encoders"),
        cache=tmp_path / "cache",
        progress=Quiet(),
    )
    runs = run(plan, learner, Kept(tmp_path / "runs"), Quiet(), Looks())
    assert [one.name for one in Judge(runs).standings()] == ["concat", "cross, pooled", "cross, sequence"]
    pooled, sequence = (learner.materials[one].inputs.image for one in plan.keys)
    assert pooled is not None
    assert sequence is not None
    rows = np.arange(3)
    assert pooled.take(rows)[0].shape == (3, 1, 3072)
    assert sequence.take(rows)[0].shape == (3, 5, 2048), "four cells, and layer3 in front of them"
    assert learner.recipe.fusion.keys == "pooled", "other models read what is named first"


def test_a_learning_curve_learns_from_less_in_as_many_steps(learner: FeatureLearner) -> None:
    plan = Plan(models=("text", "cross"), train_shares=(0.5, 1.0), seeds=1)
    assert [one.name for one in plan.trained] == [
        "text, 0.5 of train", "text, 1 of train", "cross, 0.5 of train", "cross, 1 of train",
    ]  # fmt: skip
    whole = learner.materials["pooled"].step
    half = whole.of_share(0.5)
    assert 0 < len(half.train_rows) < len(whole.train_rows)
    assert half.recipe.fusion.epochs == 2 * whole.recipe.fusion.epochs
    assert whole.recipe.fusion.patience is not None
    assert half.recipe.fusion.patience == 2 * whole.recipe.fusion.patience, "else it would stop in fewer steps"
    patient = whole.recipe.fusion.model_copy(update={"patience": None})
    unstopped = replace(whole, recipe=whole.recipe.model_copy(update={"fusion": patient})).of_share(0.3)
    assert (unstopped.recipe.fusion.epochs, unstopped.recipe.fusion.patience) == (14, None)
    parts = ("select",)
    learned = {share: learner.learn(Variant("cross", share=share), 0, parts) for share in (None, 0.5, 1.0)}
    assert np.array_equal(learned[None]["select.0"], learned[1.0]["select.0"]), "all of it is what is learned without"
    assert not np.array_equal(learned[None]["select.0"], learned[0.5]["select.0"])
    assert learner.facts(Variant("cross", share=0.5)) != learner.facts(Variant("cross"))


def test_encoders_that_saw_all_of_train_have_no_learning_curve(learner: FeatureLearner) -> None:
    material = learner.materials["pooled"]
    scratch = replace(material.step, recipe=material.recipe.model_copy(update={"encoders": "scratch"}))
    started = replace(learner, materials={"pooled": replace(material, step=scratch)})
    with pytest.raises(RecipeError, match="a learning curve needs encoders that come trained"):
        started.learn(Variant("cross", share=0.5), 0, ("select",))


def test_a_file_cut_off_half_way_is_made_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    made, was_there = kept.get({"seed": 1}, lambda: {"a": np.arange(3)})
    assert not was_there
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-8])
    again, was_there = kept.get({"seed": 1}, lambda: {"a": np.arange(3)})
    assert not was_there
    assert (again["a"] == made["a"]).all()
    assert kept.get({"seed": 1}, dict)[1]


def test_a_look_at_the_test_part_is_told_and_no_other(learner: FeatureLearner, kept: Kept, runs: Runs) -> None:
    looks = Looks()
    run(PLAN, learner, kept, Quiet(), looks)
    assert len(looks.purposes) == 1
    assert "cross, 2 blocks over 2 seeds" in looks.purposes[0]
    run(PLAN.model_copy(update={"part": "select"}), learner, kept, Quiet(), looks)
    assert len(looks.purposes) == 1


def test_the_tables_say_every_model_and_every_difference(runs: Runs, tmp_path: Path) -> None:
    text = write_comparison(runs, tmp_path / "out")
    for name in (
        "text",
        "image",
        "concat",
        "late",
        "flat",
        "cross, 1 block",
        "cross, 2 blocks",
        "plain title_and_photo",
    ):
        assert f"| {name} |" in text
    for said in (
        "best rival",
        "best single",
        "best plain",
        "four argmaxes",
        "photo withheld − text",
        "±",
        "smallest",
        "together",
    ):
        assert said in text
    assert (tmp_path / "out" / "comparison.md").read_text() == text
    for plot in ("path-accuracy.svg", "differences.svg"):
        assert "cross, 1 block" in (tmp_path / "out" / plot).read_text()


def test_figures_are_those_of_the_kept_logits(runs: Runs) -> None:
    judge = Judge(runs)
    concat = next(one for one in judge.standings() if one.name == "concat")
    dataset = runs.learner.dataset
    targets = dataset.targets[runs.learner.split.rows("test", dataset)]
    assert [metrics.path_accuracy for metrics in concat.metrics] == [right.mean() for right in concat.right]
    assert concat.interval.value == pytest.approx(np.mean([right.mean() for right in concat.right]))
    assert len(concat.right[0]) == len(targets) == len(judge.groups)
    assert set(concat.withheld) == {"image", "text"}


def test_seeds_together_answer_by_the_mean_of_their_log_probabilities(runs: Runs) -> None:
    judge = Judge(runs)
    (together,) = [one for one in judge.together() if one.name == "concat"]
    index, rows = PathIndex(runs.learner.dataset.taxonomy), runs.learner.split.rows("test", runs.learner.dataset)
    scores = np.zeros((len(rows), len(runs.learner.dataset.taxonomy)))
    for seed in range(2):
        scores += index.scores([runs.learned[Variant("concat"), seed][f"test.{level}"] for level in range(4)])
    assert (together.right[0] == (scores.argmax(axis=1) == runs.learner.dataset.targets[rows])).all()
    assert len(together.right) == 1


def test_rivals_are_chosen_on_select_whatever_the_measured_part_says(runs: Runs) -> None:
    judge = Judge(runs)

    def standing(name: str, select: float, right: bool, crosses: bool = False) -> Standing:
        hits = np.full(len(judge.groups), right)
        return Standing(name, (select,), (hits,), mean_interval(hits, judge.groups), crosses=crosses)

    found = judge.differences(
        [
            standing("cross, 1 block", 0.9, False, crosses=True),
            standing("cross, 2 blocks", 0.1, True, crosses=True),
            standing("concat", 0.8, False),
            standing("late", 0.7, True),
            standing("flat", 0.95, False),
        ],
        [standing("plain photo", 0.5, True)],
    )
    assert {one.ours for one in found} == {"cross, 1 block"}
    roles = {one.theirs: one.role for one in found}
    assert (roles["concat"], roles["late"], roles["plain photo"]) == ("best rival", "", "best plain")
    assert {one.theirs: one.interval.value for one in found}["late"] == -1.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"models": ["crss"]}, "each once of text, image"),
        ({"models": ["text", "text"]}, "each once of"),
        ({"blocks": [13]}, "blocks"),
        ({"seeds": 0}, "seeds"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_sentence(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Plan.check(data, "plan.yaml")
    assert "\n" not in str(caught.value)


def test_a_plan_reads_from_yaml_and_crosses_blocks_with_heads(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("models: [late, cross]\nblocks: [1, 2]\nheads: [1, 4]\nseeds: 3\n")
    plan = Plan.load(tmp_path / "plan.yaml")
    assert [variant.name for variant in plan.trained] == [
        "cross, 1 block, 1 head", "cross, 1 block, 4 heads", "cross, 2 blocks, 1 head", "cross, 2 blocks, 4 heads",
        "text", "image",
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="cannot be read"):
        Plan.load(tmp_path / "none.yaml")
