"""`mmcat replay`: categorize a range of a topic again, or say what that would change. The work is `consumer.replay`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcat.cli.consume import load_model
from mmcat.cli.options import Bootstrap, Config, Device, asking_broker, load_settings
from mmcat.cli.replay_changes import change_file, draw_changes
from mmcat.cli.replay_words import read_bound
from mmcat.cli.texts import CommandError, new_app, print_json

if TYPE_CHECKING:
    from consumer.replay import Progress, Replay
    from consumer.replay_plan import Plan, Summary
    from consumer.replay_range import Range
    from consumer.settings import Settings
    from consumer.worker import Model

app = new_app()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a plan fixes, as the command line has it."""

    start: str
    end: str
    topic: str | None
    group: str | None
    as_of: bool
    into: str | None
    allow_blind: bool

    def named(self) -> list[str]:
        """The options given."""
        options = {"--from": self.start, "--to": self.end, "--topic": self.topic, "--group": self.group}
        more = {"--as-of": self.as_of, "--into": self.into, "--allow-blind": self.allow_blind}
        return [name for name, value in (options | more).items() if value]


@app.command()
def replay(
    start: Annotated[str, typer.Option("--from", metavar="WHERE", help="First record; default: the first.")] = "",
    end: Annotated[str, typer.Option("--to", metavar="WHERE", help="Where to stop, not included; default: now.")] = "",
    topic: Annotated[str | None, typer.Option(help="Default: topics.input.")] = None,
    group: Annotated[str | None, typer.Option(help="Where progress is kept; the same goes on. Default: new.")] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Written where there is none, else gone on with.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Records worked a second at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Only say which answers would change; write nothing.")] = False,
    sample: Annotated[int | None, typer.Option(min=1, help="With --diff: about so many of the events.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.tsv", help="With --diff: each change as a line.")] = None,
    as_of: Annotated[bool, typer.Option("--as-of", help="Answer what was updated or deleted since, too.")] = False,
    into: Annotated[str | None, typer.Option(metavar="TOPIC", help="With --as-of: the shadow topic.")] = None,
    allow_blind: Annotated[
        bool, typer.Option("--allow-blind", help="An answer whose photo is gone may replace one that saw it.")
    ] = False,
    bundle: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Trained bundle: model.bundle.")] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Categorize a range of a topic again, beside the live service: what is newer there stays.

    WHERE is a time (2026-05-01T00:00:00Z), how long ago (90s, 15m, 6h, 7d), an offset for all partitions (1200), or
    one for each (0:1200,3:990; other partitions are left out). Stopped and started with the same --plan, or the same
    --group, it goes on.

    \b
    Examples:
      mmcat replay --from 6h --dry-run
      mmcat replay --from 7d --diff --sample 2000 --out changes.tsv
      mmcat replay --from 7d --plan june.json --rate 200 --json
      mmcat replay --plan june.json
    """
    overrides = {"kafka.bootstrap_servers": bootstrap, "model.bundle": bundle, "model.device": device}
    asked = _Asked(start, end, topic, group, as_of, into, allow_blind)
    if wrong := _contradiction(asked, plan, dry_run=dry_run, diff=diff, wants=bool(sample or out)):
        raise CommandError(wrong)
    settings = load_settings(config, overrides)
    with asking_broker(settings):
        if dry_run:
            _show(_look(settings, asked, plan, rate), as_json=as_json)
            return
        model = load_model(settings)
        pinned = _pinned(settings, model, asked, plan, rate)
        done = _diff(settings, model, pinned, sample, out, as_json) if diff else _work(settings, model, pinned, as_json)
    if not done:
        raise typer.Exit(130)


def _contradiction(asked: _Asked, plan: Path | None, *, dry_run: bool, diff: bool, wants: bool) -> str:
    """Why these options do not go together; nothing where they do."""
    if plan is not None and plan.exists() and asked.named():
        return f"the plan {plan} fixes what is replayed: leave out {', '.join(asked.named())}, or name a new file"
    if asked.as_of and not asked.into:
        return "--as-of brings older answers back, so it writes into a shadow topic only: name one (--into TOPIC)"
    if asked.into and not asked.as_of:
        return "--into is the shadow topic of --as-of: without --as-of a replay writes the live topic"
    if diff and (dry_run or asked.as_of):
        return "--diff compares with the view: it goes neither with --dry-run nor with --as-of"
    if wants and not diff:
        return "--sample and --out belong to --diff"
    return ""


def _pinned(settings: "Settings", model: "Model", asked: _Asked, file: Path | None, rate: float | None) -> "Plan":
    """The plan of the file, or a new one, written there."""
    from consumer.replay_plan import make_plan, write_plan

    if file is not None and file.exists():
        return _kept(file, rate)
    options: dict[str, Any] = {"as_of": asked.as_of, "into": asked.into, "allow_blind": asked.allow_blind}
    made = make_plan(settings, _range(settings, asked), model.info, rate=rate, **options)
    if file is not None:
        write_plan(made, file)
    return made


def _kept(file: Path, rate: float | None) -> "Plan":
    """The plan of the file; how fast it is worked may differ each time."""
    from consumer.replay_plan import read_plan

    plan = read_plan(file)
    return plan.model_copy(update={"rate": rate}) if rate else plan


def _range(settings: "Settings", asked: _Asked) -> "Range":
    from consumer.replay_range import Range

    now = datetime.now(UTC)
    name = asked.group or f"{settings.kafka.group_id}-replay-{now:%Y%m%d-%H%M%S}"
    return Range(asked.topic or settings.topics.input, read_bound(asked.start, now), read_bound(asked.end, now), name)


def _look(settings: "Settings", asked: _Asked, file: Path | None, rate: float | None) -> dict[str, object]:
    """What would be read; a new plan is written, for which the model must be known."""
    from consumer.replay_plan import look_again
    from consumer.replay_range import look

    if file is None:
        return look(settings, _range(settings, asked)).summary()
    known = file.exists()
    return look_again(
        settings, _kept(file, rate) if known else _pinned(settings, load_model(settings), asked, file, rate)
    )


def _work(settings: "Settings", model: "Model", plan: "Plan", as_json: bool) -> bool:
    from consumer.replay import Replay

    with _progress() as told:
        done = _until_stopped(Replay(settings, model, plan, on_progress=told))
    _show(done.summary(), as_json=as_json)
    return done.complete


def _diff(
    settings: "Settings", model: "Model", plan: "Plan", sample: int | None, out: Path | None, as_json: bool
) -> bool:
    from consumer.replay import Replay
    from consumer.replay_diff import Changes

    with change_file(out) as line, _progress() as told:
        changes = Changes(line)
        work = Replay(settings, model, plan, on_progress=told, compare=changes.add, sample=sample)
        done = _until_stopped(work)
    found = changes.summary()
    if as_json:
        print_json({**done.summary(), "changes": found})
    else:
        _show({"outcomes": done.outcomes, "superseded": done.superseded}, as_json=False)
        draw_changes(found)
    return done.complete


def _until_stopped(work: "Replay") -> "Summary":
    """Run it; SIGINT and SIGTERM stop it calmly."""
    before = {number: signal.signal(number, lambda *_: work.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return work.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(summary: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
    else:
        for key, value in summary.items():
            print(f"{key:<18} {value}")


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Offsets done so far, as stages of progress."""
    from mmcat.cli.progress import StderrProgress

    stage, done = "", 0

    with StderrProgress() as shown:

        def told(now_in: str, passed: int, total: int) -> None:
            nonlocal stage, done
            if now_in != stage:
                shown.begin(now_in, total)
                stage, done = now_in, 0
            shown.advance(passed - done)
            done = passed

        yield told
