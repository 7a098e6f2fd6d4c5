"""`mmcat replay`: categorize a range of a topic again. Reads the range from words; `consumer.replay` does the rest."""

import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.consume import load_model
from mmcat.cli.options import Bootstrap, Config, Device, load_settings
from mmcat.cli.texts import CommandError, new_app, print_json

if TYPE_CHECKING:
    from consumer.replay import Range, Summary
    from consumer.settings import Settings
    from consumer.spans import Bound

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

app = new_app()


@app.command()
def replay(
    start: Annotated[str, typer.Option("--from", metavar="WHERE", help="First record; default: the first.")] = "",
    end: Annotated[str, typer.Option("--to", metavar="WHERE", help="Where to stop, not included; default: now.")] = "",
    topic: Annotated[str | None, typer.Option(help="Default: topics.input.")] = None,
    group: Annotated[str | None, typer.Option(help="Where progress is kept; the same goes on. Default: new.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Records a second at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read.")] = False,
    bundle: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Trained bundle: model.bundle.")] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Categorize a range of a topic again, beside the live service: what is newer there stays.

    WHERE is a time (2026-05-01T00:00:00Z), how long ago (90s, 15m, 6h, 7d), an offset for all partitions (1200), or
    one for each (0:1200,3:990; other partitions are left out). Stopped and started with the same --group it goes on.

    \b
    Examples:
      mmcat replay --from 6h --dry-run
      mmcat replay --from 2026-05-01T00:00:00Z --to 2026-05-02T00:00:00Z --rate 200 --json
    """
    overrides = {"kafka.bootstrap_servers": bootstrap, "model.bundle": bundle, "model.device": device}
    settings = load_settings(config, overrides, logs=True)
    now = datetime.now(UTC)
    from consumer.kafka import KafkaException
    from consumer.replay import Range, look

    name = group or f"{settings.kafka.group_id}-replay-{now:%Y%m%d-%H%M%S}"
    wanted = Range(topic or settings.topics.input, read_bound(start, now), read_bound(end, now), name)
    try:
        if dry_run:
            summary = look(settings, wanted).summary()
        else:
            done = _run(settings, wanted, rate)
            summary = done.summary()
    except KafkaException as error:
        where = settings.kafka.bootstrap_servers
        raise CommandError(f"the broker at {where} does not do that: {error.args[0].str()}") from error
    if as_json:
        print_json(summary)
    else:
        for key, value in summary.items():
            print(f"{key:<18} {value}")
    if not dry_run and not done.complete:
        raise typer.Exit(130)


def read_bound(word: str, now: datetime) -> "Bound":
    """Read one side of a range; nothing is as far as it goes.

    Raises:
        CommandError: not a time, not an offset.
    """
    from consumer.spans import Bound

    if not word:
        return Bound()
    if word.isdigit():
        return Bound(offset=int(word))
    if re.fullmatch(r"\d+:\d+(,\d+:\d+)*", word):
        pairs = [pair.split(":") for pair in word.split(",")]
        return Bound(offsets={int(partition): int(offset) for partition, offset in pairs})
    if ago := re.fullmatch(r"(\d{1,6})([smhd])", word):
        return Bound(time_ms=_ms(now - timedelta(**{UNITS[ago[2]]: int(ago[1])})))
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        said = "a time (2026-05-01T00:00:00Z), how long ago (15m), an offset (1200) or offsets (0:1200,3:990)"
        raise CommandError(f"{word!r} is not {said}") from None
    if moment.tzinfo is None:
        raise CommandError(f"{word!r} does not say its time zone: {word}Z is UTC")
    return Bound(time_ms=_ms(moment))


def _ms(moment: datetime) -> int:
    return max(0, int(moment.timestamp() * 1000))


def _run(settings: "Settings", wanted: "Range", rate: float | None) -> "Summary":
    from consumer.replay import Replay
    from mmcat.cli.progress import Stage, StderrProgress

    with StderrProgress() as progress:
        work = Replay(settings, load_model(settings), wanted, rate=rate, on_progress=Stage(progress, "replaying"))
        before = {number: signal.signal(number, lambda *_: work.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return work.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
