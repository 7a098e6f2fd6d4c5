"""What tests of the view share: a writer that runs, records of the output topic, what stands where in the end."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import redis

from consumer.errors import ViewError
from consumer.metrics import Metrics
from consumer.rank import Rank
from consumer.settings import KafkaSettings, Settings, TopicSettings, ViewSettings
from consumer.view_writer import ViewWriter
from tests.support.broker import Record, read_topic

Sent = tuple[bytes | None, bytes | None, dict[str, bytes]]
SETTLE_S = 60


class Quiet:
    """Progress that nobody watches."""

    def begin(self, stage: str, total: int) -> None:
        """Said to nobody."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Said to nobody."""


def settings_for(bootstrap: str, topic: str, url: str, group: str, prefix: str = "v", **view: object) -> Settings:
    """Settings of a writer that notices quickly."""
    quick = {"heartbeat_interval_ms": 300, "session_timeout_ms": 6000, "fetch_wait_max_ms": 20}
    return Settings(
        kafka=KafkaSettings.model_validate({"bootstrap_servers": bootstrap, "group_id": group, **quick}),
        topics=TopicSettings(output=topic),
        view=ViewSettings.model_validate({"url": url, "prefix": prefix, **view}),
    )


@contextmanager
def running(settings: Settings) -> Iterator[tuple[ViewWriter, Metrics]]:
    """A writer in a thread of this process, stopped at the end."""
    metrics = Metrics()
    writer = ViewWriter(settings, metrics)
    writer.start()
    try:
        yield writer, metrics
    finally:
        assert writer.stop(30), "the view writer did not stop"
    assert writer.error is None or isinstance(writer.error, ViewError)


def record(product: int, order: int, body: bytes | None = b"{}", complete: int = 2) -> Sent:
    """One record as the pipeline writes them; a deletion without a body."""
    rank = Rank(order, 2 if body is None else 0, 1, 0 if body is None else complete)
    name = f"{product}-{order}-{complete}".encode()
    origin = {"mmcat-origin-topic": b"in", "mmcat-origin-offset": b"%d" % order, "traceparent": b"00-\xff-" + name}
    return b"p%d" % product, body, {"mmcat-rank": rank.format().encode(), "mmcat-result-id": name, **origin}


def batch(first: int, count: int, products: int = 50) -> list[Sent]:
    """Records with rising ranks; every seventh is a deletion, every ninth comes late and is outranked."""
    sent = []
    for number in range(first, first + count):
        body = None if number % 7 == 0 else b'{"n":%d}' % number
        sent.append(record(number % products, 1 if number % 9 == 0 else number + 10, body))
    return sent


def winners(sent: Iterable[Sent]) -> dict[bytes, tuple[bytes, bytes | None]]:
    """What the view should hold: (rank, result) of each product."""
    held: dict[bytes, tuple[Rank, bytes | None]] = {}
    for key, value, headers in sent:
        if key is None or "mmcat-rank" not in headers:
            continue
        rank = Rank.parse(headers["mmcat-rank"].decode())
        if key not in held or rank >= held[key][0]:
            held[key] = (rank, value)
    return {key: (rank.format().encode(), value) for key, (rank, value) in held.items()}


def shown(url: str, prefix: str = "v") -> dict[bytes, tuple[bytes | None, bytes | None]]:
    """What the view holds: (rank, result) of each product."""
    with redis.Redis.from_url(url) as client:
        head = f"{prefix}:product:{{".encode()
        return {
            key.removeprefix(head)[:-1]: (client.hget(key, "rank"), client.hget(key, "result"))
            for key in client.scan_iter(match=f"{prefix}:product:*", count=1000)
        }


def ends_of(bootstrap: str, topic: str) -> dict[int, int]:
    """Partition to the offset after its last record, counted by reading: the embedded broker tells wrong ends."""
    return {found.partition: found.offset + 1 for found in read_topic(bootstrap, topic)}


def lasts(records: Iterable[Record]) -> dict[bytes, tuple[bytes, bytes | None]]:
    """What the topic says in the end: (rank, result) of the last record of each product."""
    return {one.key or b"": (one.headers["mmcat-rank"], one.value) for one in records}


def written(metrics: Metrics, outcome: str) -> float:
    """How many records had this outcome."""
    return metrics.registry.get_sample_value("mmcat_view_writes_total", {"outcome": outcome}) or 0.0


def up(metrics: Metrics) -> float | None:
    """Whether the writer says that the view answers."""
    return metrics.registry.get_sample_value("mmcat_view_up")
