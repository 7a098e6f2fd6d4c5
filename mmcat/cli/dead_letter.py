"""`mmcat dead-letter list|show|replay`: prints what `consumer.letter_reader` reads, starts `consumer.letter_replay`."""

import heapq
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.dead_letter_text import HEADINGS, counts, facts, json_line, lines, row, shown_value
from mmcat.cli.options import Bootstrap, Config, asking_broker, load_settings
from mmcat.cli.replay_words import read_bound
from mmcat.cli.texts import CommandError, new_app, print_json, say

if TYPE_CHECKING:
    from consumer.letter_reader import LetterReader
    from consumer.letter_replay import LetterPlan, LetterReplay, LetterSummary
    from consumer.letters import Choice, Letter
    from consumer.settings import Settings
    from consumer.spans import Bound

app = new_app()
Codes = Annotated[list[str] | None, typer.Option("--code", help="Only of this code (event.schema); may be repeated.")]
Products = Annotated[list[str] | None, typer.Option("--product", help="Only about this product; may be repeated.")]
From = Annotated[str, typer.Option("--from", metavar="WHEN", help="Dead since; default: the first.")]
To = Annotated[str, typer.Option("--to", metavar="WHEN", help="Dead before; default: now.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.callback()
def dead_letter() -> None:
    """Look at what could not be categorized, and send it again.

    WHEN is a time (2026-05-01T00:00:00Z) or how long ago (90s, 15m, 6h, 7d), or offsets as `mmcat replay` has them.

    \b
    Examples:
      mmcat dead-letter list --from 1d
      mmcat dead-letter show 3:1200
      mmcat dead-letter replay --code model.failed --dry-run
    """


@app.command("list")
def list_letters(
    codes: Codes = None,
    products: Products = None,
    start: From = "",
    end: To = "",
    limit: Annotated[int, typer.Option(min=0, help="Rows of the table: the latest.")] = 50,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line on stdout, for every letter.")] = False,
) -> None:
    """List dead letters, the latest last, and how many there are of each code.

    \b
    Examples:
      mmcat dead-letter list --from 6h
      mmcat dead-letter list --code event.schema --json | jq -r .product
    """
    settings = load_settings(config, {"kafka.bootstrap_servers": bootstrap})
    choice = _choice(codes, products)
    between = _bounds(start, end)
    found, again = Counter[str](), 0
    with _reader(settings) as reader:
        spans = reader.spans(*between)
        journals = reader.journals(spans)

        def chosen() -> "Iterator[tuple[int, int, int, Letter, bool]]":
            nonlocal again
            for letter in reader.letters(spans):
                if choice.takes(letter):
                    sent = journals[letter.partition].has(letter)
                    found[letter.code], again = found[letter.code] + 1, again + sent
                    yield letter.timestamp_ms, letter.partition, letter.offset, letter, sent

        if as_json:
            for *_, letter, sent in chosen():
                print(json_line(facts(letter, sent_again=sent)))
            return
        latest = heapq.nlargest(limit, chosen(), key=lambda one: one[:3])
    rows = [HEADINGS, *(row(letter, sent_again=sent) for *_, letter, sent in reversed(latest))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows if latest else []:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())
    print(f"{found.total()} dead letters: {counts(found) or 'none'}; {again} of them were sent again")


@app.command()
def show(
    where: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="As `list` names it.")],
    raw: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the value there, byte for byte.")] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: its headers and its value, with whatever could trick a terminal written as \\x1b.

    \b
    Examples:
      mmcat dead-letter show 3:1200
      mmcat dead-letter show 3:1200 --raw event.json
    """
    if not (place := re.fullmatch(r"(\d{1,9}):(\d{1,18})", where)):
        raise CommandError(f"{where!r} is not PARTITION:OFFSET, as in 3:1200")
    settings = load_settings(config, {"kafka.bootstrap_servers": bootstrap})
    with _reader(settings) as reader:
        letter = reader.letter(int(place[1]), int(place[2]))
    if letter is None:
        raise CommandError(f"there is no dead letter at {where} of {settings.topics.dead_letter} (any more)")
    if raw is not None:
        if letter.value is None:
            raise CommandError(f"the dead letter at {where} has no value: there is nothing to write to {raw}")
        raw.write_bytes(letter.value)
        say(f"{len(letter.value)} bytes written to {raw}")
        return
    if as_json:
        print(json_line(facts(letter) | shown_value(letter)))
        return
    for line in lines(letter):
        print(line)


@app.command()
def replay(
    codes: Codes = None,
    products: Products = None,
    start: From = "",
    end: To = "",
    rate: Annotated[float | None, typer.Option(min=0.001, help="Letters a second at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was sent before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where nobody can be asked.")] = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Send dead letters again, byte for byte, to the first delay topic, where the service takes them up.

    Do it when the cause is mended. What was sent is remembered: stopped and started again it goes on. What is newer by
    now (an update, a deletion, a better answer) stays. Letters of which only the beginning was kept are refused.

    \b
    Examples:
      mmcat dead-letter replay --code model.failed --from 6h --dry-run
      mmcat dead-letter replay --code model.failed --from 6h --rate 200 --yes --json
    """
    settings = load_settings(config, {"kafka.bootstrap_servers": bootstrap})
    between = _bounds(start, end)
    from consumer.letter_replay import LetterReplay
    from mmcat.cli.progress import Stage, StderrProgress

    with _reader(settings) as reader, StderrProgress() as progress:
        told = Stage(progress, "sending")
        work = LetterReplay(settings, reader, _choice(codes, products), again=again, rate=rate, on_progress=told)
        plan = work.plan(*between)
        if dry_run:
            _print(
                {"chosen": plan.chosen, "codes": plan.codes, "refused": plan.refused, "already": plan.already}, as_json
            )
            return
        _confirm(plan, yes)
        done = _run(work, plan)
    _print(done.summary(), as_json)
    if not done.complete:
        raise typer.Exit(130)


def _run(work: "LetterReplay", plan: "LetterPlan") -> "LetterSummary":
    before = {number: signal.signal(number, lambda *_: work.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return work.run(plan)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _confirm(plan: "LetterPlan", yes: bool) -> None:
    """Say how many of what; ask, unless told not to.

    Raises:
        CommandError: nobody can be asked.
        typer.Abort: no.
    """
    why = counts(Counter(plan.refused))
    left = [f"{plan.already} were sent before"] * bool(plan.already) + [f"refused: {why}"] * bool(why)
    say("; ".join([f"{plan.chosen} dead letters to send again: {counts(Counter(plan.codes)) or 'none'}", *left]))
    if not plan.chosen or yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("nobody can be asked here whether to send them: say --yes")
    typer.confirm("Send them?", abort=True, err=True)


def _print(summary: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for name, value in summary.items():
        print(f"{name:<10} {counts(Counter(value)) or 'none' if isinstance(value, dict) else value}")


def _choice(codes: Iterable[str] | None, products: Iterable[str] | None) -> "Choice":
    from consumer.letters import Choice

    return Choice(frozenset(codes or ()), frozenset(products or ()))


def _bounds(start: str, end: str) -> "tuple[Bound, Bound]":
    now = datetime.now(UTC)
    return read_bound(start, now), read_bound(end, now)


@contextmanager
def _reader(settings: "Settings") -> "Iterator[LetterReader]":
    from consumer.letter_reader import LetterReader

    with asking_broker(settings), LetterReader(settings) as reader:
        yield reader
