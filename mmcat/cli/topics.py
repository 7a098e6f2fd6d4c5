"""`mmcat topics create|check`: prints what `consumer.topics` makes and finds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.options import Bootstrap, Config, asking_broker, load_settings
from mmcat.cli.texts import new_app, print_json, say

if TYPE_CHECKING:
    from consumer.kafka import AdminClient
    from consumer.settings import Settings
    from consumer.topics import Plan

app = new_app()
Partitions = Annotated[int | None, typer.Option(min=1, help="Partitions of each topic; default: the broker's.")]
Replication = Annotated[int, typer.Option(min=1, help="Copies of each partition.")]
Dev = Annotated[bool, typer.Option("--dev", help="One copy of everything, for a single broker.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.callback()
def topics() -> None:
    """Create the topics with the right policies, or check those that are there.

    \b
    Examples:
      mmcat topics create --partitions 12
      mmcat topics check
    """


@app.command()
def create(
    partitions: Partitions = None,
    replication: Replication = 3,
    dev: Dev = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made.")] = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Make the topics that are missing; those that exist are left as they are.

    Exit code 1 where the broker is away or refuses one.

    \b
    Examples:
      mmcat topics create --partitions 12
      mmcat topics create --dev --bootstrap 127.0.0.1:9092
    """
    from consumer import topics as work

    settings, wanted = _plan(config, bootstrap, partitions, replication, dev)
    with _broker(settings) as admin:
        made = work.create(admin, wanted, dry_run=dry_run)
    if as_json:
        print_json([asdict(one) for one in made])
    else:
        for one in made:
            print(f"{one.action:<12} {one.topic}" + (f"  ({one.detail})" if one.detail else ""))
    if any(one.action == "failed" for one in made):
        raise typer.Exit(1)


@app.command()
def check(
    partitions: Partitions = None,
    replication: Replication = 3,
    dev: Dev = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Compare the topics with what the service needs; each finding comes with the command that mends it.

    Exit code 1 where something is wrong; warnings alone exit 0.

    \b
    Examples:
      mmcat topics check
      mmcat topics check --dev --json
    """
    from consumer import topics as work

    settings, wanted = _plan(config, bootstrap, partitions, replication, dev)
    with _broker(settings) as admin:
        findings = work.check(admin, wanted, bootstrap=settings.kafka.bootstrap_servers)
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        for one in findings:
            print(f"{one.severity}: {one.topic}: {one.problem}" + (f"\n    {one.command}" if one.command else ""))
        if not findings:
            say("all topics are as they should be")
    if any(one.severity is work.Severity.ERROR for one in findings):
        raise typer.Exit(1)


def _plan(
    config: Path | None, bootstrap: str | None, partitions: int | None, replication: int, dev: bool
) -> "tuple[Settings, Plan]":
    from consumer.topics import plan

    settings = load_settings(config, {"kafka.bootstrap_servers": bootstrap})
    return settings, plan(settings, partitions=partitions, replication=replication, dev=dev)


@contextmanager
def _broker(settings: "Settings") -> "Iterator[AdminClient]":
    from consumer.kafka import make_admin

    with asking_broker(settings):
        yield make_admin(settings.kafka)
