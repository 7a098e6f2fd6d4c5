"""Late photos on real parts: Apache Kafka with delay topics, Valkey, and a photo host that fails first."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from consumer.rank import Rank
from consumer.records import Incoming, Origin
from consumer.results import best_possible
from consumer.retries import ATTEMPT, DUE, REPLAYED
from consumer.view import Ranked, View
from consumer.view_guard import ViewGuard
from mmcat.cli.processes import free_port
from mmcat.cli.servers import LocalValkey
from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import Record, TopicNames, committed, create_topics, end_offsets, read_topic, send
from tests.support.late_host import LateHost, Step
from tests.support.outcomes import Stream, check_ranks, drained, view_differences, view_of, wait_for_view

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PARTITIONS = 2


@pytest.fixture
def host() -> Iterator[LateHost]:
    with LateHost() as one:
        yield one


@dataclass
class Late:
    """A bench with delay topics, and what its topics hold."""

    bench: Bench
    host: LateHost
    delays: tuple[str, ...]

    def delay_topics(self) -> list[str]:
        return [f"{self.bench.topics.retry_prefix}.{delay}" for delay in self.delays]

    def register(self, *products: str, photo: bool = True, title: str = "x", **headers: bytes) -> None:
        """Send listings; the photo of each stands under its name."""
        records = []
        for product in products:
            value = {"product_id": product, "title": title}
            value |= {"image_url": self.host.url(f"/{product}")} if photo else {}
            records.append((product.encode(), json.dumps(value).encode(), headers))
        send(self.bench.bootstrap, self.bench.topics.input, records)

    def answers(self) -> dict[str, list[dict[str, Any]]]:
        """The results of each product, in order; None for a deletion."""
        found = defaultdict(list)
        for one in read_topic(self.bench.bootstrap, self.bench.topics.output):
            found[(one.key or b"").decode()].append(json.loads(one.value or b"null"))
        return found

    def images(self) -> dict[str, list[str]]:
        return {
            product: [one["image"] if one else "deleted" for one in answers]
            for product, answers in self.answers().items()
        }

    def view_rank(self, product: str) -> bytes | None:
        return view_of(self.bench.view_url, self.bench.view_prefix, [product.encode()])[product.encode()][0]

    def drained(self) -> bool:
        """Everything in the input and the delay topics is committed."""
        ours = [self.bench.topics.input, *self.delay_topics()]
        return all(
            committed(self.bench.bootstrap, self.bench.group, topic)[partition] == end or end == 0
            for topic in ours
            for partition, end in end_offsets(self.bench.bootstrap, topic).items()
        )

    def retries(self, delay: str) -> list[Record]:
        return read_topic(self.bench.bootstrap, f"{self.bench.topics.retry_prefix}.{delay}")

    def check_at_rest(self) -> None:
        """Last of each key in the topic == highest rank == view."""
        read = read_topic(self.bench.bootstrap, self.bench.topics.output)
        stream = Stream([], read, [], [])
        check_ranks(stream)
        wait_for_view(stream, self.bench.view_url, self.bench.view_prefix)
        assert not view_differences(stream, self.bench.view_url, self.bench.view_prefix)


@pytest.fixture
def make_late(apache_kafka: str, topics: TopicNames, make_bench: MakeBench, host: LateHost) -> Any:
    def make(*delays: str, **more: str) -> Late:
        create_topics(apache_kafka, [f"{topics.retry_prefix}.{delay}" for delay in delays], PARTITIONS)
        settings = {
            "MMCAT_RETRY__DELAYS": ",".join(delays),
            "MMCAT_PHOTO__PORTS": str(host.port),
            "MMCAT_PHOTO__DEADLINE_S": "50",  # a machine that is busy is no reason for a photo to be late
            "MMCAT_REVIEW__AUDIT_SHARE": "0",
            "MMCAT_COMMIT_INTERVAL_S": "0.2",
        }
        return Late(make_bench(apache_kafka, topics, stub=True, **{**settings, **more}), host, delays)

    return make


def test_a_late_photo_is_seen_in_the_end_and_one_that_never_comes_is_said_to_be_unavailable(make_late: Any) -> None:
    late: Late = make_late("1s", "2s")
    script, always = late.host.script, late.host.always
    script["/late"].append(Step(404))
    script["/bare"].append(Step(503))
    script["/busy"].append(Step(429, {"Retry-After": "2"}))
    script["/twice"] += [Step(404), Step(404)]
    always["/never"], always["/gone"] = Step(404), Step(410)
    late.register("late", "twice", "never", "gone", "busy", "there", traceparent=b"00-1")
    late.register("bare", title="")
    with late.bench.service as service:
        expected = {
            "late": ["pending", "used"],
            "bare": ["pending", "used"],
            "busy": ["pending", "used"],
            "twice": ["pending", "used"],
            "never": ["pending", "unavailable"],
            "gone": ["unavailable"],
            "there": ["used"],
        }
        service.until(lambda: late.images() == expected, "every photo has its end")
        service.until(late.drained, "all is committed, retries too")
        service.until(lambda: service.metric("mmcat_consumer_lag", role="retry") == 0, "no retry waits")
        assert service.metric("mmcat_retry_overdue_seconds") == 0
        assert service.terminate() == 0
    answers = late.answers()
    attempts = {product: [one["attempt"] for one in found] for product, found in answers.items()}
    assert attempts["late"] == [0, 1]
    assert (attempts["twice"], attempts["never"]) == ([0, 2], [0, 2])
    for pending, last in (found for found in answers.values() if len(found) == 2):
        assert pending["origin"] == last["origin"]
        assert (pending["rank"][:3], pending["rank"][3]) == (last["rank"][:3], 0)
    first = {(one.key or b"").decode() for one in late.retries("1s")}
    assert first == {"late", "bare", "twice", "never"}, "who asks for two seconds gets them"
    assert {one.headers["traceparent"] for one in late.retries("1s") if one.key != b"bare"} == {b"00-1"}
    done = {
        (one.key, one.headers["mmcat-rank"][-1:]): one.timestamp_ms
        for one in read_topic(late.bench.bootstrap, late.bench.topics.output)
    }
    due = {one.key: int(one.headers["mmcat-due"]) for delay in late.delays for one in late.retries(delay)}
    assert all(max(at for (one, _), at in done.items() if one == key) >= time_ms for key, time_ms in due.items())
    late.check_at_rest()


def test_what_was_updated_or_deleted_meanwhile_is_superseded(make_late: Any) -> None:
    late: Late = make_late("1s")
    gate = threading.Event()
    for product in ("updated", "deleted"):
        late.host.script[f"/{product}"] += [Step(404), Step(200, gate=gate)]
    with late.bench.service as service:
        late.register("updated", "deleted")
        service.until(
            lambda: [late.host.asked.count(path) for path in ("/updated", "/deleted")] == [2, 2],
            "the photos are asked for again",
        )
        before = [late.view_rank(product) for product in ("updated", "deleted")]
        late.register("updated", photo=False)
        send(late.bench.bootstrap, late.bench.topics.input, [(b"deleted", None, {})])
        service.until(
            lambda: all(
                late.view_rank(product) not in (None, old)
                for product, old in zip(("updated", "deleted"), before, strict=True)
            ),
            "the view knows",
        )
        gate.set()
        service.until(
            lambda: service.metric("mmcat_listings_total", outcome="superseded") == 2, "both late photos are too late"
        )
        service.until(late.drained, "all is committed")
        assert service.terminate() == 0
    assert late.images() == {"updated": ["pending", "absent"], "deleted": ["pending", "deleted"]}
    late.check_at_rest()


def test_a_kill_in_the_middle_loses_no_retry(make_late: Any) -> None:
    late: Late = make_late("3s")
    products = [f"p{number}" for number in range(30)]
    for product in products:
        late.host.script[f"/{product}"].append(Step(404))
    late.register(*products)
    with late.bench.service as service:
        service.until(lambda: len(late.retries("3s")) >= 10, "some retries wait")
        service.kill()
        service.start()
        service.until(late.drained, "all is committed, retries too", 90)
        service.until(
            lambda: {found[-1] for found in late.images().values()} == {"used"} and len(late.images()) == 30,
            "every photo was seen",
        )
        assert service.terminate() == 0
    late.check_at_rest()


def test_while_the_first_retry_is_not_due_polling_goes_on_and_nobody_waits(make_late: Any) -> None:
    late: Late = make_late("1h", MMCAT_KAFKA__MAX_POLL_INTERVAL_MS="80000")
    for number in range(8):
        late.host.always[f"/late{number}"] = Step(404)
    late.register(*(f"late{number}" for number in range(8)))
    with late.bench.service as service:
        service.until(lambda: len(late.retries("1h")) == 8, "all photos are late")
        service.until(lambda: service.metric("mmcat_consumer_lag", role="retry") == 8, "all retries wait")
        late.register("live", photo=False)
        service.until(lambda: "live" in late.images(), "live events go on")
        assert service.metric("mmcat_retry_overdue_seconds") == 0
        assert service.metric("mmcat_consumer_lag", role="live") == 0
        assert (service.status("/readyz"), service.status("/healthz")) == (200, 200)
        service.until(lambda: drained(late.bench.bootstrap, late.bench.topics, late.bench.group), "and are committed")
        assert service.terminate() == 0
    said = [json.loads(line) for line in late.bench.service.log.read_text("utf-8").splitlines()]
    given = {name for line in said if line["event"] == "assigned" for name in line["partitions"]}
    assert given == {name for line in said if line["event"] == "revoked" for name in line["partitions"]}
    assert {name.split()[0] for name in given if " " in name} == set(late.delay_topics())
    assert len(late.host.asked) == 8


def test_a_dead_letter_sent_to_the_first_delay_is_worked_again_and_a_broken_retry_is_a_dead_letter(
    make_late: Any,
) -> None:
    late: Late = make_late("1s", "2s")
    late.host.script["/late"].append(Step(503))
    value = json.dumps({"product_id": "p", "title": "x", "image_url": late.host.url("/late")}).encode()
    now_ms = int(time.time() * 1000)
    origin = Origin(late.bench.topics.input, 1, 12_345, now_ms - 5_000)
    headers = {**dict(origin.headers()), ATTEMPT: b"1", DUE: b"%d" % now_ms, REPLAYED: b"1"}
    broken = {**headers, ATTEMPT: b"first"}
    first_topic = late.delay_topics()[0]
    send(late.bench.bootstrap, first_topic, [(b"p", value, headers), (b"q", b"\xff", broken)])
    with late.bench.service as service:
        service.until(lambda: late.images() == {"p": ["pending", "used"]}, "it is worked as if new")
        service.until(late.drained, "all is committed")
        assert service.terminate() == 0
    pending, used = late.answers()["p"]
    assert (pending["attempt"], used["attempt"]) == (1, 2)
    assert pending["rank"][0] == used["rank"][0] == origin.timestamp_ms
    assert pending["origin"]["offset"] == 12_345
    (letter,) = read_topic(late.bench.bootstrap, late.bench.topics.dead_letter)
    assert (letter.key, letter.value) == (b"q", b"\xff")
    assert letter.headers["mmcat-error"] == b"retry.headers"


def test_while_the_view_is_away_only_late_photos_wait(make_late: Any) -> None:
    cache = LocalValkey(port=free_port())
    late: Late = make_late("1s", MMCAT_VIEW__URL=cache.url)
    late.host.script["/late"].append(Step(404))
    late.register("late")
    with late.bench.service as service:
        service.until(lambda: "waits_for_the_view" in late.bench.service.log.read_text("utf-8"), "it asks the view")
        late.register("live", photo=False)
        late.register("late2", photo=False)
        service.until(lambda: late.images().keys() == {"late", "live", "late2"}, "live events go on")
        service.until(lambda: (service.metric("mmcat_retry_overdue_seconds") or 0) > 0, "it is said to be overdue")
        assert late.images()["late"] == ["pending"]
        with cache:
            service.until(lambda: late.images()["late"] == ["pending", "used"], "the view is back")
            service.until(late.drained, "all is committed")
            late.check_at_rest()


@pytest.mark.parametrize(
    ("held_offset", "late_photo", "outranked"), [(7, True, False), (8, True, True), (8, False, False)]
)
def test_an_answer_of_the_same_order_is_replaced_by_its_own_late_photo_alone(
    valkey_url: str, view_prefix: str, held_offset: int, late_photo: bool, outranked: bool
) -> None:
    held = json.dumps({"origin": {"topic": "in", "partition": 0, "offset": held_offset}}).encode()
    view = View(valkey_url, view_prefix, 3_600)
    view.connect()
    view.apply([Ranked("p", Rank(1_000, 0, 5, 0), held)])
    incoming = Incoming(Origin("in", 0, 7, 1_000), b"p", b"{}", [])
    record = best_possible(incoming, "p", 1_000, 5, deleted=False)
    with closing(ViewGuard(view, threading.Event(), late=late_photo)) as guard:
        assert guard(record) == outranked
