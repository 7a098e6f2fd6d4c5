"""What exactly once costs: its throughput against at least once, and how late a reader of committed records sees.

    python -m tests.benchmarks.exactly_once [--events 20000] [--pairs 9] [--rate 500] [--seconds 5] [--json]

The whole consumer, in a process of its own, on a local Apache Kafka, with a model that answers at once and no photos;
transactions (or offsets) are committed every 100 ms. Runs come in interleaved pairs, in turn first. In each run a
backlog of `--events` is worked off (events/s from the first outcome that a reader of committed records sees to the
last); then `--rate` events a second come for `--seconds`, and each is timed from before it is sent to when it is read.
The ratio's median has a 95 % bootstrap interval over pairs.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from mmcat.cli.benchmarks.intervals import ratio
from mmcat.cli.servers import LocalKafka
from tests.support.broker import create_topics, random_topics, reader, warm_groups
from tests.support.service import ServiceProcess

MODES = ("exactly_once", "at_least_once")
PARTITIONS, LATE_S = 3, 300.0
STUB = (sys.executable, "-m", "tests.support.stub_service", "consume")


class Run:
    """One mode, on topics of its own."""

    def __init__(self, bootstrap: str, mode: str, folder: Path) -> None:
        self.bootstrap, self.topics = bootstrap, random_topics()
        names = self.topics
        create_topics(bootstrap, [names.input, names.output, names.review, names.dead_letter], PARTITIONS)
        self.service = ServiceProcess(
            {
                "MMCAT_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
                "MMCAT_KAFKA__GROUP_ID": f"bench-{uuid.uuid4().hex[:8]}",
                "MMCAT_KAFKA__INSTANCE_ID": "one",
                "MMCAT_DELIVERY": mode,
                "MMCAT_COMMIT_INTERVAL_S": "0.1",
                "MMCAT_VIEW__ENABLED": "false",
                "MMCAT_LOG__LEVEL": "warning",
                **names.env(),
            },
            folder,
            STUB,
        )

    def measure(self, events: int, rate: float, seconds: float) -> dict[str, float]:
        """Work a backlog off, then follow a steady stream."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        for number in range(events):
            self._send(producer, number)
            if number % 1_000 == 0:
                producer.poll(0)
        producer.flush(60)
        with reader(self.bootstrap, **{"fetch.wait.max.ms": 5}) as consumer, self.service:
            consumer.assign([TopicPartition(self.topics.output, one, OFFSET_BEGINNING) for one in range(PARTITIONS)])
            seen = self._follow(consumer)
            times = [next(seen)[1] for _ in range(events)]
            sent: dict[int, float] = {}
            steady = range(events, events + int(rate * seconds))
            sender = threading.Thread(target=self._steadily, args=(producer, steady, rate, sent))
            sender.start()
            waits = [at - sent[number] for number, at in (next(seen) for _ in steady)]
            sender.join()
            assert self.service.terminate() == 0
        p50, p99 = np.quantile(np.array(waits), [0.5, 0.99])
        return {"events_per_s": (events - 1) / (times[-1] - times[0]), "p50_s": float(p50), "p99_s": float(p99)}

    def _send(self, producer: Producer, number: int) -> None:
        value = {"product_id": f"p{number}", "title": f"나이키 남성 러닝화 {number}", "brand": "무명", "number": number}
        producer.produce(self.topics.input, json.dumps(value).encode(), f"p{number}".encode())

    def _steadily(self, producer: Producer, numbers: range, rate: float, sent: dict[int, float]) -> None:
        begun = time.monotonic()
        for count, number in enumerate(numbers):
            time.sleep(max(0.0, begun + count / rate - time.monotonic()))
            sent[number] = time.monotonic()
            self._send(producer, number)
            producer.poll(0)
        producer.flush(60)

    @staticmethod
    def _follow(consumer: Consumer) -> Iterator[tuple[int, float]]:
        """Number and time of each outcome as it is seen."""
        deadline = time.monotonic() + LATE_S
        while time.monotonic() < deadline:
            for message in consumer.consume(500, 0.005):
                if message.error() is None:
                    yield int((message.key() or b"p-1")[1:]), time.monotonic()
        raise TimeoutError(f"not all outcomes were seen within {LATE_S:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Exactly once against at least once.")
    parser.add_argument("--events", type=int, default=20_000, help="of the backlog")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--rate", type=float, default=500, help="events a second of the steady part")
    parser.add_argument("--seconds", type=float, default=5, help="of the steady part")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        warm_groups(broker.bootstrap)
        for pair in range(given.pairs):
            for mode in MODES if pair % 2 else MODES[::-1]:
                run = Run(broker.bootstrap, mode, Path(folder))
                found[mode].append(run.measure(given.events, given.rate, given.seconds))
    result = summary(found) | {"events": given.events, "rate": given.rate, "cores": os.cpu_count()}
    if given.json:
        print(json.dumps(result, default=asdict))
        return
    for mode in MODES:
        one = result[mode]
        print(f"{mode:<14} {one['events_per_s']:>8,.0f} events/s   p50 {one['p50_s']:.3f} s   p99 {one['p99_s']:.3f} s")
    print(f"ratio          {result['ratio']}")


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of each mode, and their ratio."""
    rates = [[run["events_per_s"] for run in found[mode]] for mode in MODES]
    medians = {
        mode: {name: float(np.median([run[name] for run in found[mode]])) for name in found[mode][0]} for mode in MODES
    }
    return medians | {"ratio": ratio(*rates)}


if __name__ == "__main__":
    main()
