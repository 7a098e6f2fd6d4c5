"""The peer of the transport benchmark: what a bare confluent-kafka loop does with the same events, on one thread.

    python -m tests.benchmarks.bare_loop BOOTSTRAP GROUP INPUT OUTPUT

Poll, the same pydantic parse, the same record by the same serialiser, produced idempotently with a delivery callback,
committed once a second after a flush. The record is what any producer of `products.categorized` must write: the value
with its identity and input hash (three SHA-256), and the six headers that readers rank and compare by; test_peers.py
holds it to be the service's own but for the time. A record without these, which this loop once wrote, is none that the
view, a replay or a reader that drops duplicates could use.

It promises less: no order per product, no budget, no review copies, no dead letters, no metrics, and a rebalance loses
or repeats what is in flight.
"""

import signal
import sys
import time
from hashlib import sha256
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, Producer
from pydantic_core import to_json

from consumer.events import Event

GENERATION: Final = 1_700_000_000_000
HASH: Final = "0" * 64
MODEL: Final = {"name": "null", "fingerprint": HASH, "engine": "null", "precision": "fp32", "taxonomy": HASH}


def main() -> int:
    bootstrap, group, source, target = sys.argv[1:]
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4"}
    )
    failed: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.str())

    consumer.subscribe([source])
    commit_at, began = time.monotonic() + 1.0, False
    while not stopping:
        for message in consumer.consume(500, 0.02):
            began = True
            event = Event.model_validate_json(message.value() or b"")
            value, headers = record(event, message)
            producer.produce(target, value, message.key(), headers=headers, on_delivery=delivered)
        producer.poll(0)
        if began and time.monotonic() >= commit_at:  # before the first record there is nothing to commit
            producer.flush(10)
            consumer.commit(asynchronous=False) if not failed else stopping.append(1)
            commit_at = time.monotonic() + 1.0
    producer.flush(10)
    consumer.close()
    return 1 if failed else 0


def record(event: Event, message: Message) -> tuple[bytes, list[tuple[str, str | bytes | None]]]:
    """A constant answer as the value and the headers of a record of `products.categorized`."""
    topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
    _, timestamp = message.timestamp()
    event_hash = sha256(message.value() or b"").hexdigest()
    identity = digest(f"{event.product_id}\0{timestamp}\0{event_hash}\0{GENERATION}\0{HASH}\0fp32\0{2}")
    texts = f"{event.title}\0{event.brand or ''}\0{event.maker or ''}\0{event.model}\0{event.image_url or ''}"
    value = {
        "schema_version": 1,
        "product_id": event.product_id,
        "result_id": identity,
        "path": [{"level": 1, "id": "1", "name": "everything", "probability": 0.9}],
        "probability": 0.9,
        "safe_level": 1,
        "alternatives": [],
        "decision": "accept",
        "image": "absent",
        "model": MODEL,
        "rank": [timestamp, 0, GENERATION, 2],
        "input_hash": digest(texts),
        "origin": {"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp},
        "attempt": 0,
        "reused": False,
        "registered_at": event.registered_at,
        "categorized_at": "2026-01-01T00:00:00.000Z",
    }
    return to_json(value), [
        ("mmcat-rank", b"%d,0,%d,2" % (timestamp, GENERATION)),
        ("mmcat-result-id", identity),
        ("mmcat-origin-topic", topic),
        ("mmcat-origin-partition", b"%d" % partition),
        ("mmcat-origin-offset", b"%d" % offset),
        ("mmcat-origin-timestamp", b"%d" % timestamp),
    ]


def digest(text: str) -> str:
    """128 bits as hex."""
    return sha256(text.encode()).hexdigest()[:32]


if __name__ == "__main__":
    sys.exit(main())
