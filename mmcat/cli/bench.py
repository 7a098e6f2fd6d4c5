"""`mmcat bench`: how fast this machine is at each part of the work, and which part holds the others up."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.options import Engine
from mmcat.cli.texts import new_app, print_json

if TYPE_CHECKING:
    from mmcat.cli.benchmarks.report import Report

app = new_app()
NULL = (sys.executable, "-m", "mmcat.cli.benchmarks.null_service")
CONSUME = (sys.executable, "-m", "mmcat.cli", "consume")

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Runs = Annotated[int, typer.Option(min=1, help="Repetitions; the median counts.")]
Events = Annotated[int, typer.Option(min=100, help="Events of the backlog.")]
Broker = Annotated[
    str | None,
    typer.Option(
        "--bootstrap", metavar="HOST:PORT", help="Broker; default: Apache Kafka started for this (make kafka)."
    ),
]
Bundle = Annotated[Path, typer.Option(metavar="FOLDER", help="Trained bundle.")]


@app.callback()
def bench() -> None:
    """How fast this machine is at each part of the work, and which part holds the others up.

    \b
    Examples:
      mmcat bench transport
      mmcat bench pipeline --bundle bundles/cross --events 1000
      mmcat bench decode --photos my-photos --json
    """


@app.command()
def transport(events: Events = 30_000, runs: Runs = 3, bootstrap: Broker = None, as_json: Json = False) -> None:
    """Events a second and CPU per event with a model that answers at once and no photos: what the stream costs."""
    with _broker(bootstrap) as address, tempfile.TemporaryDirectory() as folder:
        _show(_worked_off("transport: null model, no photos", address, events, runs, Path(folder)), as_json)


@app.command()
def pipeline(
    bundle: Bundle, events: Events = 500, runs: Runs = 1, bootstrap: Broker = None, as_json: Json = False
) -> None:
    """The whole service with a trained bundle, photos from a host on loopback: events/s, and the bottleneck."""
    from mmcat.cli.benchmarks.parts import photos
    from mmcat.cli.benchmarks.photo_host import PhotoHost

    with _broker(bootstrap) as address, PhotoHost(photos()) as host, tempfile.TemporaryDirectory() as folder:
        extra = {"MMCAT_MODEL__BUNDLE": str(bundle), **_photo_env(host.port)}
        what = f"pipeline: {bundle.name}, a photo each"
        _show(_worked_off(what, address, events, runs, Path(folder), CONSUME, extra, host.url), as_json)


@app.command()
def latency(
    rate: Annotated[float, typer.Option(min=1, help="Events a second.")] = 300,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 10,
    delay_ms: Annotated[float, typer.Option(min=0, help="How long the photo host takes.")] = 5,
    model_ms: Annotated[float, typer.Option(min=0, help="How long each batch takes.")] = 0,
    runs: Runs = 1,
    bootstrap: Broker = None,
    as_json: Json = False,
) -> None:
    """From registration to the broker's log at a steady rate, a photo each, null model: quantiles."""
    import numpy as np

    from mmcat.cli.benchmarks.intervals import median
    from mmcat.cli.benchmarks.latency import waits
    from mmcat.cli.benchmarks.parts import photos
    from mmcat.cli.benchmarks.photo_host import PhotoHost
    from mmcat.cli.benchmarks.report import Report
    from mmcat.cli.benchmarks.transport import Backlog

    with (
        _broker(bootstrap) as address,
        PhotoHost(photos((600,)), delay_ms / 1_000) as host,
        tempfile.TemporaryDirectory() as folder,
    ):
        took = []
        for run in range(runs):
            backlog = Backlog(address, 200, host.url)
            env = backlog.env(_photo_env(host.port))
            took.append(waits(backlog, (*NULL, str(model_ms)), env, Path(folder) / f"{run}.log", rate, seconds))
    figures = {
        f"p{100 * share:g} ms": median([float(np.quantile(one, share)) for one in took]) for share in (0.5, 0.95, 0.99)
    }
    what = f"latency: {rate:g} events/s for {seconds:g} s, photo host {delay_ms:g} ms, model {model_ms:g} ms a batch"
    _show(Report(what, figures), as_json)


@app.command()
def decode(
    photos: Annotated[Path | None, typer.Option(metavar="FOLDER", help="JPEGs; default: made here.")] = None,
    px: Annotated[int, typer.Option(min=16, help="Side of the square.")] = 224,
    runs: Runs = 9,
    as_json: Json = False,
) -> None:
    """Photos a second and core: bytes to pixels of the network's size."""
    from mmcat.cli.benchmarks import parts
    from mmcat.cli.benchmarks.intervals import median
    from mmcat.cli.benchmarks.report import Report

    bodies = [path.read_bytes() for path in sorted(photos.glob("*.jp*g"))] if photos else parts.photos()
    if not bodies:
        raise typer.BadParameter(f"there is no .jpg in {photos}", param_hint="--photos")
    parts.decode(bodies, px)  # the first photo imports torch
    rates = [parts.decode(bodies * 5, px) for _ in range(runs)]
    size = sum(map(len, bodies)) / len(bodies) / 1_000
    _show(Report(f"decode: {size:.0f} kB to {px} px", {"photos/s and core": median(rates)}), as_json)


@app.command()
def fetch(
    count: Annotated[int, typer.Option(min=1, help="Photos of each run.")] = 1_000,
    at_once: Annotated[int, typer.Option(min=1, help="Fetches at once.")] = 64,
    delay_ms: Annotated[float, typer.Option(min=0, help="How long the host takes.")] = 0,
    runs: Runs = 3,
    as_json: Json = False,
) -> None:
    """Photos a second through the service's own fetcher, from a host in the same process: a lower bound."""
    from mmcat.cli.benchmarks import parts
    from mmcat.cli.benchmarks.intervals import median
    from mmcat.cli.benchmarks.photo_host import PhotoHost
    from mmcat.cli.benchmarks.report import Report

    with PhotoHost(parts.photos((600,)), delay_ms / 1_000) as host:
        found = [parts.fetch(host.url, count, at_once) for _ in range(runs)]
    figures = {
        "photos/s": median([rate for rate, _ in found]),
        "CPU ms per photo": median([cpu for _, cpu in found]),
    }
    _show(Report(f"fetch: {at_once} at once, host {delay_ms:g} ms", figures), as_json)


@app.command()
def engine(
    bundle: Bundle,
    name: Engine = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Listings per call.")] = 32,
    runs: Runs = 9,
    as_json: Json = False,
) -> None:
    """Listings a second through a bundle's engine, photos decoded beforehand."""
    from mmcat.cli.benchmarks import parts
    from mmcat.cli.benchmarks.intervals import median
    from mmcat.cli.benchmarks.report import Report

    rates = parts.engine(str(bundle), name or "auto", batch, runs, parts.photos((600,))[0])
    _show(Report(f"engine: {bundle.name}, batches of {batch}", {"listings/s": median(rates)}), as_json)


def _worked_off(
    what: str,
    bootstrap: str,
    events: int,
    runs: int,
    folder: Path,
    command: tuple[str, ...] = NULL,
    extra: dict[str, str] | None = None,
    image_url: str = "",
) -> "Report":
    """Backlogs worked off by a service of its own each, watched."""
    from mmcat.cli.benchmarks.intervals import median
    from mmcat.cli.benchmarks.report import Report
    from mmcat.cli.benchmarks.transport import Backlog, work_off
    from mmcat.cli.benchmarks.watch import Watch

    speeds = []
    for run in range(runs):
        backlog = Backlog(bootstrap, events, image_url)
        env = backlog.env(extra)
        watch = Watch(f"http://127.0.0.1:{env['MMCAT_HTTP__PORT']}")
        speeds.append(work_off(backlog, command, env, folder / f"{run}.log", look=watch))
    figures = {
        "events/s": median([one.events_per_s for one in speeds]),
        "CPU ms per event": median([one.cpu_ms for one in speeds]),
    }
    return Report(what, figures, watch.stage_seconds, watch.busy, watch.held, watch.line)


@contextmanager
def _broker(bootstrap: str | None) -> Iterator[str]:
    """The named broker, or one of our own for as long as it is needed."""
    if bootstrap is not None:
        yield bootstrap
        return
    from mmcat.cli.servers import LocalKafka

    with LocalKafka() as broker:
        yield broker.bootstrap


def _photo_env(port: int) -> dict[str, str]:
    """Our own photo host, and no other private address."""
    return {"MMCAT_PHOTO__ALLOW": "127.0.0.1/32", "MMCAT_PHOTO__PORTS": str(port), "MMCAT_PHOTO__PER_HOST": "64"}


def _show(report: "Report", as_json: bool) -> None:
    if as_json:
        print_json(report.as_json())
    else:
        print(report.as_text())
