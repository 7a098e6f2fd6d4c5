"""Learning on features: the loss falls, the best epoch's weights are kept, a missing modality is learned."""

import numpy as np
import pytest

from mmcat.model import ModelConfig
from mmcat.paths import PathIndex
from mmcat.taxonomy import Taxonomy
from training.errors import TrainingError
from training.features import Features
from training.fusion import Inputs, learn, logits
from training.progress import Quiet
from training.recipe import FusionRecipe

PATHS = [("a",), ("a", "x"), ("b", "x", "y"), ("b", "z", "y", "w")]
ROWS = np.arange(16)


def inputs(spoilt: bool = False) -> Inputs:
    """Sixteen rows whose features are noise: they can be learned by heart and no other way."""
    generator = np.random.default_rng(0)
    there = np.ones(16, np.bool_)
    text = generator.normal(size=(16, 16)).astype(np.float32)
    image = generator.normal(size=(16, 2048)).astype(np.float32)
    if spoilt:
        text[3] = np.nan
    return Inputs(Taxonomy.from_names(PATHS), ROWS % 4, Features(text, there), Features(image, there))


def config(fusion: str = "cross") -> ModelConfig:
    classes = tuple(map(len, Taxonomy.from_names(PATHS).classes))
    bert = {"model_type": "bert", "hidden_size": 16}
    return ModelConfig.from_json(
        ModelConfig(classes, text_encoder=bert, px=32, width=16, blocks=1, heads=2, dropout=0.0).to_json()
        | {"fusion": fusion}
    )


def recipe(**changes: float) -> FusionRecipe:
    values = {"width": 16, "blocks": 1, "heads": 2, "epochs": 40, "batch": 8, "lr": 0.01, "missing": 0.0}
    return FusionRecipe.model_validate(values | changes)


@pytest.mark.parametrize("fusion", ["cross", "concat"])
def test_the_loss_falls_and_sixteen_rows_are_learned_by_heart(fusion: str) -> None:
    data = inputs()
    learned = learn(config(fusion), data, ROWS, ROWS, recipe(), seed=0, progress=Quiet(), stage="test")
    assert learned.losses[-1] < 0.1 * learned.losses[0]
    assert max(learned.accuracies) == 1.0


def test_the_weights_are_those_of_the_best_epoch_and_not_of_the_last() -> None:
    data, select = inputs(), ROWS[8:]  # rows that cannot be learned: their accuracy wanders
    runs = (
        learn(config(), data, ROWS[:8], select, recipe(epochs=8), seed=seed, progress=Quiet(), stage="test")
        for seed in range(20)
    )
    learned = next(run for run in runs if run.accuracies[-1] < max(run.accuracies))
    answers = PathIndex(data.taxonomy).scores(logits(learned.model, data, select)).argmax(axis=1)
    assert (answers == data.targets[select]).mean() == pytest.approx(max(learned.accuracies))
    assert learned.best_epoch is not None
    assert learned.accuracies[learned.best_epoch - 1] == max(learned.accuracies)


def test_with_modality_dropout_a_withheld_photo_costs_less() -> None:
    data = inputs()
    index = PathIndex(data.taxonomy)
    right = []
    for missing in (0.0, 0.5):
        learned = learn(config(), data, ROWS, ROWS, recipe(missing=missing), seed=0, progress=Quiet(), stage="test")
        answers = index.scores(logits(learned.model, data, ROWS, "image")).argmax(axis=1)
        right.append(float((answers == data.targets).mean()))
    assert right[1] > right[0]


def test_a_loss_that_is_no_number_stops_with_a_sentence() -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        learn(config(), inputs(spoilt=True), ROWS, ROWS, recipe(), seed=0, progress=Quiet(), stage="test")
