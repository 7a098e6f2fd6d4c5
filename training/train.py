"""The three steps, from listings to bundles: text, photo, then the fusion on frozen encoders.

    split ─> encoders (steps 1 and 2) ─> features, once ─> heads and fusion (step 3) ─> calibrate ─> measure ─> bundle

Writes `out/{cross,concat,text,image}/` and `out/report.json`. Weights see the training part, epochs are chosen on
`select`, temperatures and thresholds on `calibrate`; `test` is looked at once, at the end.

Knows all other modules of training. `train_shop` and `train_folder` are what the program calls.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from training.baselines import Baseline, baselines
from training.calibrate import calibrate
from training.data import Dataset
from training.evaluate import measure, measure_answers
from training.export import answers_as_served, by_training_rows, export, training_counts
from training.features import FeatureCache, titles
from training.fusion import Inputs, Learned, Rows, learn, logits
from training.progress import Progress, Quiet
from training.readers.folder import MAX_BAD_SHARE, read_folder
from training.readers.shop import shop_dataset
from training.recipe import Recipe
from training.report import ModelReport, Report
from training.shop.shop import ShopConfig
from training.splits import NO_TEST, SHARES, Split, describe, frozen_split
from training.steps import Encoders, pretrained_encoders, scratch_encoders

Fusion = Literal["concat", "cross"]
Modality = Literal["text", "image", "both"]
MODELS: Mapping[str, tuple[Modality, Fusion]] = {
    "text": ("text", "concat"),
    "image": ("image", "concat"),
    "concat": ("both", "concat"),
    "cross": ("both", "cross"),
}
SHOP_LISTINGS = 12_000


@dataclass
class _Run:
    """What the steps of one run share."""

    dataset: Dataset
    recipe: Recipe
    out: Path
    split: Split
    seed: int
    progress: Progress
    device: str
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self, part: str) -> Rows:
        return self.split.rows(part, self.dataset)

    @property
    def measured_on(self) -> str:
        return "test" if "test" in self.split.parts else "calibrate"

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - begun, 1)


def train_shop(
    out: str | Path,
    *,
    seed: int = 7,
    count: int = SHOP_LISTINGS,
    config: ShopConfig | None = None,
    recipe: str | Path = "shop_demo",
    cache: str | Path | None = None,
    progress: Progress | None = None,
    device: str = "auto",
) -> Report:
    """Trains on the simulated shop's training listings; it is tested on listings of another seed and split.

    Args:
        config: of the shop; None for its defaults with this seed.
        cache: see `train`.
    """
    dataset = shop_dataset(config or ShopConfig(seed=seed, split="train"), count)
    return train(
        dataset, Recipe.load(recipe), out, cache=cache, shares=NO_TEST, seed=seed, progress=progress, device=device
    )


def train_folder(
    folder: str | Path,
    out: str | Path,
    *,
    title_column: str = "title",
    encoders: str | Path | None = None,
    recipe: str | Path = "fashion_cpu",
    cache: str | Path | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "auto",
) -> Report:
    """Trains on real listings (docs/data-format.md) and measures on the held part; see `train`."""
    dataset = read_folder(folder, title_column, max_bad_share=max_bad_share)
    return train(
        dataset, Recipe.load(recipe), out, encoders=encoders, cache=cache, seed=seed, progress=progress, device=device
    )


def train(
    dataset: Dataset,
    recipe: Recipe,
    out: str | Path,
    *,
    encoders: str | Path | None = None,
    cache: str | Path | None = None,
    shares: Mapping[str, float] = SHARES,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "auto",
) -> Report:
    """Runs all steps; blocks for minutes.

    Args:
        out: folder of the bundles and the report; older ones there are replaced.
        encoders: folder of trained encoders, for recipes that take them (training.frozen); None asks the hubs.
        cache: folder of features and split files; None: `features` beside `out`. Safe to share between runs.
        shares: of the split's parts.

    Raises:
        TrainingError, ModelError, BundleError: each in one sentence; nothing but whole bundles is left behind.
    """
    progress = progress or Quiet()
    folder, cache_folder = Path(out), Path(cache) if cache is not None else Path(out).parent / "features"
    split = frozen_split(dataset, cache_folder, seed, shares)
    progress.say(describe(split, dataset))
    if dataset.skipped:
        progress.say(f"{len(dataset.skipped)} bad rows left out, see report.json")
    run = _Run(dataset, recipe, folder, split, seed, progress, _device(device))
    with run.timed("encoders"):
        if recipe.encoders == "scratch":
            trained = scratch_encoders(dataset, recipe, run.rows("train"), seed, progress, run.device)
        else:
            trained = pretrained_encoders(dataset, recipe, encoders, run.device)
    inputs = _features(run, trained, FeatureCache(cache_folder, recipe.features))
    models = {name: _model(run, trained, inputs, name) for name in MODELS}
    plain: list[Baseline] = []
    if recipe.baselines and inputs.text is not None and inputs.image is not None:
        with run.timed("plain baselines"):
            texts = titles(dataset, trained.preprocessing)
            held = run.rows(run.measured_on)
            plain = baselines(texts, (inputs.text, inputs.image), dataset.targets, run.rows("train"), held, progress)
    report = _report(run, models, plain)
    report.write()
    return report


def _features(run: _Run, trained: Encoders, cache: FeatureCache) -> Inputs:
    with run.timed("title features"):
        text = cache.text(run.dataset, trained.model, trained.tokenizer, trained.preprocessing, run.progress)
    with run.timed("photo features"):
        image = cache.image(run.dataset, trained.model, trained.preprocessing, run.progress)
    return Inputs(run.dataset.taxonomy, run.dataset.targets, text, image)


def _model(run: _Run, trained: Encoders, inputs: Inputs, name: str) -> ModelReport:
    """Trains (unless steps 1 and 2 have), calibrates, measures and writes one model."""
    with run.timed(f"model {name}"):
        learned = _learn(run, trained, inputs, name)
        recipe, model = run.recipe, learned.model
        calibration = calibrate(
            model, inputs, run.rows("calibrate"), error_rate=recipe.error_rate, confidence=recipe.confidence
        )
        held = run.rows(run.measured_on)
        answers = answers_as_served(model, inputs, calibration, held)
        metrics = measure_answers(answers, inputs.targets[held], inputs.taxonomy)
        withheld = {}
        if model.config.modality == "both":
            for modality in ("text", "image"):
                found = measure(logits(model, inputs, held, modality), inputs.targets[held], inputs.taxonomy)
                withheld[modality] = round(found.path_accuracy, 4)
        run.progress.say(f"{name}: path accuracy {metrics.path_accuracy:.3f} on {len(held)} {run.measured_on} rows")
        counts = training_counts(run.dataset, run.split)
        figures = {
            "measured on": run.measured_on,
            **metrics.to_json(),
            "withheld": withheld,
            "by_training_rows": by_training_rows(answers, inputs.targets[held], counts),
        }
        fingerprint = export(
            run.out / name,
            trained=trained,
            model=model,
            dataset=run.dataset,
            split=run.split,
            inputs=inputs,
            calibration=calibration,
            metrics=figures,
            name=f"{run.dataset.name}-{name}",
        )
    return ModelReport(name, fingerprint, learned.best_epoch, metrics.to_json(), withheld)


def _learn(run: _Run, trained: Encoders, inputs: Inputs, name: str) -> Learned:
    if name in trained.singles:
        return Learned(trained.singles[name], (), ())
    return learn(
        trained.config(*MODELS[name]),
        inputs,
        run.rows("train"),
        run.rows("select"),
        run.recipe.fusion,
        seed=run.seed,
        progress=run.progress,
        stage=f"step 3: {name}" if MODELS[name][0] == "both" else f"{name} heads",
        device=run.device,
    )


def _report(run: _Run, models: Mapping[str, ModelReport], plain: list[Baseline]) -> Report:
    rows = [run.dataset.rows[row] for row in run.rows("test")]
    return Report(
        folder=run.out,
        dataset=run.dataset.name,
        dataset_digest=run.dataset.digest,
        split_fingerprint=run.split.fingerprint,
        recipe=run.recipe.model_dump(mode="json"),
        seed=run.seed,
        rows={part: len(ids) for part, ids in run.split.parts.items()},
        measured_on=run.measured_on,
        held=[(row.id, row.path) for row in rows],
        models=models,
        baselines=plain,
        skipped=[(bad.line, bad.column, bad.reason) for bad in run.dataset.skipped],
        seconds=run.seconds,
    )


def _device(wish: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if wish == "auto" else wish
