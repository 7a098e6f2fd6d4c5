"""What the race against other stream libraries counts, compares and refuses; the race itself is run by hand."""

import json
from dataclasses import dataclass
from typing import cast

import pytest
from confluent_kafka import Message

from consumer.events import Event
from consumer.records import Incoming, Origin
from consumer.results import Answered, Audit, result_record
from mmcat.cli.benchmarks.null_service import NullModel
from mmcat.cli.benchmarks.transport import event as listing
from mmcat.cli.processes import ServerError
from mmcat.listing import Listing
from tests.benchmarks.bare_loop import record
from tests.benchmarks.peers.__main__ import summary
from tests.benchmarks.peers.race import Turn, event, rate
from tests.benchmarks.peers.work import AHEAD, BATCH

SAME = {"p1": ("1.2", 0.5), "p2": ("3", 0.9)}


def test_neither_the_first_batch_counts_nor_what_was_fetched_ahead_at_the_end() -> None:
    """A late first result and an end at another pace change nothing."""
    steady = [10 * number for number in range(BATCH + 100 + AHEAD)]
    late_ends = [0, *steady[1:-AHEAD], *(stamp + 9_000 for stamp in steady[-AHEAD:])]
    assert rate(steady[::-1]) == rate(late_ends) == pytest.approx(100.0)


@dataclass
class Polled:
    """A message as the client gives it."""

    payload: bytes

    def topic(self) -> str:
        return "in"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 42

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_760_000_000_123

    def value(self) -> bytes:
        return self.payload


def test_the_bare_loop_writes_the_record_that_the_service_writes() -> None:
    """But for the time: the peer of the transport benchmark does the same work."""
    message = Polled(listing(7))
    event = Event.model_validate_json(message.value())
    (result,) = NullModel().categorize_prepared([NullModel().prepare(Listing(event.product_id, event.title))])
    incoming = Incoming(Origin("in", 3, 42, 1_760_000_000_123), event.product_id.encode(), message.value(), [])
    info = NullModel().info
    answered = Answered(incoming, event, result, incoming.origin.timestamp_ms, info.created_ms, 0, "")
    ours, _ = result_record(answered, info, "out", Audit(0.0))
    value, headers = record(event, cast(Message, message))
    assert {**json.loads(value), "categorized_at": ""} == json.loads(ours.value or b"")
    text = [(name, one.encode() if isinstance(one, str) else one) for name, one in headers]
    assert text == ours.headers


def test_the_service_is_compared_with_the_best_peer_turn_by_turn() -> None:
    """The machine was half as fast in the second turn; who was best once only is not the best."""
    rates = {
        "mmcat (auto)": (60.0, 30.0, 60.0),
        "arroyo (eager)": (20.0, 10.0, 20.0),
        "bytewax (eager)": (10.0, 30.0, 10.0),
        "arroyo (auto)": (50.0, 25.0, 50.0),
    }
    found = summary({name: [Turn(one, SAME) for one in several] for name, several in rates.items()})
    assert (found["eager"]["best"], found["eager"]["median"], found["eager"]["pairs"]) == ("arroyo", 3.0, 3)
    assert (found["auto"]["best"], found["auto"]["median"]) == ("arroyo", 1.2)
    assert found["equal_answers"] == 1.0


@pytest.mark.parametrize("other", [("4", 0.9), ("3", 0.7)])
def test_a_peer_that_answers_otherwise_fails_the_run(other: tuple[str, float]) -> None:
    turns = {name: [Turn(1.0, SAME)] for name in ("mmcat (auto)", "arroyo (eager)", "arroyo (auto)")}
    turns["arroyo (eager)"] = [Turn(1.0, SAME | {"p2": other})]
    with pytest.raises(ServerError, match=r"arroyo \(eager\) 50\.0%"):
        summary(turns)


def test_no_two_listings_of_a_turn_share_a_title_or_a_photo() -> None:
    """Equal ones are encoded once, which would measure that; the host gives each address bytes of its own."""
    listings = [event(number, "http://host/{}.jpg") for number in range(300)]
    assert len({one["title"] for one in listings}) == len({one["image_url"] for one in listings}) == 300
