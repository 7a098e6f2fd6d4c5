"""What a refused record means: a right that was lost ends the process, anything else is told to whoever sent it."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from consumer.delivery import Delivery
from consumer.errors import FatalError
from consumer.kafka import KafkaError, Producer
from consumer.offsets import Lease
from consumer.records import Outgoing


class Refusing:
    """A producer whose broker refuses every record with the same error."""

    def __init__(self, code: int) -> None:
        self._error = KafkaError(code)

    def produce(self, topic: str, *_: Any, on_delivery: Callable[..., None], **__: Any) -> None:
        on_delivery(self._error, type("Message", (), {"topic": lambda self: topic})())


@pytest.mark.parametrize(
    ("code", "topic", "ends"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "categorized", True),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "review", True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "dead-letter", False),
        (KafkaError.MSG_SIZE_TOO_LARGE, "categorized", False),
    ],
)
def test_a_right_to_write_that_was_lost_ends_the_process(code: int, topic: str, ends: bool) -> None:
    deaths: list[BaseException] = []
    told: list[bool] = []
    delivery = Delivery(cast(Producer, Refusing(code)), deaths.append, patient="dead-letter")
    delivery.send([Outgoing(topic, b"k", b"v", [])], told.append, Lease(("in", 0)), 0)
    assert told == [False]
    assert [type(death) for death in deaths] == ([FatalError] if ends else [])
