"""The loss equals the plain one where nothing is asked for, and slow references where something is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcat.model import LEVEL_WEIGHTS, loss
from training.losses import LevelLoss
from training.recipe import Learning

CLASSES = (3, 4, 2, 2)
CPU = torch.device("cpu")


def sample(rows: int = 9) -> tuple[list[Tensor], np.ndarray]:
    generator = np.random.default_rng(0)
    targets_B4 = np.stack([generator.integers(-1, count, rows) for count in CLASSES], axis=1)
    targets_B4[:, 3] = -1  # a level that no row has
    return [torch.from_numpy(generator.normal(size=(rows, count))).float() for count in CLASSES], targets_B4


def test_without_wishes_it_is_the_models_loss() -> None:
    logits, targets = sample()
    ours, targets_B4 = LevelLoss(Learning(), CLASSES, targets, CPU), torch.from_numpy(targets)
    assert torch.allclose(ours(logits, targets_B4, ours.mass(targets_B4)), loss(logits, targets_B4))


@pytest.mark.parametrize("tail", ["none", "class_balanced", "logit_adjusted"])
def test_the_parts_of_a_batch_add_up_to_the_loss_of_the_whole(tail: str) -> None:
    logits, targets = sample()
    learning = Learning.model_validate({"tail": tail, "label_smoothing": 0.1})
    ours, targets_B4 = LevelLoss(learning, CLASSES, targets, CPU), torch.from_numpy(targets)
    mass_4 = ours.mass(targets_B4)
    parts = [ours([one[some] for one in logits], targets_B4[some], mass_4) for some in (slice(0, 2), slice(2, 9))]
    assert torch.allclose(torch.stack(parts).sum(), ours(logits, targets_B4, mass_4))


def test_smoothed_labels_are_spread_over_all_classes_of_the_level() -> None:
    logits, targets = sample()
    ours, targets_B4 = LevelLoss(Learning(label_smoothing=0.2), CLASSES, targets, CPU), torch.from_numpy(targets)
    slow = torch.zeros(())
    for level, weight in enumerate(LEVEL_WEIGHTS[:3]):
        rows = [row for row in range(len(targets)) if targets[row, level] >= 0]
        for row in rows:
            log_C = logits[level][row].log_softmax(-1)
            slow = slow - weight * (0.8 * log_C[targets[row, level]] + 0.2 * log_C.mean()) / len(rows)
    assert torch.allclose(ours(logits, targets_B4, ours.mass(targets_B4)), slow)


def test_adjusted_logits_are_those_plus_the_log_of_the_classes_shares() -> None:
    logits, targets = sample()
    counts = np.array([6.0, 2.0, 1.0])
    targets[:, 0], targets[:, 1:] = np.repeat([0, 1, 2], [6, 2, 1]), -1
    ours = LevelLoss(Learning(tail="logit_adjusted", tail_tau=0.5), CLASSES, targets, CPU)
    shifted = logits[0] + 0.5 * torch.from_numpy(np.log(counts / 9)).float()
    targets_B4 = torch.from_numpy(targets)
    assert torch.allclose(ours(logits, targets_B4, ours.mass(targets_B4)), F.cross_entropy(shifted, targets_B4[:, 0]))


def test_a_class_of_few_rows_weighs_more_by_its_effective_number() -> None:
    logits, targets = sample()
    targets[:, 0], targets[:, 1:] = np.repeat([0, 1, 2], [6, 2, 1]), -1
    ours = LevelLoss(Learning(tail="class_balanced", tail_beta=0.9), CLASSES, targets, CPU)
    weight_C = torch.tensor([(1 - 0.9) / (1 - 0.9**count) for count in (6, 2, 1)])
    targets_B4 = torch.from_numpy(targets)
    expected = F.cross_entropy(logits[0], targets_B4[:, 0], weight=weight_C)
    assert torch.allclose(ours(logits, targets_B4, ours.mass(targets_B4)), expected)
    assert weight_C[2] > weight_C[0]
