"""The peer of the transport benchmark: what a bare confluent-kafka loop does with the same events, on one thread.

    python -m tests.benchmarks.bare_loop BOOTSTRAP GROUP INPUT OUTPUT

Poll, the same pydantic parse, a result of the same shape and size by the same serialiser, produced idempotently with a
delivery callback, committed once a second after a flush. It promises less: no order per product, no budget, no review
copies, no dead letters, no metrics, no identity of results, and a rebalance loses or repeats what is in flight.
"""

import signal
import sys
import time

from confluent_kafka import Consumer, KafkaError, Message, Producer
from pydantic_core import to_json

from consumer.events import Event


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
    commit_at = time.monotonic() + 1.0
    while not stopping:
        for message in consumer.consume(500, 0.02):
            event = Event.model_validate_json(message.value() or b"")
            producer.produce(target, to_json(result(event, message)), message.key(), on_delivery=delivered)
        producer.poll(0)
        if time.monotonic() >= commit_at:
            producer.flush(10)
            consumer.commit(asynchronous=False) if not failed else stopping.append(1)
            commit_at = time.monotonic() + 1.0
    producer.flush(10)
    consumer.close()
    return 1 if failed else 0


def result(event: Event, message: Message) -> dict[str, object]:
    """A constant answer in the shape of `consumer.results.ResultRecord`."""
    place = {"partition": message.partition(), "offset": message.offset(), "timestamp": message.timestamp()[1]}
    return {
        "schema_version": 1,
        "product_id": event.product_id,
        "result_id": "0" * 32,
        "path": [{"level": 1, "id": "1", "name": "everything", "probability": 0.9}],
        "probability": 0.9,
        "safe_level": 1,
        "alternatives": [],
        "decision": "accept",
        "image": "absent",
        "model": {"name": "null", "fingerprint": "0" * 64, "engine": "null", "precision": "fp32", "taxonomy": "0" * 64},
        "rank": [message.timestamp()[1], 1, 1_700_000_000_000, 0],
        "input_hash": "0" * 32,
        "origin": {"topic": message.topic(), **place},
        "attempt": 0,
        "reused": False,
        "registered_at": event.registered_at,
        "categorized_at": "2026-01-01T00:00:00.000Z",
    }


if __name__ == "__main__":
    sys.exit(main())
