"""How records are asked for: the first is waited for, and then as many more as there are, for a moment."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka import Consumer, KafkaError, KafkaException, polled

WAIT_S, COMPANY_S = 0.02, 0.003


class Queue:
    """A client with so many records; notes how long it was let wait."""

    def __init__(self, records: int) -> None:
        self._left = list(range(records))
        self.waits: list[float] = []

    def poll(self, timeout_s: float) -> int | None:
        self.waits.append(timeout_s)
        return self._left.pop(0) if self._left else None

    def consume(self, count: int, timeout_s: float) -> list[int]:
        assert count > 0, "the client would wait for nothing"
        self.waits.append(timeout_s)
        taken, self._left = self._left[:count], self._left[count:]
        return taken


@given(there=st.integers(0, 9), count=st.integers(1, 9), company_s=st.sampled_from([None, 0.0, COMPANY_S]))
def test_as_many_as_are_wanted_and_there_come_in_their_order(there: int, count: int, company_s: float | None) -> None:
    found = polled(cast(Consumer, Queue(there)), count, WAIT_S, company_s)
    assert cast(list[int], found) == list(range(min(there, count)))


def test_who_is_there_waits_only_a_moment_for_others() -> None:
    nobody, one = Queue(0), Queue(1)
    polled(cast(Consumer, nobody), 9, WAIT_S, COMPANY_S)
    polled(cast(Consumer, one), 9, WAIT_S, COMPANY_S)
    assert (nobody.waits, one.waits) == ([WAIT_S], [WAIT_S, COMPANY_S])


class Fenced:
    """A client that raises what a callback of it has raised, as it does it."""

    def poll(self, *_: object) -> None:
        raise KafkaError(KafkaError._FATAL, "fenced")  # type: ignore[misc]


def test_what_a_callback_raised_comes_as_an_exception_here_too() -> None:
    with pytest.raises(KafkaException):
        polled(cast(Consumer, Fenced()), 1, WAIT_S, COMPANY_S)
