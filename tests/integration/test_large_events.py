"""Events of ten megabytes that travel as a hundred kilobytes: each is one cut dead letter, and the service stays small.

A broker compares a record with `max.message.bytes` as it travels, compressed; what it unpacks to nobody limits but us.
"""

import hashlib
import json
import random
import re
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer

from consumer.dead_letters import KEPT_BYTES
from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import DEADLINE_S, Record, TopicNames, accept, read_topic
from tests.support.outcomes import drained

pytestmark = pytest.mark.integration

MB = 2**20
EVENT_BYTES = 10 * MB
TRAVELS_BYTES = 200_000
BACKLOG = 60


def large_event(number: int) -> tuple[bytes, bytes]:
    """A whole listing, of which a hundredth is news."""
    rng = random.Random(number)
    said = rng.randbytes(5_000).hex()
    text = "".join(rng.randbytes(40).hex() + said for _ in range(EVENT_BYTES // (len(said) + 80)))
    event = {"product_id": f"large-{number}", "title": "냄비", "attributes": {"text": text}}
    return f"large-{number}".encode(), json.dumps(event, ensure_ascii=False).encode()


def send(bench: Bench, compression: str, values: list[tuple[bytes, bytes]]) -> None:
    """Each in a batch of its own, as large as it is."""
    producer = Producer(
        {
            "bootstrap.servers": bench.bootstrap,
            "compression.type": compression,
            "message.max.bytes": 2 * EVENT_BYTES,
            "batch.num.messages": 1,
            "partitioner": "murmur2_random",
        }
    )
    errors: list[KafkaError | None] = []
    for key, value in values:
        producer.produce(bench.topics.input, value, key, on_delivery=lambda error, _: errors.append(error))
        producer.flush(DEADLINE_S)
    assert errors == [None] * len(values)


def small_event(number: int) -> tuple[bytes, bytes]:
    key = f"small-{number}"
    return key.encode(), json.dumps({"product_id": key, "title": "냄비"}, ensure_ascii=False).encode()


def peak_bytes(bench: Bench) -> int:
    """The most memory that the service ever held."""
    status = Path(f"/proc/{bench.service.process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def check_letter(letter: Record, event: tuple[bytes, bytes]) -> None:
    """It says why, keeps the beginning, and whoever has the event can tell that it is this one."""
    key, value = event
    assert letter.headers["mmcat-error"] == b"event.too_large"
    assert letter.headers["mmcat-truncated"] == b"1"
    assert letter.headers["mmcat-size"] == b"%d" % len(value)
    assert letter.headers["mmcat-sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert (letter.key, letter.value) == (key, value[:KEPT_BYTES])


def finished(bench: Bench) -> None:
    """Wait until all that was sent has its outcome."""
    bench.service.until(lambda: drained(bench.bootstrap, bench.topics, bench.group), "all is committed", 120)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_an_event_that_unpacks_to_ten_megabytes_is_one_dead_letter_among_results(
    apache_kafka: str, topics: TopicNames, make_bench: MakeBench, compression: str
) -> None:
    accept(apache_kafka, topics.input, TRAVELS_BYTES)
    bench = make_bench(apache_kafka, topics, stub=True)
    small, large = [small_event(number) for number in range(20)], large_event(0)
    with bench.service as service:
        service.wait_ready()
        send(bench, compression, [*small[:10], large, *small[10:]])
        finished(bench)
        assert service.terminate() == 0
    [letter] = read_topic(apache_kafka, topics.dead_letter)
    check_letter(letter, large)
    assert {one.key for one in read_topic(apache_kafka, topics.output)} == {key for key, _ in small}


@pytest.mark.slow
def test_a_backlog_of_them_is_never_unpacked_all_at_once(
    apache_kafka: str, topics: TopicNames, make_bench: MakeBench
) -> None:
    accept(apache_kafka, topics.input, TRAVELS_BYTES)
    bench = make_bench(apache_kafka, topics, stub=True, MMCAT_LIMITS__IN_FLIGHT_BYTES=str(16 * MB))
    large = dict(large_event(number) for number in range(BACKLOG))
    with bench.service as service:
        service.wait_ready()
        send(bench, "zstd", [small_event(0)])
        finished(bench)
        before = peak_bytes(bench)
        assert service.terminate() == 0
        send(bench, "zstd", [*large.items(), small_event(1)])
        service.start()
        finished(bench)
        assert peak_bytes(bench) - before < BACKLOG * EVENT_BYTES // 2
        assert service.terminate() == 0
    letters = read_topic(apache_kafka, topics.dead_letter)
    assert len(letters) == BACKLOG
    for letter in letters:
        assert letter.key is not None
        check_letter(letter, (letter.key, large[letter.key]))
    assert len(read_topic(apache_kafka, topics.output)) == 2
