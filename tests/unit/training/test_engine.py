"""The loop: pieces add up to the batch, the best epoch wins, what is told, and what stops a run."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmcat.model import CategoryModel
from tests.unit.training.by_heart import ROWS, STEPS_PER_EPOCH, config, inputs, learned, recipe
from training.errors import TrainingError
from training.fusion import learn
from training.optimisation import RAdam, lr_share, optimizer
from training.order import Order
from training.progress import Quiet
from training.recipe import Learning, Recipe
from training.task import Keep
from training.weights import Average, train_mode


class Heard(Quiet):
    """Remembers what was said, and the last note."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        self.notes.append(note)

    def say(self, line: str) -> None:
        self.lines.append(line)


def weights(model: CategoryModel) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_batch_in_pieces_teaches_what_it_teaches_whole() -> None:
    whole, parts = (learned(recipe(epochs=3, accumulate=pieces, missing=0.3)).model for pieces in (1, 3))
    assert torch.allclose(weights(whole), weights(parts), atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_gives_another() -> None:
    one, two, other = (weights(learned(recipe(epochs=3), seed=seed, dropout=0.2).model) for seed in (0, 0, 1))
    assert one.equal(two)
    assert not one.equal(other)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    learned(recipe(epochs=1), dropout=0.2)
    assert torch.equal(torch.rand(3), expected)


def test_a_run_stops_when_select_has_not_improved_for_its_patience() -> None:
    fitted = learned(recipe(epochs=60, patience=3)).fitted
    best = max(range(len(fitted.accuracies)), key=lambda epoch: (fitted.accuracies[epoch], epoch))
    assert len(fitted.accuracies) in (best + 4, 60)
    assert fitted.best_epoch == best + 1


def test_without_patience_no_epoch_is_counted_and_the_last_weights_stay() -> None:
    assert learned(recipe(epochs=2, patience=None)).fitted.accuracies == ()


def test_a_loss_that_is_no_number_stops_with_a_sentence_that_names_the_step() -> None:
    data = inputs(spoilt=True)
    with pytest.raises(TrainingError, match=r"step [12] of 80: lower the learning rate"):
        learn(config(), data, ROWS, ROWS, recipe(), seed=0, progress=Quiet(), stage="test")


def test_fewer_steps_than_the_recipe_calls_enough_are_warned_of() -> None:
    heard = Heard()
    learned(recipe(epochs=2, enough_steps=1_000), progress=heard)
    learned(recipe(epochs=2, enough_steps=5), progress=heard)
    learned(recipe(epochs=2, enough_steps=4), progress=heard)
    warning = "by heart: only 4 optimiser steps: under {} a network rarely gets far"
    assert heard.lines == [warning.format("1,000"), warning.format("5")]


def test_our_recipe_for_a_cpu_warns_of_fewer_steps_than_it_was_measured_with() -> None:
    whole = Recipe.load("fashion_cpu").fusion
    assert whole.enough_steps == whole.epochs * Order(np.arange(6_174), whole.batch, 0).steps_per_pass
    heard = Heard()
    learned(recipe(epochs=2, enough_steps=whole.enough_steps), progress=heard)
    assert heard.lines == ["by heart: only 4 optimiser steps: under 784 a network rarely gets far"]


def test_the_progress_line_tells_loss_rate_and_time_left() -> None:
    heard = Heard()
    learned(recipe(epochs=2), progress=heard)
    assert any("loss" in note and "rows/s" in note and "left" in note for note in heard.notes)


def test_every_few_steps_and_every_epoch_leave_a_json_line(tmp_path: Path) -> None:
    learned(recipe(epochs=3), keep=Keep(logs=tmp_path))
    records = [json.loads(line) for line in (tmp_path / "by-heart.jsonl").read_text().splitlines()]
    assert records[0]["stage"] == "by heart"
    assert [record["step"] for record in records if "lr" in record] == [2, 4, 6]
    assert [record["epoch"] for record in records if "select_path_accuracy" in record] == [1, 2, 3]
    assert {"loss", "rows_per_s", "loading_share", "left_s"} < records[1].keys()


def test_curves_go_to_tensorboard(tmp_path: Path) -> None:
    learned(recipe(epochs=2), keep=Keep(logs=tmp_path, trackers=("tensorboard",)))
    events = [file for file in tmp_path.rglob("events.out.tfevents.*") if b"select_path_accuracy" in file.read_bytes()]
    assert len(events) == 1


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_learning_rate_rises_in_a_line_and_falls_to_nothing(decay: str) -> None:
    learning = Learning.model_validate({"warmup_share": 0.2, "decay": decay})
    shares = [lr_share(step, 100, learning) for step in range(101)]
    assert shares[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert shares[20] == 1.0
    assert shares[20:] == sorted(shares[20:], reverse=True)
    assert shares[60] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0.0)


def test_vectors_do_not_decay_and_each_part_has_its_own_rate() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    learning = Learning(weight_decay=0.5, optimizer="radam")
    groups = optimizer(network, learning, lambda name: 0.1 if name.startswith("0") else 1.0).param_groups
    assert {(group["lr_share"], group["weight_decay"], len(group["params"])) for group in groups} == {
        (0.1, 0.5, 1), (0.1, 0.0, 1), (1.0, 0.0, 2),
    }  # fmt: skip


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3])
def test_radam_goes_where_pytorchs_own_goes(size: float, decay: float) -> None:
    """From the first steps, which are not rectified, on; gradients small and large, and a rate that changes."""
    torch.manual_seed(0)
    start, way = torch.randn(40), torch.randn(40) * size
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = RAdam([ours], lr=0.1, weight_decay=decay, fused=True)
    reference = torch.optim.RAdam([theirs], lr=0.1, weight_decay=decay, decoupled_weight_decay=True)
    for step in range(20):
        for weights, optimiser in ((ours, mine), (theirs, reference)):
            optimiser.param_groups[0]["lr"] = 0.1 / (step + 1)
            weights.grad = way * math.cos(0.3 * step)
            optimiser.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert mine.param_groups[0]["eps"] == reference.param_groups[0]["eps"]
    assert mine.param_groups[0]["weight_decay"] == decay


def test_what_is_frozen_stays_in_eval_mode() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    network[0].requires_grad_(False)
    train_mode(network)
    assert [module.training for module in network] == [False, True]
    assert not network[0][1].training  # type: ignore[index]  # torch types items as modules


def test_the_average_follows_slowly_and_stands_in_only_for_a_while() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.75)
    nn.init.ones_(network.weight)
    average.follow()
    average.follow()
    with average.in_place():
        assert network.weight.item() == pytest.approx(1 - 0.75**2)
    assert network.weight.item() == 1.0


def test_an_epoch_sees_every_row_once() -> None:
    assert len(ROWS) == STEPS_PER_EPOCH * recipe().batch


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TrainingError, match=r"pip install 'mmcat\[mlflow\]'"):
        learned(recipe(epochs=1), keep=Keep(logs=tmp_path, trackers=("mlflow",)))
