"""A part that dies of anything ends the process with exit code 3."""

import threading
import traceback
from typing import Any, cast

import pytest

from consumer.broker_checks import check_transactions
from consumer.errors import ConfigError, FatalError
from consumer.intake import header_pairs
from consumer.kafka import Consumer, KafkaError, KafkaException, Message, polled
from consumer.metrics import Metrics
from consumer.service import Service
from consumer.settings import Settings
from consumer.view_topic import read_record
from consumer.view_writer import ViewWriter
from mmcat.cli.texts import exit_code
from tests.support.stub_model import StubModel
from tests.support.waiting import eventually

NOWHERE = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "http": {"port": 0}, "retry": {"delays": []}, "shutdown_s": 1}


def _ended(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> BaseException:
    """What ends a service that believes its broker to be there."""
    monkeypatch.setattr(Service, "_start_up", lambda self: setattr(self, "_admin", None))
    ended: list[BaseException] = []

    def serve() -> None:
        try:
            Service(Settings.model_validate(settings), StubModel()).run()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return ended[0]


@pytest.mark.parametrize("error", [ValueError("no"), KafkaException(KafkaError(1))])
def test_a_poll_loop_that_dies_ends_the_process(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise error

    monkeypatch.setattr(Service, "_loop", dies)
    ended = _ended(monkeypatch, {**NOWHERE, "view": {"enabled": False}})
    assert isinstance(ended, FatalError)
    assert exit_code(ended) == 3


def test_a_watch_that_dies_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise RuntimeError("the watch fell asleep")

    monkeypatch.setattr("consumer.service.LagWatch.look", dies)
    monkeypatch.setattr("consumer.service.WATCH_S", 0.01)
    ended = _ended(monkeypatch, {**NOWHERE, "view": {"enabled": False}})
    assert isinstance(ended, FatalError)
    assert "fell asleep" in str(ended)


class Fenced:
    """A client that raises what a callback of it has raised, as it does it."""

    def consume(self, *_: object) -> None:
        raise KafkaError(KafkaError._FATAL, "fenced")  # type: ignore[misc]


def test_what_a_callback_raised_comes_as_an_exception_that_can_be_shown() -> None:
    with pytest.raises(KafkaException) as caught:
        polled(cast(Consumer, Fenced()), 1, 0.1)
    assert caught.value.args[0].code() == KafkaError._FATAL
    assert caught.value.__context__ is None
    assert "fenced" in "".join(traceback.format_exception(caught.value))


def test_a_poll_loop_whose_callback_failed_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "_loop", lambda *_: polled(cast(Consumer, Fenced()), 1, 0.1))
    assert isinstance(_ended(monkeypatch, {**NOWHERE, "view": {"enabled": False}}), FatalError)


def test_a_view_writer_whose_callback_failed_says_that_it_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ViewWriter, "_turn", lambda *_: polled(cast(Consumer, Fenced()), 1, 0.1))
    writer = ViewWriter(Settings.model_validate(NOWHERE), Metrics())
    writer.start()
    eventually(lambda: writer.error is not None, "its thread has died")
    assert writer.stop(60)
    assert isinstance(writer.error, KafkaException)


@pytest.mark.parametrize("code", ["TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"])
def test_a_missing_right_to_a_transactional_id_is_told_at_the_start(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def init_transactions(self, *_: object) -> None:
            raise KafkaException(KafkaError(getattr(KafkaError, code)))

    monkeypatch.setattr("consumer.broker_checks.make_transactional_producer", lambda _: Refused())
    kafka = {**NOWHERE["kafka"], "instance_id": "one", "group_id": "g"}  # type: ignore[dict-item]
    settings = Settings.model_validate({**NOWHERE, "kafka": kafka, "delivery": "exactly_once"})
    with pytest.raises(ConfigError, match=r"does not let us use transactional\.id g-one"):
        check_transactions(settings)


@pytest.mark.parametrize("error", [SystemError("name"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "name")])
def test_a_record_whose_headers_cannot_be_shown_is_unreadable_and_stops_nothing(error: Exception) -> None:
    class Foreign:
        def headers(self) -> None:
            raise error

        def key(self) -> bytes:
            return b"p"

        def partition(self) -> int:
            return 0

        def offset(self) -> int:
            return 7

    message = cast(Message, Foreign())
    assert header_pairs(message) == []
    assert read_record(message) is None
