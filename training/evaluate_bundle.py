"""All that can be said of one bundle on one part of a data set: figures, intervals, missing modalities, mistakes.

    bundle + data set ─> features (cached) ─> logits of the part ─> figures ─> Evaluation ─> pages/, JSON, contest CSV
    bundle + chunks without categories ─> features ─> answers ─> Predicted ─> contest CSV

The threshold for a precision comes from the calibration part and is tried on the part that is looked at. Whoever looks
at the test part says so through `on_test_look` first.

After evaluate.py and the bundle; before pages/evaluation.py. `evaluate_folder`, `evaluate_shop` and `predict_chunks`
are what the program calls.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcat import bundle as bundles
from mmcat.bundle import LoadedBundle
from training.data import Dataset
from training.errors import DataError, TrainingError
from training.evaluate import Metrics, measure_answers
from training.export import answers_as_served, by_training_rows, training_counts
from training.features import FeatureCache
from training.figures.accuracy import whole_path_right
from training.figures.answers import Answers
from training.figures.bootstrap import Interval, mean_interval, paired_difference
from training.figures.confidence import Accepted, accepted_at, threshold_for
from training.figures.confusions import where_answers_leave
from training.fusion import Inputs, Rows, Withheld
from training.progress import Progress, chunks
from training.readers.read import read_chunks, read_listings
from training.readers.shop import shop_dataset
from training.report import Report
from training.rows import group_members
from training.shop.shop import ShopConfig
from training.splits import NO_TEST, SHARES, Split, frozen_split
from training.train import SHOP_LISTINGS

Part = Literal["select", "calibrate", "test"]
PRECISION = 0.98
_ANSWERED = 65_536  # rows: a gigabyte of logits where there are 4,000 categories
FRESH_LISTINGS = 2_000  # of the shop's demo, unless told otherwise: a standard error of one point


class OnTestLook(Protocol):
    """Called before the truth of the test part is looked at."""

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
        """Says so.

        Args:
            recipe: as JSON.
            model: names whose answers are measured.
            purpose: says what for.
            shares: of the split's parts; None: the usual ones.
        """


@dataclass(frozen=True)
class Evaluation:
    """One bundle on one part.

    Args:
        rows: numbers of the rows of `dataset` that were looked at; answers and `right` are in their order.
        inputs: features of all rows of `dataset`.
        path_accuracy: with its interval over groups.
        decode_gain: best existing path minus four answers of their own.
        withheld: figures with the photo ("image") or the title ("text") withheld, for bundles that read both.
        accepted: at the threshold that gives PRECISION on the calibration part.
        by_training_rows: (training rows of the true path, rows here, path accuracy).
        leaves: where wrong answers leave the true path, as shares of all rows.
        configuration: what was run: bundle, data, split, recipe.
    """

    bundle: LoadedBundle
    dataset: Dataset
    split: Split
    part: Part
    rows: Rows
    inputs: Inputs
    answers: Answers
    right: npt.NDArray[np.bool_]
    metrics: Metrics
    path_accuracy: Interval
    decode_gain: Interval
    withheld: Mapping[str, Metrics]
    accepted: Accepted
    by_training_rows: list[tuple[str, int, Any]]
    leaves: Mapping[str, float]
    configuration: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        threshold = self.accepted.threshold
        return {
            "part": self.part,
            **self.metrics.to_json(),
            "path_accuracy_interval": asdict(self.path_accuracy),
            "decode_minus_argmax": asdict(self.decode_gain),
            "withheld": {name: metrics.to_json() for name, metrics in self.withheld.items()},
            "at_precision": {
                "wanted": PRECISION,
                **asdict(self.accepted),
                "threshold": threshold if np.isfinite(threshold) else None,
            },
            "by_training_rows": self.by_training_rows,
            "leaves": dict(self.leaves),
            "configuration": dict(self.configuration),
        }


@dataclass(frozen=True)
class Predicted:
    """What one bundle answers to listings whose truth is not known.

    Args:
        answers: in the order of the data set's rows.
        configuration: what was run: bundle, data, recipe, and what was left out of the data.
    """

    bundle: LoadedBundle
    dataset: Dataset
    answers: Answers
    configuration: Mapping[str, Any]


def evaluate_folder(
    bundle: Path,
    folder: Path,
    part: Part,
    *,
    title_column: str,
    cache: Path,
    progress: Progress,
    on_test_look: OnTestLook,
    seed: int | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Evaluates on a part of real listings (docs/data-format.md).

    Args:
        cache: of features and split files, the one that training used: what is there is not computed again.
        seed: of the split; None: the training report's, else 0. The shares of its parts are the report's too.

    Raises:
        DataError: the bundle was trained on another split, which would mix training rows into the part.
    """
    loaded, report = bundles.load(bundle), _report_of(bundle)
    dataset = read_listings(folder, title_column, cache=cache, progress=progress)
    dealt = _report_of_split(bundle, loaded)
    shares = SHARES if dealt is None else dealt.shares
    split = frozen_split(dataset, cache, _seed(seed, dealt, 0), shares)
    _check(loaded, split, dataset, progress)
    if part == "test":
        _tell(on_test_look, loaded, report, dataset, split, shares)
    features = _Features(loaded, report, cache, progress, device)
    inputs = features.of(dataset)
    subject = _subject(loaded, report, split, part, dataset, inputs)
    return subject.evaluate(dataset, split.rows(part, dataset), inputs)


def evaluate_shop(
    bundle: Path,
    part: Part,
    *,
    count: int,
    cache: Path,
    progress: Progress,
    on_test_look: OnTestLook,
    seed: int | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Evaluates on a part of the shop's training listings, or (part "test") on `count` listings of the demo's.

    Args, raises: see `evaluate_folder`.
    """
    loaded, report = bundles.load(bundle), _report_of(bundle)
    config = ShopConfig(seed=_seed(seed, report, ShopConfig().seed), split="train")
    dataset = shop_dataset(config, SHOP_LISTINGS if report is None else sum(report.rows.values()))
    split = frozen_split(dataset, cache, config.seed, NO_TEST)
    _check(loaded, split, dataset, progress)
    features = _Features(loaded, report, cache, progress, device)
    inputs = features.of(dataset)
    subject = _subject(loaded, report, split, part, dataset, inputs)
    if part != "test":
        return subject.evaluate(dataset, split.rows(part, dataset), inputs)
    _tell(on_test_look, loaded, report, dataset, split)
    fresh = shop_dataset(config.demo(), count)
    return subject.evaluate(fresh, np.arange(len(fresh)), features.of(fresh))


def predict_chunks(
    bundle: Path, folder: Path, split: str, *, cache: Path, progress: Progress, device: str = "cpu"
) -> Predicted:
    """Answers all listings of a folder's chunk files that are named `split…` (docs/data-format.md).

    Args:
        cache: of rows and features.

    Raises:
        DataError: there are none, or what the reader refuses.
    """
    loaded, report = bundles.load(bundle), _report_of(bundle)
    dataset = read_chunks(folder, split, loaded.taxonomy, cache=cache, progress=progress)
    if dataset.skipped:
        progress.say(f"{len(dataset.skipped)} bad rows have no answer, see run.json")
    inputs = _Features(loaded, report, cache, progress, device).of(dataset)
    answers = Answers.join(
        [
            answers_as_served(loaded.model, inputs, loaded.calibration, np.array(rows))
            for rows in chunks(range(len(dataset)), _ANSWERED, progress, "answers")
        ],
        len(dataset),
    )
    left_out = {
        name: [(one.line, one.column, one.reason) for one in some]
        for name, some in (("skipped", dataset.skipped), ("lost_photos", dataset.lost_photos))
    }
    return Predicted(loaded, dataset, answers, _configuration(loaded, report, dataset, {"chunks": split, **left_out}))


def _report_of(bundle: Path) -> Report | None:
    """The report of the run that wrote the bundle, where it still stands beside it."""
    report, fingerprint = _report_beside(bundle), bundles.fingerprint(bundle)
    if report is None or all(model.fingerprint != fingerprint for model in report.models.values()):
        return None
    return report


def _report_of_split(bundle: Path, loaded: LoadedBundle) -> Report | None:
    """The report beside the bundle, be it of a later step, where that step had the bundle's split."""
    report = _report_beside(bundle)
    return report if report is not None and report.split_fingerprint == loaded.split_fingerprint else None


def _report_beside(bundle: Path) -> Report | None:
    try:
        return Report.read(bundle.resolve().parent)
    except TrainingError:
        return None


def _tell(
    on_test_look: OnTestLook,
    loaded: LoadedBundle,
    report: Report | None,
    dataset: Dataset,
    split: Split,
    shares: Mapping[str, float] | None = None,
) -> None:
    recipe = {} if report is None else dict(report.recipe)
    model = f"{loaded.name} {loaded.fingerprint}"
    on_test_look(dataset, split, recipe=recipe, model=model, purpose="evaluate", shares=shares)


def _seed(given: int | None, report: Report | None, usual: int) -> int:
    if given is not None:
        return given
    return usual if report is None else report.seed


def _check(loaded: LoadedBundle, split: Split, dataset: Dataset, progress: Progress) -> None:
    if loaded.taxonomy != dataset.taxonomy:
        raise DataError(f"{loaded.name} knows other paths than {dataset.name}: evaluate it on the data it was made for")
    if loaded.split_fingerprint != split.fingerprint:
        raise DataError(
            f"{loaded.name} was trained on the split {loaded.split_fingerprint[:12]} and {dataset.name} with seed"
            f" {split.seed} gives {split.fingerprint[:12]}: its training rows would be among those measured;"
            " give the seed it was trained with, and put its report.json beside it, which says the shares of the parts"
        )
    if loaded.data_note != dataset.note:
        progress.say(f"the bundle was trained on: {loaded.data_note}; this is: {dataset.note}")


@dataclass(frozen=True)
class _Features:
    """Features by the bundle's own encoders; found on disk where training computed them with the same ones."""

    loaded: LoadedBundle
    report: Report | None
    cache: Path
    progress: Progress
    device: str

    def of(self, dataset: Dataset) -> Inputs:
        """Of all rows."""
        dtype, views = "fp32", 1
        if self.report is not None:  # these two alone: a recipe of before may say what is no longer said
            dtype, views = self.report.recipe["features"], self.report.recipe["photo"]["views"]
        features, model = FeatureCache(self.cache, dtype), self.loaded.model.to(self.device)
        preprocessing, text, image = self.loaded.preprocessing, None, None
        if self.loaded.tokenizer is not None:
            text = features.text(dataset, model, self.loaded.tokenizer, preprocessing, self.progress)
        if model.config.reads_image:
            image = features.image(dataset, model, preprocessing, self.progress, views)
        return Inputs(dataset.taxonomy, dataset.targets, text, image)


@dataclass(frozen=True)
class _Subject:
    """What is evaluated, apart from the rows it is evaluated on."""

    loaded: LoadedBundle
    report: Report | None
    split: Split
    part: Part
    training_rows: Rows
    threshold: float

    def evaluate(self, dataset: Dataset, rows: Rows, inputs: Inputs) -> Evaluation:
        if not len(rows):
            raise DataError(f"the part {self.part} of {dataset.name} has no rows")
        targets, taxonomy = dataset.targets[rows], dataset.taxonomy
        answers = self._answers(inputs, rows)
        right = answers.rows == targets
        alone = answers.alone if answers.alone is not None else taxonomy.path_classes[answers.rows]
        groups = group_labels(dataset, rows)
        modalities: tuple[Withheld, ...] = ("image", "text") if self.loaded.model.config.modality == "both" else ()
        return Evaluation(
            bundle=self.loaded,
            dataset=dataset,
            split=self.split,
            part=self.part,
            rows=rows,
            inputs=inputs,
            answers=answers,
            right=right,
            metrics=measure_answers(answers, targets, taxonomy),
            path_accuracy=mean_interval(right, groups),
            decode_gain=paired_difference([right], [whole_path_right(alone, targets, taxonomy)], groups),
            withheld={
                modality: measure_answers(self._answers(inputs, rows, modality), targets, taxonomy)
                for modality in modalities
            },
            accepted=accepted_at(self.threshold, answers.probabilities, right),
            by_training_rows=by_training_rows(answers, targets, self.training_rows),
            leaves=where_answers_leave(answers.rows, targets, taxonomy),
            configuration=_configuration(self.loaded, self.report, dataset, {"split": self._split()}),
        )

    def _answers(self, inputs: Inputs, rows: Rows, withhold: Withheld | None = None) -> Answers:
        return answers_as_served(self.loaded.model, inputs, self.loaded.calibration, rows, withhold)

    def _split(self) -> dict[str, Any]:
        return {"fingerprint": self.split.fingerprint, "seed": self.split.seed, "part": self.part}


def _subject(
    loaded: LoadedBundle, report: Report | None, split: Split, part: Part, dataset: Dataset, inputs: Inputs
) -> _Subject:
    """With the threshold of the calibration part."""
    rows = split.rows("calibrate", dataset)
    answers = answers_as_served(loaded.model, inputs, loaded.calibration, rows)
    threshold = threshold_for(answers.probabilities, answers.rows == inputs.targets[rows], PRECISION)
    return _Subject(loaded, report, split, part, training_counts(dataset, split), threshold)


def _configuration(
    loaded: LoadedBundle, report: Report | None, dataset: Dataset, rows: Mapping[str, Any]
) -> dict[str, Any]:
    """What was run, as JSON; `rows` says on which rows of the data set."""
    return {
        "bundle": {"name": loaded.name, "fingerprint": loaded.fingerprint, "created_ms": loaded.created_ms},
        "model": loaded.model.config.to_json(),
        "preprocessing": loaded.preprocessing.to_json(),
        "data": {"name": dataset.name, "digest": dataset.digest, "note": dataset.note},
        **rows,
        "recipe": None if report is None else dict(report.recipe),
    }


def group_labels(dataset: Dataset, rows: Rows) -> Rows:
    """[len(rows)] numbers of what is drawn together; a listing without a group is one of its own."""
    groups, ids = (dataset.rows.column(name).take(pa.array(rows)) for name in ("group", "id"))
    return group_members(groups, ids)[0]
