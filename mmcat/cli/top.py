"""`mmcat top`: a running service in a terminal, by its /metrics. Changes nothing there."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mmcat.cli.options import Config, load_settings
from mmcat.cli.texts import CommandError, new_app, print_json

if TYPE_CHECKING:
    from rich.console import Group

    from consumer.settings import HttpSettings
    from mmcat.cli.benchmarks.scrape import Snapshot

app = new_app()
HIDDEN: Final = "last results: on the service's own machine, or with the token of http.token"


@app.command()
def top(
    url: Annotated[str | None, typer.Option(metavar="URL", help="Default: this machine, http.port.")] = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Two looks, print, end.")] = False,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="As --once, JSON on stdout.")] = False,
) -> None:
    """Watch a running service: lag, listings/s, stages, batch size, last results, what holds it up. Ctrl-C ends it.

    The last results are told on the service's own machine only, or with the token of http.token.

    \b
    Examples:
      mmcat top
      mmcat top --url http://10.0.0.7:9464 --once
    """
    http = load_settings(config).http
    address = url or f"http://127.0.0.1:{http.port}"
    if not address.startswith(("http://", "https://")):
        raise CommandError(f"{address} is not an address of a service: http://HOST:PORT")
    from rich.console import Console
    from rich.live import Live

    before = _look(address)
    time.sleep(every)
    now = _look(address)
    last = _last(address, http)
    if as_json:
        print_json({**figures(before, now), "last_results": last})
        return
    console = Console()
    if once:
        console.print(view(address, before, now, last))
        return
    with Live(view(address, before, now, last), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            try:
                before, now, last = now, _look(address), _last(address, http)
            except CommandError as error:  # restarted, perhaps: that is when one watches
                live.update(f"{error}; asking again every {every:g} s", refresh=True)
            else:
                live.update(view(address, before, now, last), refresh=True)


def figures(before: "Snapshot", now: "Snapshot") -> dict[str, object]:
    """What two looks say: lag by role, rates by outcome, stages, batch size, latency, the bottleneck."""
    from mmcat.cli.benchmarks.scrape import mean, rate

    outcomes = now.by("mmcat_listings_total", "outcome")
    held, limit = now.held
    return {
        "lag": now.by("mmcat_consumer_lag", "role"),
        "listings_per_s": {one: rate("mmcat_listings_total", before, now, outcome=one) for one in outcomes},
        "stages": now.busy,
        "held": held,
        "limit": limit,
        "batch": mean("mmcat_batch_listings", before, now),
        "end_to_end_s": mean("mmcat_end_to_end_seconds", before, now),
        "bottleneck": now.line(),
    }


def view(address: str, before: "Snapshot", now: "Snapshot", last: Sequence[Mapping[str, Any]] | None) -> "Group":
    """The same for people: a table, the last results, and the bottleneck in a line below.

    Args:
        last: the newest first; None: the service does not tell us.
    """
    from rich.console import Group
    from rich.table import Table

    from mmcat.cli.benchmarks.report import bar, number

    found = figures(before, now)
    shown = Table(title=address, show_header=False, min_width=60)
    for name in ("lag", "listings_per_s"):
        for label, value in _numbers(found[name]).items():
            shown.add_row(f"{name.replace('_per_s', '/s')} {label}", number(value))
    for stage, share in now.busy.items():
        shown.add_row(stage, f"{bar(share)} {share:.0%}")
    shown.add_row("held", f"{now.held[0]:,.0f} of {now.held[1]:,.0f}")
    shown.add_row("listings per batch", f"{found['batch']:.1f}")
    shown.add_row("mean end to end", f"{found['end_to_end_s']:.3f} s")
    newest = Table(title="last results", show_header=False, min_width=60)
    for one in last or ():
        depth = f"safe to level {one['safe_level']}" if one["safe_level"] else "review"
        newest.add_row(one["product_id"], " › ".join(one["path"]), f"{one['probability']:.2f}", depth)
    return Group(shown, *([newest] if last else []), *([] if last is not None else [HIDDEN]), now.line())


def _numbers(found: object) -> dict[str, float]:
    return found if isinstance(found, dict) else {}


def _last(address: str, http: "HttpSettings") -> Sequence[Mapping[str, Any]] | None:
    from mmcat.cli.service_port import command

    try:
        told: list[Mapping[str, Any]] = command(address, http, "last-results", {}, "results")
    except CommandError:
        return None
    return told


def _look(address: str) -> "Snapshot":
    from mmcat.cli.benchmarks.scrape import Snapshot

    try:
        return Snapshot.read(address)
    except (OSError, ValueError) as error:
        raise CommandError(f"no service answers at {address}: {getattr(error, 'reason', error)}") from None
