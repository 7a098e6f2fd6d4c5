"""How records are asked for: those there are wait only a moment for more; where there are none, the first ends it."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka import Consumer, KafkaError, KafkaException, polled

WAIT_S, COMPANY_S = 0.05, 0.005


class Queue:
    """A client with so many records, and one more that comes late; notes how long it was let wait."""

    def __init__(self, records: int, late: int | None = None) -> None:
        self._left, self._late = list(range(records)), late
        self.waits: list[float] = []

    def poll(self, timeout_s: float) -> int | None:
        self.waits.append(timeout_s)
        return self._late

    def consume(self, count: int, timeout_s: float) -> list[int]:
        self.waits.append(timeout_s)
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def asked(self, count: int, company_s: float | None = COMPANY_S) -> list[int]:
        return cast(list[int], polled(cast(Consumer, self), count, WAIT_S, company_s))


@given(there=st.integers(0, 9), count=st.integers(1, 9), company_s=st.sampled_from([None, COMPANY_S]))
def test_as_many_as_are_wanted_and_there_come_in_their_order(there: int, count: int, company_s: float | None) -> None:
    assert Queue(there).asked(count, company_s) == list(range(min(there, count)))


def test_what_is_there_waits_only_a_moment_and_what_comes_later_for_nothing() -> None:
    there, late = Queue(1), Queue(0, late=7)
    assert (there.asked(9), there.waits) == ([0], [COMPANY_S])
    assert (late.asked(9), late.waits) == ([7], [COMPANY_S, WAIT_S])


class Fenced(Queue):
    """A client that raises what a callback of it has raised, as it does it."""

    def poll(self, timeout_s: float) -> int | None:
        raise KafkaError(KafkaError._FATAL, "fenced")  # type: ignore[misc]


def test_what_a_callback_raised_comes_as_an_exception_here_too() -> None:
    with pytest.raises(KafkaException):
        Fenced(0).asked(1)
