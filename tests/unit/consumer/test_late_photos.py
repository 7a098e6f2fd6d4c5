"""Late photos in the pipeline: what goes out at each attempt, whom it waits for, and who never waits for it.

The model is a stub, the broker and the view are played by the test; in tests/integration/test_late_photos.py they are
real.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from consumer.delivery import Delivery
from consumer.fetch import Fetched, PhotoFetcher, Validators
from consumer.fetch.addresses import AddressPolicy
from consumer.fetch.hosts import HostLimits
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.preparing import Fetcher
from consumer.rank import Rank
from consumer.records import Incoming, Origin, Outgoing
from consumer.retries import read_retry
from consumer.view import View, ViewAwayError
from consumer.view_guard import LateGuard
from consumer.work import Work
from mmcat.listing import ImageStatus
from tests.support.scripted_host import ScriptedHost, answer
from tests.support.stub_model import StubModel
from tests.support.waiting import eventually
from tests.unit.consumer.test_pipeline import Broker

GENERATION = StubModel().info.created_ms
FIRST, SECOND, LAST = (f"products.retry.{delay}" for delay in ("30s", "5m", "1h"))
MISSING = Fetched(ImageStatus.UNAVAILABLE, None, True, "503")
NOT_FOUND = Fetched(ImageStatus.UNAVAILABLE, None, True, "404", not_found=True)
GONE = Fetched(ImageStatus.UNAVAILABLE, None, False, "410")
THERE = Fetched(ImageStatus.USED, b"jpeg", False, "")


@dataclass
class Host:
    """Answers every address alike, when it may."""

    answer: Fetched = THERE
    asked: int = 0
    may: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may.set()

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def fetch(self, url: str, deadline: float, known: Validators | None = None) -> Fetched:
        assert deadline > time.monotonic(), "its time was over before it began"
        self.asked += 1
        while not self.may.is_set():
            await asyncio.sleep(0.01)
        return self.answer


@dataclass
class Shelf:
    """The view: what is on it, and whether it is there."""

    held: dict[str, tuple[Rank, bytes | None]] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    def connect(self) -> None:
        if self.away:
            raise ViewAwayError("away")

    def mget(self, product_ids: Sequence[str]) -> list[tuple[Rank, bytes | None] | None]:
        self.connect()
        self.asked += len(product_ids)
        return [self.held.get(one) for one in product_ids]

    def close(self) -> None:
        pass

    def put(self, origin: Origin, *rank: int, product: str = "p") -> None:
        of = {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset}
        self.held[product] = Rank(*rank), json.dumps({"origin": of}).encode()


def _now() -> int:
    return int(time.time() * 1000)


@dataclass
class Bench:
    """A pipeline with late photos on the bench."""

    pipeline: Pipeline
    broker: Broker
    host: Host
    shelf: Shelf
    model: StubModel
    metrics: Metrics
    deaths: list[BaseException]
    leases: dict[str, Lease] = field(default_factory=dict)
    offset: int = 0

    def submit(self, product: str = "p", *, timestamp_ms: int | None = None, **fields: Any) -> Incoming:
        """A live event with a photo."""
        value = json.dumps({"product_id": product, "title": "x", "image_url": "http://host/1.jpg", **fields}).encode()
        origin = Origin("in", 0, self.offset, _now() if timestamp_ms is None else timestamp_ms)
        self.offset += 1
        incoming = Incoming(origin, product.encode(), value, [])
        self.give(incoming)
        return incoming

    def give(self, incoming: Incoming) -> None:
        place = incoming.place
        lease = self.leases.setdefault(place.topic, Lease((place.topic, 0)))
        lease.start(place.offset)
        self.pipeline.submit([(incoming, lease)])

    def retry(self, sent: Outgoing, offset: int = 0) -> Incoming:
        """The record of a delay topic, polled at this offset."""
        incoming = read_retry(Incoming(Origin(sent.topic, 0, offset, _now()), sent.key, sent.value, sent.headers))
        self.give(incoming)
        return incoming

    def settled(self) -> list[Outgoing]:
        """Wait until nothing is in flight; what was sent since the last time."""
        assert self.pipeline.budget.wait_empty(10), "something is still in flight"
        assert self.pipeline.budget.bytes == 0
        assert not self.deaths
        sent, self.broker.sent = self.broker.sent, []
        return sent

    def outcomes(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("mmcat_listings_total", {"outcome": outcome})


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    made: list[Pipeline] = []

    def make(fetcher: Fetcher | None = None, **overrides: Any) -> Bench:
        settings, _ = load(environment={}, overrides={"batch.max_age_ms": 1, "review.audit_share": 0, **overrides})
        broker, host, shelf, model, metrics = Broker(), Host(), Shelf(), StubModel(), Metrics()
        deaths: list[BaseException] = []
        pipeline = Pipeline(
            settings,
            model,
            fetcher or host,
            cast(Delivery[Work], broker),
            metrics,
            on_failed=lambda _: None,
            on_death=deaths.append,
            late=LateGuard(cast(View, shelf), deaths.append),
        )
        pipeline.start()
        made.append(pipeline)
        return Bench(pipeline, broker, host, shelf, model, metrics, deaths)

    yield make
    for pipeline in made:
        pipeline.stop()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


def body(record: Outgoing) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.value or b"null")
    return found


def rank(record: Outgoing) -> Rank:
    return Rank.parse(dict(record.headers)["mmcat-rank"].decode())


# the first attempt ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_photo_that_may_come_gives_an_answer_at_once_and_a_retry_beside_it(bench: Bench) -> None:
    bench.host.answer = MISSING
    before = _now()
    event = bench.submit()
    result, retry = bench.settled()
    assert (body(result)["image"], body(result)["attempt"], rank(result).completeness) == ("pending", 0, 0)
    assert (retry.topic, retry.key, retry.value) == (FIRST, event.key, event.value)
    headers = dict(retry.headers)
    assert headers["mmcat-attempt"] == b"1"
    assert before + 30_000 <= int(headers["mmcat-due"]) <= _now() + 30_000
    assert event.origin.headers() == [one for one in retry.headers if one[0].startswith("mmcat-origin")]
    assert bench.outcomes("result") == 1


def test_the_offset_waits_for_the_retry_as_for_the_answer(bench: Bench) -> None:
    bench.host.answer = MISSING
    bench.broker.refuse = lambda record: record.topic == FIRST
    bench.submit()
    assert [one.topic for one in bench.settled()] == ["products.categorized", FIRST]
    assert bench.leases["in"].committable() == 0


@pytest.mark.parametrize("fetched", [GONE, Fetched(ImageStatus.REFUSED, None, False, "private address")])
def test_a_final_failure_is_final_at_once(bench: Bench, fetched: Fetched) -> None:
    bench.host.answer = fetched
    bench.submit()
    (result,) = bench.settled()
    assert (body(result)["image"], rank(result).completeness) == (fetched.status, 1)


def test_a_photo_that_is_not_found_is_retried_while_the_listing_is_fresh(make_bench: MakeBench) -> None:
    bench = make_bench(**{"photo.fresh_s": 60})
    bench.host.answer = NOT_FOUND
    bench.submit(timestamp_ms=_now())
    assert len(bench.settled()) == 2
    bench.submit("old", timestamp_ms=_now() - 61_000)
    (result,) = bench.settled()
    assert body(result)["image"] == "unavailable"


def test_a_listing_with_nothing_but_a_photo_is_answered_at_once_too(bench: Bench) -> None:
    bench.host.answer = MISSING
    bench.submit(title="")
    result, retry = bench.settled()
    assert body(result)["image"] == "pending"
    bench.host.answer = THERE
    bench.retry(retry)
    assert body(bench.settled()[0])["image"] == "used"


def test_a_host_that_asks_for_more_time_gets_it(bench: Bench) -> None:
    bench.host.answer = Fetched(ImageStatus.UNAVAILABLE, None, True, "429", retry_after_s=120)
    bench.submit()
    _, retry = bench.settled()
    assert retry.topic == SECOND


def test_without_delays_a_missing_photo_is_final(make_bench: MakeBench) -> None:
    bench = make_bench(**{"retry.delays": []})
    bench.host.answer = MISSING
    bench.submit()
    (result,) = bench.settled()
    assert body(result)["image"] == "unavailable"


# later attempts ───────────────────────────────────────────────────────────────────────────────────────────────────


def _pending(bench: Bench) -> tuple[Incoming, Outgoing]:
    """A listing whose photo was missing, as the view holds it, and its retry."""
    bench.host.answer = MISSING
    event = bench.submit()
    _, retry = bench.settled()
    bench.shelf.put(event.origin, event.origin.timestamp_ms, 0, GENERATION, 0)
    bench.host.answer = THERE
    return event, retry


def test_a_photo_that_came_late_outranks_the_answer_without_it(bench: Bench) -> None:
    event, retry = _pending(bench)
    bench.retry(retry, offset=7)
    (result,) = bench.settled()
    assert (body(result)["image"], body(result)["attempt"]) == ("used", 1)
    assert body(result)["origin"] == {
        "topic": "in",
        "partition": 0,
        "offset": 0,
        "timestamp": event.origin.timestamp_ms,
    }
    assert rank(result) == (event.origin.timestamp_ms, 0, GENERATION, 2)
    assert bench.leases[FIRST].committable() == 8, "its own place is finished, not its origin's"


def test_one_that_fails_again_hands_on_and_the_last_is_final(bench: Bench) -> None:
    event, retry = _pending(bench)
    bench.host.answer = MISSING
    for attempt, topic in ((2, SECOND), (3, LAST)):
        bench.retry(retry)
        (retry,) = bench.settled()
        assert (retry.topic, dict(retry.headers)["mmcat-attempt"]) == (topic, b"%d" % attempt)
        assert (retry.key, retry.value) == (event.key, event.value)
    assert bench.outcomes("result") == 1, "no outcome of their own"
    bench.retry(retry)
    (result,) = bench.settled()
    assert (body(result)["image"], body(result)["attempt"], rank(result).completeness) == ("unavailable", 3, 1)


class HostBeside(PhotoFetcher):
    """The real fetcher, and a real host that fails, in the asyncio loop of the pipeline."""

    async def start(self) -> None:
        await super().start()
        self.host = await ScriptedHost({"/1.jpg": answer(500)}).__aenter__()

    async def close(self) -> None:
        await self.host.__aexit__(None, None, None)
        await super().close()


def test_a_host_that_is_set_aside_is_not_asked_and_the_retry_moves_on(make_bench: MakeBench) -> None:
    every_port = tuple(range(1, 65_536))  # which one is not known before the host runs
    limits = HostLimits(per_host=1, failures_to_open=3, set_aside_s=3_600)
    fetcher = HostBeside(AddressPolicy(("127.0.0.1",), (), every_port), host_limits=limits)
    bench = make_bench(fetcher)
    for number in range(3):
        bench.submit(f"p{number}", image_url=fetcher.host.url("/1.jpg"))
        retry = bench.settled()[-1]
    assert len(fetcher.host.asked) == 3
    bench.retry(retry)
    (moved,) = bench.settled()
    assert (moved.topic, len(fetcher.host.asked)) == (SECOND, 3)


def test_a_dead_letter_sent_again_is_worked_as_if_for_the_first_time(bench: Bench) -> None:
    bench.host.answer = MISSING
    event = bench.submit()
    _, retry = bench.settled()
    again = Outgoing(FIRST, retry.key, retry.value, [*retry.headers, ("mmcat-replayed", b"1")])
    bench.retry(again)
    result, second = bench.settled()
    assert (body(result)["image"], body(result)["attempt"]) == ("pending", 1)
    assert (second.topic, dict(second.headers)["mmcat-attempt"]) == (SECOND, b"2")
    assert "mmcat-replayed" not in dict(second.headers)
    deletion = Outgoing(FIRST, b"p", None, [("mmcat-attempt", b"1"), ("mmcat-due", b"0"), *event.origin.headers()])
    bench.retry(deletion, offset=1)
    (tombstone,) = bench.settled()
    assert (tombstone.value, rank(tombstone).order) == (None, event.origin.timestamp_ms)


def test_what_says_not_of_what_it_is_a_retry_is_a_dead_letter(bench: Bench) -> None:
    bench.retry(Outgoing(FIRST, b"k", b"\xff", [("mmcat-attempt", b"one")]))
    (letter,) = bench.settled()
    headers = dict(letter.headers)
    assert (letter.topic, letter.value, headers["mmcat-error"]) == ("products.dead-letter", b"\xff", b"retry.headers")
    assert headers["mmcat-origin-topic"] == FIRST.encode()
    assert bench.leases[FIRST].committable() == 1


# the view ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_outranked_already_is_superseded_without_a_fetch(bench: Bench) -> None:
    event, retry = _pending(bench)
    asked = bench.host.asked
    bench.shelf.put(event.origin, event.origin.timestamp_ms + 1, 0, GENERATION, 2)
    bench.retry(retry)
    assert bench.settled() == []
    assert (bench.outcomes("superseded"), bench.host.asked) == (1, asked)
    assert bench.leases[FIRST].committable() == 1


@pytest.mark.parametrize("deleted", [False, True])
def test_what_is_outranked_while_the_photo_comes_is_superseded(bench: Bench, deleted: bool) -> None:
    event, retry = _pending(bench)
    bench.host.may.clear()
    asked = bench.host.asked
    bench.retry(retry)
    eventually(lambda: bench.host.asked > asked, "the photo is asked for")
    bench.shelf.put(event.origin, event.origin.timestamp_ms + (not deleted), 2 * deleted, GENERATION, 0)
    bench.host.may.set()
    assert bench.settled() == []
    assert bench.outcomes("superseded") == 1


@pytest.mark.parametrize(("offset", "superseded"), [(0, False), (1, True)])
def test_of_two_events_of_one_millisecond_neither_is_the_late_photo_of_the_other(
    bench: Bench, offset: int, superseded: bool
) -> None:
    event, retry = _pending(bench)
    bench.shelf.put(Origin("in", 0, offset, 0), event.origin.timestamp_ms, 0, GENERATION, 0)
    bench.retry(retry)
    assert (bench.settled() == []) == superseded


def test_an_attempt_without_the_photo_never_replaces_an_answer_that_saw_it(bench: Bench) -> None:
    """Not even a newer model's."""
    event, retry = _pending(bench)
    bench.host.answer = GONE
    bench.shelf.put(event.origin, event.origin.timestamp_ms, 0, GENERATION - 1, 2)
    bench.retry(retry)
    assert bench.settled() == []


def test_while_the_view_is_away_retries_wait_and_live_events_do_not(bench: Bench) -> None:
    _, retry = _pending(bench)
    bench.shelf.away = True
    asked = bench.host.asked
    bench.retry(retry)
    bench.submit("p", title="an update of the same product")
    bench.submit("q")
    eventually(lambda: len(bench.broker.sent) == 2, "live events go on")
    assert bench.host.asked == asked + 2
    assert (bench.leases["in"].committable(), bench.leases[FIRST].committable()) == (3, 0)
    bench.shelf.away = False
    assert [body(one)["attempt"] for one in bench.settled()] == [0, 0, 1]


def test_a_service_that_ends_does_not_wait_for_the_view(bench: Bench) -> None:
    _, retry = _pending(bench)
    bench.shelf.away = True
    bench.retry(retry)

    def given_up() -> bool:
        bench.pipeline.drop_waiting()
        return bench.pipeline.budget.wait_empty(0.05)

    eventually(given_up, "nothing is in flight")
    assert bench.settled() == []
    assert bench.leases[FIRST].committable() == 0, "it is read again"


def test_work_of_a_lease_that_ended_is_dropped(bench: Bench) -> None:
    _, retry = _pending(bench)
    bench.host.may.clear()
    bench.retry(retry)
    bench.leases[FIRST].end()
    bench.host.may.set()
    assert bench.settled() == []
