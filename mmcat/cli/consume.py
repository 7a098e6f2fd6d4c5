"""`mmcat consume`: the service.

Joins the library and the consumer, which takes any model that keeps its protocol and gets ours here.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.interrupts import interruptible
from mmcat.cli.options import Bootstrap, Config, Device, Engine, View, load_settings
from mmcat.cli.texts import new_app

if TYPE_CHECKING:
    from consumer.settings import Settings
    from mmcat.categorizer import Categorizer

app = new_app()
Group = Annotated[str | None, typer.Option(metavar="NAME", help="Consumer group: kafka.group_id.")]


@app.command()
def consume(
    config: Config = None,
    bundle: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Trained bundle: model.bundle.")] = None,
    bootstrap: Bootstrap = None,
    group: Group = None,
    view: View = None,
    device: Device = None,
    engine: Engine = None,
) -> None:
    """Run the service: listings from Kafka, results to Kafka, Redis kept in step, until SIGTERM.

    Everything else is a setting: see `mmcat config show`. Health and metrics are at http.port (9464): /healthz,
    /readyz, /metrics. Exit codes: 0 after SIGTERM, 1 wrong setting, bundle or topics, 3 start it again.

    \b
    Examples:
      mmcat consume --bundle bundles/cross
      MMCAT_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 mmcat consume --config mmcat.toml
    """
    overrides = {
        "model.bundle": bundle,
        "model.device": device,
        "model.engine": engine,
        "kafka.bootstrap_servers": bootstrap,
        "kafka.group_id": group,
        "view.url": view,
    }
    from consumer.kafka import transactional_id

    settings = load_settings(config, overrides)
    if settings.delivery == "exactly_once":
        transactional_id(settings.kafka)  # before the model takes its seconds to load
    with interruptible():  # as process 1 of a container a signal that nobody handles is lost
        model = load_model(settings)
    from consumer.service import Service

    service = Service(settings, model)
    code = service.run()
    # The interpreter would wait for what the Kafka client still holds, as long as the brokers are away.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def load_model(settings: "Settings") -> "Categorizer":
    """Load the bundle that the settings name; blocks for seconds.

    Raises:
        ConfigError: none is named.
        BundleError: it cannot be run.
    """
    from consumer.errors import ConfigError

    if settings.model.bundle is None:
        raise ConfigError(
            "model.bundle is not set: name the folder of a trained bundle (--bundle, MMCAT_MODEL__BUNDLE)"
        )
    import structlog

    from mmcat.categorizer import Categorizer
    from mmcat.cli.bundles import ENGINES, home

    chosen = settings.model
    model = Categorizer.load(
        settings.model.bundle,
        device=chosen.device,
        engine=chosen.engine,
        precision=chosen.precision,
        threads=chosen.threads,
        evidence=chosen.evidence,
        cache=home() / ENGINES,
    )
    log = structlog.get_logger("mmcat.engine")
    log.info("engine_chosen", asked=chosen.engine, engine=model.info.engine, why=model.why_engine)
    return model
