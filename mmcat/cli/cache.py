"""`mmcat cache rebuild|verify`: fill the view anew, or say where it differs (consumer.view_rebuild, view_verify)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.options import Bootstrap, Config, View, asking_broker, load_settings
from mmcat.cli.texts import new_app, print_json, say

if TYPE_CHECKING:
    from consumer.settings import Settings
    from mmcat.cli.progress import StderrProgress

app = new_app()
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.callback()
def cache() -> None:
    """Fill the Redis view anew from the output topic, or compare the two.

    \b
    Examples:
      mmcat cache verify
      mmcat cache rebuild
    """


@app.command()
def rebuild(
    grace: Annotated[float, typer.Option(min=3, help="Seconds that the old keys stay for readers.")] = 60.0,
    remove_rate: Annotated[float, typer.Option(min=1, help="Old keys removed a second, about.")] = 20_000.0,
    config: Config = None,
    bootstrap: Bootstrap = None,
    view: View = None,
    as_json: AsJson = False,
) -> None:
    """Fill new keys from the topic beside the old ones, switch readers and writers, remove the old ones.

    The service may run: its writer follows within a second. Until then Redis needs room for both. Stopped before the
    switch, nothing has changed.

    \b
    Example:
      mmcat cache rebuild --grace 300
    """
    with _work(load_settings(config, {"kafka.bootstrap_servers": bootstrap, "view.url": view})) as work:
        settings, progress = work
        from consumer.view_rebuild import Rebuild

        done = Rebuild(settings, progress, grace_s=grace, remove_per_s=remove_rate).run()
    if as_json:
        print_json(asdict(done))
    else:
        print(
            f"the view is {done.generation} now: {done.records} records read in {done.seconds:.1f} s, "
            f"{done.removed} old keys removed"
        )


@app.command()
def verify(
    limit: Annotated[int, typer.Option(min=0, help="Differing products that are named; all are counted.")] = 20,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that the view may take to reach the end.")] = 30.0,
    config: Config = None,
    bootstrap: Bootstrap = None,
    view: View = None,
    as_json: AsJson = False,
) -> None:
    """Compare the view with the topic, up to where the topic ends now; exit code 1 where they differ.

    Nothing is changed, and the service may run.

    \b
    Examples:
      mmcat cache verify
      mmcat cache verify --json --limit 1000
    """
    with _work(load_settings(config, {"kafka.bootstrap_servers": bootstrap, "view.url": view})) as work:
        settings, progress = work
        from consumer.view_verify import KINDS, Verify

        found = Verify(settings, progress, limit=limit, wait_s=wait).run()
    if as_json:
        print_json({"equal": not found.counts, **asdict(found)})
    else:
        for one in found.differences:
            print(f"{one.kind:<10} {one.product_id}  topic {one.topic_rank or '-'}  view {one.view_rank or '-'}")
        for kind, count in found.counts.items():
            say(f"{count} {kind}: {KINDS[kind]}")
        for partition, offsets in found.behind.items():
            say(f"partition {partition}: the view is {offsets} offsets behind what was compared")
        say(f"{found.products} products compared in {found.generation}, {sum(found.counts.values())} differ")
    if found.counts:
        raise typer.Exit(1)


@contextmanager
def _work(settings: "Settings") -> "Iterator[tuple[Settings, StderrProgress]]":
    from mmcat.cli.progress import StderrProgress

    with asking_broker(settings), StderrProgress() as progress:
        yield settings, progress
