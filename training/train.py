"""The three steps, from listings to bundles: text, photo, then the fusion on frozen encoders.

    split ─> encoders (steps 1 and 2) ─> features, once ─> heads and fusion (step 3) ─> calibrate ─> measure ─> bundle

Writes `out/{cross,concat,text,image}/`, `out/report.json`, `out/logs/` and, until it is done, `out/checkpoints/`.
Weights see the training part, epochs are chosen on `select`, temperatures and thresholds on `calibrate`; `test` is
looked at once, at the end.

Knows all other modules of training. `train_shop` and `train_folder` are what the program calls; `python -m
training.train` is research.py, the command line of the research code.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmcat import bundle
from mmcat.model import CategoryModel
from training.baselines import Baseline, baselines
from training.calibrate import attained, calibrate
from training.data import Dataset, Skipped
from training.earlier import earlier_bundles
from training.evaluate import measure_answers
from training.export import answers_as_served, by_training_rows, export, training_counts
from training.features import lost_photos
from training.fusion import Inputs
from training.fusion_step import FusionStep
from training.hardware import device_of, processes
from training.progress import Progress, Quiet
from training.readers.bad_rows import MAX_BAD_SHARE
from training.readers.read import read_listings
from training.readers.shop import shop_dataset
from training.recipe import Recipe
from training.report import ModelReport, Report
from training.run import CHECKPOINTS, DEFAULT, FAMILY, MODELS, Options, Run
from training.shop.shop import ShopConfig
from training.splits import NO_TEST, SHARES, describe, frozen_split, split_file
from training.steps import Encoders, EncoderSteps, preprocessing_of
from training.task import Fitted

__all__ = ["FAMILY", "MODELS", "SHOP_LISTINGS", "Options", "train", "train_folder", "train_shop"]

SHOP_LISTINGS = 12_000


def train_shop(
    out: str | Path,
    *,
    seed: int = 7,
    count: int = SHOP_LISTINGS,
    config: ShopConfig | None = None,
    recipe: Recipe | str | Path = "shop_demo",
    cache: str | Path | None = None,
    progress: Progress | None = None,
    options: Options = DEFAULT,
) -> Report:
    """Trains on the simulated shop's training listings; it is tested on listings of another seed and split.

    Args:
        config: of the shop; None for its defaults with this seed.
        cache: see `train`.
    """
    dataset = shop_dataset(config or ShopConfig(seed=seed, split="train"), count)
    return train(dataset, recipe, out, cache=cache, shares=NO_TEST, seed=seed, progress=progress, options=options)


def train_folder(
    folder: str | Path,
    out: str | Path,
    *,
    title_column: str = "title",
    encoders: str | Path | None = None,
    recipe: Recipe | str | Path = "fashion_cpu",
    cache: str | Path | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    allow_private: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    options: Options = DEFAULT,
) -> Report:
    """Trains on real listings (docs/data-format.md) and measures on the held part; see `train`.

    Args:
        allow_private: whether photos may be fetched from addresses that are not public.
    """
    kept = Path(cache) if cache is not None else Path(out).parent / "features"
    dataset = read_listings(
        folder,
        title_column,
        cache=kept,
        max_bad_share=max_bad_share,
        allow_private=allow_private,
        progress=progress,
    )
    return train(dataset, recipe, out, encoders=encoders, cache=kept, seed=seed, progress=progress, options=options)


def train(
    dataset: Dataset,
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    encoders: str | Path | None = None,
    cache: str | Path | None = None,
    shares: Mapping[str, float] = SHARES,
    seed: int = 0,
    progress: Progress | None = None,
    options: Options = DEFAULT,
) -> Report:
    """Runs all steps; blocks for minutes.

    Started by `torchrun`, every process calls this: the first computes features and writes, all of them learn.

    Args:
        out: folder of the bundles and the report; older ones there are replaced.
        encoders: folder or name of trained encoders, for recipes that take them (training.frozen); None asks the hubs.
        cache: folder of features and split files; None: `features` beside `out`. Safe to share between runs.
        shares: of the split's parts.

    Raises:
        TrainingError, ModelError, BundleError: each in one sentence; nothing but whole bundles is left behind.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    folder, cache_folder = Path(out), Path(cache) if cache is not None else Path(out).parent / "features"
    device = device_of(options.device)
    world = processes(device)
    progress = (progress or Quiet()) if world.is_main_process else Quiet()
    with world.main_process_first():
        split = frozen_split(dataset, cache_folder, seed, shares)
    progress.say(describe(split, dataset))
    if dataset.skipped:
        progress.say(f"{len(dataset.skipped)} bad rows left out, see report.json")
    if dataset.lost_photos:
        progress.say(f"{len(dataset.lost_photos)} photos could not be had, see report.json")
    where = split_file(dataset, cache_folder, seed, shares)
    run = Run(dataset, recipe, folder, cache_folder, split, where, seed, progress, device, options)
    with run.timed("encoders"):
        trained = _encoders(run, encoders)
    with world.main_process_first(), run.timed("features"):
        inputs = _step(run).inputs(trained)
    lost = [] if inputs.image is None else lost_photos(dataset, inputs.image, trained.preprocessing)
    if lost:
        progress.say(f"{len(lost)} photos cannot be read or decoded, see report.json")
    models = {name: _model(run, trained, inputs, name) for name in options.models}
    report = _report(run, models, _plain(run, inputs), [*dataset.lost_photos, *lost], shares)
    if world.is_main_process:
        report.write()
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # all that they led to is written
    return report


def _encoders(run: Run, encoders: str | Path | None) -> Encoders:
    preprocessing = preprocessing_of(run.recipe)
    return EncoderSteps(
        run.dataset,
        run.recipe,
        run.rows("train"),
        run.rows("select"),
        run.seed,
        run.progress,
        modality=run.options.modality,
        encoders=encoders,
        earlier=earlier_bundles(run.options.load, run.dataset, run.split.fingerprint, preprocessing),
        device=run.device,
        keep=run.keep,
    ).run()


def _step(run: Run) -> FusionStep:
    parts = run.rows("train"), run.rows("select")
    return FusionStep(run.dataset, run.recipe, run.cache, *parts, run.progress, run.device)


def _plain(run: Run, inputs: Inputs) -> list[Baseline]:
    if not run.recipe.baselines or inputs.text is None or inputs.image is None:
        return []
    with run.timed("plain baselines"):
        parts = run.rows("train"), run.held("plain baselines")
        return baselines(run.texts, (inputs.text, inputs.image), run.dataset.targets, *parts, run.progress)


def _model(run: Run, trained: Encoders, inputs: Inputs, name: str) -> ModelReport:
    """Trains (unless steps 1 and 2 have), calibrates, measures and writes one model."""
    with run.timed(f"model {name}"):
        trained, inputs, model, fitted = _learn(run, trained, inputs, name)
        recipe = run.recipe
        calibration = calibrate(
            model, inputs, run.rows("calibrate"), error_rate=recipe.error_rate, confidence=recipe.confidence
        )
        held = run.held(name)
        answers = answers_as_served(model, inputs, calibration, held)
        metrics = measure_answers(answers, inputs.targets[held], inputs.taxonomy)
        withheld = {}
        if model.config.modality == "both":
            for modality in ("text", "image"):
                found = answers_as_served(model, inputs, calibration, held, modality)
                withheld[modality] = round(float((found.rows == inputs.targets[held]).mean()), 4)
        run.progress.say(f"{name}: path accuracy {metrics.path_accuracy:.3f} on {len(held)} {run.measured_on} rows")
        counts = training_counts(run.dataset, run.split)
        figures = {
            "measured on": run.measured_on,
            **metrics.to_json(),
            "promise": attained(model, inputs, held, calibration),
            "withheld": withheld,
            "by_training_rows": by_training_rows(answers, inputs.targets[held], counts),
        }
        if processes(run.device).is_main_process:
            export(
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
        processes(run.device).wait_for_everyone()  # the same bundle, the same fingerprint in every process
    shown = {**metrics.to_json(), "promise": figures["promise"]}
    return ModelReport(name, bundle.fingerprint(run.out / name), fitted.best_epoch, shown, withheld)


def _learn(run: Run, trained: Encoders, inputs: Inputs, name: str) -> tuple[Encoders, Inputs, CategoryModel, Fitted]:
    """A trained model, with the encoders it ends up with and what they make of the listings."""
    if name in trained.singles:
        return trained, inputs, trained.singles[name], Fitted((), ())
    kind, step = FAMILY[name], _step(run)
    config = trained.config(*kind.shape(run.dataset.taxonomy))
    stage = f"step 3: {name}" if kind.modality == "both" else f"{name} heads"
    encoders, model, fitted = step.learn(trained, config, inputs, seed=run.seed, stage=stage, keep=run.keep(trained))
    if encoders is not trained:
        with processes(run.device).main_process_first():
            inputs = step.inputs(encoders)
    return encoders, inputs, model, fitted


def _report(
    run: Run,
    models: Mapping[str, ModelReport],
    plain: list[Baseline],
    lost_photos: Sequence[Skipped],
    shares: Mapping[str, float],
) -> Report:
    rows = (run.dataset.rows[row] for row in run.rows("test"))
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
        skipped=_told(run.dataset.skipped),
        seconds=run.seconds,
        lost_photos=_told(lost_photos),
        shares=shares,
    )


def _told(left_out: Sequence[Skipped]) -> list[tuple[int, str, str]]:
    return [(one.line, one.column, one.reason) for one in sorted(left_out, key=lambda one: one.line)]


if __name__ == "__main__":
    from training.research import main

    main()
