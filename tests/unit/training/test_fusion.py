"""Learning on features: the loss falls, the best epoch's weights are kept, missing modalities and views are learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmcat.paths import PathIndex
from mmcat.taxonomy import Taxonomy
from tests.unit.training.by_heart import COUNT, PATHS, ROWS, config, inputs, learned, recipe
from training.features import Features
from training.fusion import Inputs, learn, logits
from training.order import DICE, IMAGE_VIEW
from training.progress import Quiet


@pytest.mark.parametrize("fusion", ["cross", "concat"])
def test_the_loss_falls_and_sixteen_rows_are_learned_by_heart(fusion: str) -> None:
    data = inputs()
    fitted = learn(config(fusion), data, ROWS, ROWS, recipe(), seed=0, progress=Quiet(), stage="test").fitted
    assert fitted.losses[-1] < 0.1 * fitted.losses[0]
    assert max(fitted.accuracies) == 1.0


def test_the_weights_are_those_of_the_best_epoch_and_not_of_the_last() -> None:
    data, select = inputs(), ROWS[8:]  # rows that cannot be learned: their accuracy wanders
    runs = (
        learn(config(), data, ROWS[:8], select, recipe(epochs=8), seed=seed, progress=Quiet(), stage="test")
        for seed in range(20)
    )
    run = next(run for run in runs if run.fitted.accuracies[-1] < max(run.fitted.accuracies))
    answers = PathIndex(data.taxonomy).scores(logits(run.model, data, select)).argmax(axis=1)
    assert (answers == data.targets[select]).mean() == pytest.approx(max(run.fitted.accuracies))
    assert run.fitted.best_epoch is not None
    assert run.fitted.accuracies[run.fitted.best_epoch - 1] == max(run.fitted.accuracies)


def test_members_are_learned_apart_and_answer_by_the_mean_of_their_log_probabilities() -> None:
    data, few = inputs(), recipe(epochs=3)

    def answers(members: int, seed: int) -> list[np.ndarray]:
        shape = replace(config(), members=members)
        model = learn(shape, data, ROWS, ROWS, few, seed=seed, progress=Quiet(), stage="test").model
        return logits(model, data, ROWS)

    together, first, second = answers(2, 0), answers(1, 0), answers(1, 1_000)
    for both_NC, one_NC, other_NC in zip(together, first, second, strict=True):
        apart = [torch.log_softmax(torch.from_numpy(each), dim=-1) for each in (one_NC, other_NC)]
        assert both_NC == pytest.approx(((apart[0] + apart[1]) / 2).numpy(), abs=1e-5)
        assert not np.allclose(one_NC, other_NC, atol=0.1)


def test_with_modality_dropout_a_withheld_photo_costs_less() -> None:
    data = inputs()
    index = PathIndex(data.taxonomy)
    right = []
    for missing in (0.0, 0.5):
        model = learned(recipe(missing=missing)).model
        answers = index.scores(logits(model, data, ROWS, "image")).argmax(axis=1)
        right.append(float((answers == data.targets).mean()))
    assert right[1] > right[0]


def _views() -> Features:
    """Three views of each row that say which they are: the row's number and the view's, as often as view + 1."""
    vectors = [[row, view] for row in range(COUNT) for view in range(3) for _ in range(view + 1)]
    lengths = np.tile(np.array([1, 2, 3], np.int32), (COUNT, 1))
    starts = np.cumsum(lengths).reshape(COUNT, 3) - lengths
    there = np.ones(COUNT, np.bool_)
    return Features(np.array(vectors, np.float32), there, starts.astype(np.int64), lengths, views=3)


def test_each_row_is_taken_in_the_view_that_its_chance_names() -> None:
    data = Inputs(Taxonomy.from_names(PATHS), ROWS % 4, _views(), _views())
    rows, dice = np.array([5, 1, 7, 2]), np.zeros((4, DICE))
    dice[:, IMAGE_VIEW] = (0.99, 0.0, 0.5, 0.34)
    image_BND = data.take(rows, config(), dice)["image_BND"]
    assert image_BND is not None
    assert image_BND[:, 0].tolist() == [[5, 2], [1, 0], [7, 1], [2, 1]]
    assert image_BND[1, 1:].eq(0).all()  # padded to the longest
    text_BTD = data.take(rows, config())["text_BTD"]  # without dice: what serving sees
    assert text_BTD is not None
    assert text_BTD.tolist() == [[[5, 0]], [[1, 0]], [[7, 0]], [[2, 0]]]
