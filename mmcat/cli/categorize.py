"""`mmcat categorize`: a Parquet table of listings in, one of answers out, by Ray Data. The work is `consumer.bulk`."""

import os
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcat.cli.consume import load_model
from mmcat.cli.interrupts import interruptible
from mmcat.cli.options import Bootstrap, Config, Device, Engine, View, load_settings
from mmcat.cli.texts import CommandError, new_app, print_json

if TYPE_CHECKING:
    from consumer.bulk.cluster import Shape
    from consumer.bulk.folder import Folder
    from consumer.bulk.job import Job, Part, Table
    from consumer.settings import Settings

PART_ROWS = 256
"""Rows done whole or again: 256 photos of 224 px are 38 MB on their way, and a minute's work of a slow engine."""

app = new_app()


@app.command(epilog="See also: mmcat replay, which categorizes a range of a topic again.")
def categorize(
    table: Annotated[Path, typer.Argument(metavar="IN.parquet", help="Listings: docs/data-format.md.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="Answers; an unfinished job goes on.")],
    bundle: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Trained bundle: model.bundle.")] = None,
    title_column: Annotated[str, typer.Option(help="Column that holds the titles.")] = "title",
    photos: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Photos by the column image, or ID.jpg.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many rows alone.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Listings of one call of the engine.")] = 32,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes for photos; default: the free CPUs.")] = None,
    models: Annotated[int, typer.Option(min=1, help="Processes with a model, a GPU each on --device cuda.")] = 1,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster (auto on one of its machines).")] = None,
    to_topic: Annotated[bool, typer.Option("--to-topic", help="Publish the answers, guarded by rank.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="With --to-topic: records a second at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    view: View = None,
    device: Device = None,
    engine: Engine = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Categorize a Parquet table of listings, on this machine or a Ray cluster.

    The answers are those of the stream; photos are fetched under the same rules (photo.allow and the rest). A bad row
    becomes a row with an error. Stopped and started again with the same files, it goes on where it was.

    \b
    Examples:
      mmcat categorize listings.parquet answers.parquet --bundle bundles/cross
      mmcat categorize listings.parquet answers.parquet --address auto --models 8 --device cuda
      mmcat categorize listings.parquet answers.parquet --to-topic --rate 500
    """
    if rate is not None and not to_topic:
        raise CommandError("--rate belongs to --to-topic")
    overrides = {
        "model.bundle": bundle,
        "model.device": device,
        "model.engine": engine,
        "kafka.bootstrap_servers": bootstrap,
        "view.url": view,
    }
    settings = load_settings(config, overrides)
    job, source, parts, reads_photos = _asked(settings, table, title_column, photos, limit, batch, to_topic)
    from consumer.bulk.folder import Folder

    folder = Folder(job, out)
    left = folder.left(parts)
    rows = {"rows": sum(part.stop - part.start for part in parts), "parts": len(parts), "parts_left": len(left)}
    if dry_run:
        _show({**rows, "columns": list(source.columns), "model": job.fingerprint, "out": str(out)}, as_json)
        return
    began = time.monotonic()
    with interruptible():
        if not folder.finished:
            shape = _shape(settings, workers, models, address)
            _work(settings, folder, source, left, shape, reads_photos)
            folder.join(parts)
        seconds = time.monotonic() - began
        summary = _summary(folder, rows, left, seconds)
        if to_topic:
            summary["published"] = _publish(settings, folder, rows["rows"], rate)
    _show(summary, as_json)


def _asked(
    settings: "Settings",
    table: Path,
    title_column: str,
    photos: Path | None,
    limit: int | None,
    batch: int,
    to_topic: bool,
) -> "tuple[Job, Table, list[Part], bool]":
    """The job, its table, its parts, and whether the model looks at photos."""
    if settings.model.bundle is None:
        raise CommandError("no bundle: name the folder of a trained one (--bundle, MMCAT_MODEL__BUNDLE)")
    if photos is not None and not photos.is_dir():
        raise CommandError(f"--photos: there is no folder {photos}")
    try:
        from consumer.bulk.job import Job, Table
    except ImportError as error:
        raise CommandError(f"bulk jobs need the extra: pip install 'mmcat[bulk]' ({error})") from error
    from consumer.bulk.rows import ORDER_COLUMN
    from consumer.results import Audit
    from mmcat.bundle import check_served, read_manifest
    from mmcat.family import ModelConfig

    order_by = settings.order_by
    opened = Table.open(table, title_column, order_by if to_topic else None)
    manifest, fingerprint = read_manifest(settings.model.bundle)
    config = ModelConfig.from_json(manifest["model"])
    check_served(settings.model.bundle, config)
    parts = opened.parts(PART_ROWS, limit)
    chosen, audit = settings.model, Audit.of(settings.review)
    job = Job(
        input_sha256=opened.sha256,
        rows=sum(part.stop - part.start for part in parts),
        fingerprint=fingerprint,
        engine=chosen.engine,
        precision=chosen.precision,
        top_k=chosen.top_k,
        evidence=chosen.evidence,
        audit_share=audit.share,
        audit_mark=audit.mark(opened.sha256),
        event_bytes=settings.limits.event_bytes,
        photo_bytes=settings.photo.max_bytes,
        batch=batch,
        part_rows=PART_ROWS,
        title_column=title_column,
        photos=None if photos is None else str(photos.resolve()),
        order_by=order_by if ORDER_COLUMN[order_by] in opened.columns else None,
    )
    return job, opened, parts, config.reads_image


def _shape(settings: "Settings", workers: int | None, models: int, address: str | None) -> "Shape":
    """How wide it runs. CPUs of this machine are shared out; a cluster's are counted by Ray."""
    import torch

    from consumer.bulk.cluster import Shape

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = settings.model.device
    on_gpu = device.startswith("cuda") or (device == "auto" and address is None and torch.cuda.is_available())
    threads = settings.model.threads or (1 if on_gpu else max(1, cpus // (models + 1)))
    return Shape(workers, models, threads, gpus=int(on_gpu), address=address, cpus=cpus)


def _work(
    settings: "Settings", folder: "Folder", source: "Table", left: "list[Part]", shape: "Shape", reads_photos: bool
) -> None:
    from consumer.bulk.answers import Answering
    from consumer.bulk.cluster import work
    from consumer.bulk.job import Source
    from consumer.bulk.prepare import Preparing
    from consumer.results import Audit
    from mmcat.bundle import read_manifest
    from mmcat.cli.progress import StderrProgress
    from mmcat.preparation import Preprocessing, prepare

    folder.begin()
    if not left:
        return
    assert settings.model.bundle is not None  # noqa: S101 (`_asked` refuses it)
    there = settings.model.bundle.resolve()
    model = settings.model.model_copy(update={"bundle": there, "threads": shape.threads})
    manifest, _ = read_manifest(there)
    cut = partial(prepare, preprocessing=Preprocessing.from_json(manifest["preprocessing"]), with_photo=reads_photos)
    photo = settings.photo if reads_photos else None
    reader = Source(source.path.resolve(), source.columns)
    preparing = Preparing(folder.job, reader, cut, photo, settings.limits)
    load = partial(load_model, settings.model_copy(update={"model": model}))
    answering = Answering(load, folder.job.fingerprint, folder.job.batch, folder.job.top_k, Audit.of(settings.review))
    sizes = {part.number: part.stop - part.start for part in left}
    total, done, began = sum(sizes.values()), 0, 0.0
    with StderrProgress() as shown, closing(work(left, preparing, answering, shape)) as arriving:
        shown.begin("categorizing", total)
        for number, answers in arriving:
            folder.keep(number, answers)
            began = began or time.monotonic()  # the first part pays for the start
            done += sizes[number]
            shown.advance(sizes[number], _pace(done, total, time.monotonic() - began))


def _pace(done: int, total: int, seconds: float) -> str:
    if seconds < 1:
        return ""
    rate = done / seconds
    left_s = (total - done) / rate
    return f"{rate:.0f}/s, {left_s // 60:.0f}:{left_s % 60:02.0f} left"


def _summary(folder: "Folder", rows: dict[str, int], left: "list[Part]", seconds: float) -> dict[str, Any]:
    from consumer.bulk.folder import tally

    now = sum(part.stop - part.start for part in left)
    found = tally(folder.out)
    answered = rows["rows"] - sum(found["errors"].values())
    return {
        **rows,
        "parts_left": 0,
        "categorized": answered,
        **found,
        "seconds": round(seconds, 3),
        "rows_per_second": round(now / seconds, 1) if seconds and now else None,
        "model": folder.job.fingerprint,
        "out": str(folder.out),
    }


def _publish(settings: "Settings", folder: "Folder", rows: int, rate: float | None) -> dict[str, int]:
    from consumer.bulk.publish import Publisher
    from mmcat.cli.progress import Stage, StderrProgress

    with StderrProgress() as shown:
        stage = Stage(shown, "publishing")
        publisher = Publisher(
            settings,
            folder.out,
            folder.job,
            rate=rate,
            on_progress=lambda done: stage(done, rows),
        )
        return publisher.run()


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for key, value in summary.items():
        text = ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else value
        print(f"{key:<16} {text}")
