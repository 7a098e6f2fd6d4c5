"""A trained model with all that must travel with it, as a bundle: figures, the tail, label noise, reference histograms.

After calibrate.py and evaluate.py; before mmcat.bundle, which writes it. Called by train.py.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat import bundle
from mmcat.calibration import Calibration, seen_of
from mmcat.listing import ImageStatus
from mmcat.model import CategoryModel
from mmcat.reference import Reference
from training.data import Dataset
from training.features import Features
from training.figures.accuracy import accuracy_by_training_rows
from training.figures.answers import Answers, answer_chunks
from training.fusion import Inputs, Rows, Withheld, logits_by_chunk
from training.label_noise import label_note
from training.splits import Split
from training.steps import Encoders


def export(
    folder: Path,
    *,
    trained: Encoders,
    model: CategoryModel,
    dataset: Dataset,
    split: Split,
    inputs: Inputs,
    calibration: Calibration,
    metrics: Mapping[str, Any],
    name: str,
) -> str:
    """Writes the bundle and gives its fingerprint.

    Args:
        model: fusion and heads; the encoders of `trained` join it.
        metrics: for the model card and bundle.json.
    """
    rows = split.rows("calibrate", dataset)
    return bundle.write(
        folder,
        model=trained.attach(model),
        tokenizer=trained.tokenizer if model.config.reads_text else None,
        taxonomy=dataset.taxonomy,
        preprocessing=trained.preprocessing,
        calibration=calibration,
        name=name,
        metrics=metrics,
        split_fingerprint=split.fingerprint,
        data_note=dataset.note,
        created_ms=int(time.time() * 1000),
        label_note=label_note(dataset),
        reference=reference(model, inputs, calibration, dataset, rows) if len(rows) else None,
    )


def reference(
    model: CategoryModel, inputs: Inputs, calibration: Calibration, dataset: Dataset, rows: Rows
) -> Reference:
    """Histograms of what the service would answer to these rows."""
    answers = answers_as_served(model, inputs, calibration, rows)
    image = inputs.image if model.config.reads_image else None
    return Reference.of(
        dataset.taxonomy, answers.rows, answers.probabilities, [_photo(dataset, image, row) for row in rows.tolist()]
    )


def answers_as_served(
    model: CategoryModel, inputs: Inputs, calibration: Calibration, rows: Rows, withhold: Withheld | None = None
) -> Answers:
    """Answers with the temperature of what each listing comes with, as `Categorizer` gives them.

    Args:
        withhold: a modality that is taken away from all rows.
    """

    def temperatures(some: Rows) -> npt.NDArray[np.float64]:
        there = {}
        for name, one in (("text", inputs.text), ("image", inputs.image)):
            seen = one is not None and name != withhold and (name == "text" or model.config.reads_image)
            there[name] = one.there[some] if one is not None and seen else np.zeros(len(some), np.bool_)
        pairs = zip(there["text"].tolist(), there["image"].tolist(), strict=True)
        return np.array([calibration.temperature(seen_of(*pair)) for pair in pairs], np.float64)

    chunks = logits_by_chunk(model, inputs, rows, withhold)
    return answer_chunks(((chunk, temperatures(some)) for some, chunk in chunks), len(rows), inputs.taxonomy)


def training_counts(dataset: Dataset, split: Split) -> Rows:
    """[P] rows of each path in the training part."""
    counts: Rows = np.bincount(dataset.targets[split.rows("train", dataset)], minlength=len(dataset.taxonomy))
    return counts


def by_training_rows(answers: Answers, targets: Rows, counts: Rows) -> list[tuple[str, int, float | None]]:
    """Path accuracy by the number of training rows that the true path has, the tail first; see figures/accuracy.py."""
    return [
        (label, rows, None if share is None else round(share, 4))
        for label, rows, share in accuracy_by_training_rows(answers.rows == targets, targets, counts)
    ]


def _photo(dataset: Dataset, image: Features | None, row: int) -> ImageStatus:
    """What becomes of a row's photo in serving; a model that does not read photos does not look at them."""
    if image is None or dataset.rows[row].photo is None:
        return ImageStatus.ABSENT
    return ImageStatus.USED if image.there[row] else ImageStatus.UNDECODABLE
