"""From registration to the broker's log: events at a steady rate, each timed by the broker's own clock.

The output topic stamps records when the broker appends them; the origin's time stands in their headers. Both clocks are
this machine's, to the millisecond; the acknowledgement follows the append by one answer of the broker.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from mmcat.cli.benchmarks.transport import PARTITIONS, Backlog, event
from mmcat.cli.processes import ServerError, log_tail, spawn, stop_process

LATE_S: Final = 60.0


def waits(
    backlog: Backlog, command: Sequence[str], env: Mapping[str, str], log: Path, rate: float, seconds: float
) -> list[float]:
    """Milliseconds of each event of the steady part; the backlog before it warms the service up.

    Raises:
        ServerError: the service ended, or outcomes are missing.
    """
    total = backlog.events + int(rate * seconds)
    process = spawn(command, log, env)
    consumer = Consumer({"bootstrap.servers": backlog.bootstrap, "group.id": "watcher", "enable.auto.commit": False})
    consumer.assign([TopicPartition(backlog.topics["output"], one, OFFSET_BEGINNING) for one in range(PARTITIONS)])
    found: dict[int, float] = {}
    try:
        _collect(consumer, found, backlog.events, lambda: process.poll() is None)
        producer = Producer({"bootstrap.servers": backlog.bootstrap, "linger.ms": 0, "partitioner": "murmur2_random"})
        begun = time.monotonic()
        for count, number in enumerate(range(backlog.events, total)):
            time.sleep(max(0.0, begun + count / rate - time.monotonic()))
            producer.produce(backlog.topics["input"], event(number, backlog.image_url), f"p{number}".encode())
            producer.poll(0)
        producer.flush(10)
        _collect(consumer, found, total, lambda: process.poll() is None)
    except TimeoutError as error:
        raise ServerError(f"{error}\n{log_tail(log)}") from None
    finally:
        stop_process(process, 10)
        consumer.close()
    return [wait for number, wait in found.items() if number >= backlog.events]


def _collect(consumer: Consumer, found: dict[int, float], count: int, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LATE_S
    while len(found) < count:
        if time.monotonic() > deadline or not alive():
            raise TimeoutError(f"{len(found)} of {count} outcomes came")
        for message in consumer.consume(500, 0.05):
            if message.error() is None:
                origin = int(dict(message.headers() or [])["mmcat-origin-timestamp"] or b"")
                found[int((message.key() or b"p-1")[1:])] = float(message.timestamp()[1] - origin)
