"""`mmcat cache-writer`: the view writer alone, with the health port of the service and its exit codes."""

import signal
import threading
from typing import TYPE_CHECKING

import structlog

from mmcat.cli.options import Bootstrap, Config, View, load_settings
from mmcat.cli.texts import new_app

if TYPE_CHECKING:
    from consumer.settings import Settings

WATCH_S = 1.0
STOP_S = 10.0

app = new_app()


@app.command()
def cache_writer(config: Config = None, bootstrap: Bootstrap = None, view: View = None) -> None:
    """Keep Redis in step with the output topic, and do nothing else, until SIGTERM.

    For services that run with MMCAT_VIEW__ENABLED=false. Several may run: each record is ranked before it is written.

    \b
    Example:
      mmcat cache-writer --view redis://127.0.0.1:6379/0
    """
    settings = load_settings(config, {"kafka.bootstrap_servers": bootstrap, "view.url": view}, logs=True)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    run(settings, stopping)


def run(settings: "Settings", stopping: threading.Event) -> None:
    """Write the view until `stopping` is set; blocks.

    Raises:
        ConfigError: the view's address cannot be read, the health port is taken.
        FatalError: the writer ended by itself.
    """
    from consumer.errors import ConfigError, FatalError
    from consumer.health import Health, HealthServer
    from consumer.metrics import Metrics
    from consumer.view_writer import ViewWriter

    metrics, health = Metrics(), Health()
    server = HealthServer(health, metrics.registry, settings.http.host, settings.http.port)
    writer = ViewWriter(settings, metrics)
    try:
        port = server.start()
    except OSError as error:
        raise ConfigError(f"http.port {settings.http.port} cannot be opened: {error.strerror}") from None
    structlog.get_logger("mmcat.view").info("health_port_open", host=settings.http.host, port=port)
    writer.start()
    try:
        while not stopping.wait(WATCH_S):
            if not writer.alive:
                raise FatalError(f"the view writer ended: {writer.error or 'without a reason'}")
            health.beat()
            health.set("view", writer.reason)
    finally:
        writer.stop(STOP_S)
        server.stop()
