"""`mmcat config show`: every setting, its value and where the value comes from."""

from typing import Annotated

import typer

from mmcat.cli.options import Config
from mmcat.cli.texts import new_app, print_json

app = new_app()


@app.callback()
def settings() -> None:
    """Show the settings.

    \b
    Example:
      mmcat config show
    """


@app.command()
def show(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: name to value and origin.")] = False,
) -> None:
    """Show every setting with its value and its origin: default, file, environment. Secrets are stars.

    A setting `photo.deadline_s` is the variable MMCAT_PHOTO__DEADLINE_S, and in mmcat.toml `deadline_s` under [photo].
    Properties of librdkafka pass through under kafka: MMCAT_KAFKA__SECURITY_PROTOCOL=SSL.

    \b
    Examples:
      mmcat config show
      MMCAT_BATCH__MAX_AGE_MS=20 mmcat config show --json
    """
    from consumer.loading import load, shown

    found, origins = load(config)
    rows = {name: {"value": value, "origin": origins.get(name, "default")} for name, value in shown(found).items()}
    if as_json:
        print_json(rows)
        return
    width = max(map(len, rows))
    for name, row in rows.items():
        value = "" if row["value"] is None else str(row["value"])
        print(f"{name:<{width}}  {value:<40}  {row['origin']}")
