"""`mmcat cache-writer`: the view writer alone, as a process with the endpoints of the service.

For those who scale view and model apart, or keep several views. Everything it does is in view_writer.py.
"""

from typing import Final

import structlog

from consumer.ending import Ending
from consumer.errors import ConfigError, FatalError, ViewError
from consumer.health import Health, HealthServer
from consumer.kafka import KafkaException, entry_refused, make_admin, refused, require_topics
from consumer.metrics import Metrics
from consumer.settings import Settings
from consumer.view import View, ViewAwayError
from consumer.view_writer import ViewWriter

log = structlog.get_logger("mmcat.cache_writer")

BROKER_S: Final = 5.0
WATCH_S: Final = 0.2


def run_view_writer(settings: Settings) -> int:
    """Keep the view equal to the output topic until SIGTERM or SIGINT. Returns 0.

    Raises:
        ConfigError: the view evicts, the topic is missing or was made anew, the port is taken (exit 1).
        FatalError: the Kafka client cannot go on (exit 3).
    """
    ending = Ending(settings.shutdown_s)
    ending.begin_at_signals()
    metrics, health = Metrics(), Health()
    health.set("view", "the view was not reached yet")
    server = HealthServer(health, metrics.registry, settings.http.host, settings.http.port)
    try:
        port = server.start()
    except OSError as error:
        raise ConfigError(f"http.port {settings.http.port} cannot be opened: {error.strerror}") from None
    log.info("health_port_open", host=settings.http.host, port=port)
    try:
        _refuse_evicting(settings)
        _wait_for_topic(settings, ending, health)
        if not ending.told:
            _write(settings, metrics, health, ending)
    finally:
        server.stop()
    log.info("stopped")
    return 0


def _write(settings: Settings, metrics: Metrics, health: Health, ending: Ending) -> None:
    writer = ViewWriter(settings, metrics)
    writer.start()
    seen = writer.moved_at
    while writer.alive and not ending.wait(WATCH_S):
        if writer.moved_at != seen:
            seen = writer.moved_at
            health.beat()
        up = metrics.registry.get_sample_value("mmcat_view_up")
        health.set("view", None if up else writer.reason or "the view was not reached yet")
    ending.say()
    if not writer.stop(settings.shutdown_s):
        log.warning("stop_timed_out", after_s=settings.shutdown_s)
    if isinstance(writer.error, ViewError):
        raise ConfigError(str(writer.error)) from writer.error
    if writer.error is not None:
        raise FatalError(f"the view writer died: {writer.error}") from writer.error


def _refuse_evicting(settings: Settings) -> None:
    """Say so at once if the view is there and would lose products; one that is away is waited for later."""
    view = View.from_settings(settings.view)
    try:
        view.connect()
    except ViewError as error:
        raise ConfigError(str(error)) from error
    except ViewAwayError as error:
        log.warning("view_away", detail=str(error))
    finally:
        view.close()


def _wait_for_topic(settings: Settings, ending: Ending, health: Health) -> None:
    """Wait for the broker; a broker that answers and has no such topic is a mistake to be told."""
    admin = make_admin(settings.kafka)
    while not ending.told:
        health.beat()
        try:
            require_topics(admin, settings.kafka, [settings.topics.output], BROKER_S)
        except KafkaException as error:
            if refused(error.args[0]):
                raise ConfigError(entry_refused(error.args[0], settings.kafka)) from None
            log.warning("broker_away", detail=str(error.args[0])[:200])
            ending.wait(1.0)
            continue
        return
