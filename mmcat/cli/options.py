"""Options that several commands have, and the settings they end in: command line over environment over file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcat.cli.texts import CommandError

if TYPE_CHECKING:
    from consumer.settings import Settings

__all__ = ["Bootstrap", "Config", "Device", "Engine", "View", "asking_broker", "load_settings"]

Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings file; default: MMCAT_CONFIG, else ./mmcat.toml.")
]
Bootstrap = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Broker: kafka.bootstrap_servers.")]
View = Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey: view.url.")]
Device = Annotated[str | None, typer.Option(metavar="auto|cpu|cuda", help="Hardware: model.device.")]
Engine = Annotated[
    str | None, typer.Option(metavar="auto|eager|cpu|compiled", help="What runs the model: model.engine.")
]


def load_settings(config: Path | None, overrides: Mapping[str, Any] | None = None) -> "Settings":
    """Read the settings, and set logging up as they say.

    Raises:
        ConfigError: a sentence per wrong setting.
    """
    from consumer.loading import load
    from consumer.log import configure_logging

    settings, _ = load(config, overrides=overrides)
    configure_logging(settings.log.level, settings.log.format)
    return settings


@contextmanager
def asking_broker(settings: "Settings") -> Iterator[None]:
    """One sentence where the broker, or the lack of one, ends a command.

    Raises:
        CommandError: it does not answer, does not let us in, or refused what it was asked.
    """
    from consumer.kafka import KafkaException, not_done

    try:
        yield
    except KafkaException as error:
        raise CommandError(not_done(error.args[0], settings.kafka)) from error
