"""Two consumers of one group against one, each listing holding a device of their own for 4 ms (device_service.py).

    python -m tests.benchmarks.two_consumers [--events 8000] [--pairs 9] [--json]

Each run has a backlog of its own, larger than it can work off. The clock runs for `STEADY_S`, from when all consumers
have a batch and more in hand: the second one is let in only as the first has finished what it holds of the partitions
that go over, after two heartbeats; and which of them would have nothing left first is chance. Neither is throughput.
Target: at least 1.9 times the events/s.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer

from mmcat.cli.benchmarks.intervals import ratio
from mmcat.cli.benchmarks.scrape import Snapshot
from mmcat.cli.benchmarks.transport import LATE_S, LOOK_S, Backlog, records
from mmcat.cli.processes import ServerError, free_port, log_tail, spawn, stop_process
from mmcat.cli.servers import LocalKafka
from tests.benchmarks.intervals import show
from tests.benchmarks.whole_consumer import BATCH, SERVICE
from tests.support.broker import warm_groups

STEADY_S: Final = 6.0
ASK_S: Final = 0.1
HELD: Final = {"MMCAT_LIMITS__IN_FLIGHT_LISTINGS": "256"}  # else the first to come takes the whole backlog in hand


def steady_rate(backlog: Backlog, count: int, log: Path) -> float:
    """Events a second of so many consumers while each of them has enough in hand.

    Raises:
        ServerError: they do not come to it, or one of them had nothing left before the time was over.
    """
    env, ports = backlog.env(HELD), [free_port() for _ in range(count)]
    watcher = Consumer({"bootstrap.servers": backlog.bootstrap, "group.id": "watcher"})
    running = [spawn(SERVICE, log, {**env, "MMCAT_HTTP__PORT": str(port)}) for port in ports]
    try:
        deadline = time.monotonic() + LATE_S
        while not all(map(busy, ports)):
            if time.monotonic() > deadline or any(one.poll() is not None for one in running):
                raise ServerError(f"{count} consumers did not come to work\n{log_tail(log)}")
            time.sleep(ASK_S)
        first, begun = next_batch(watcher, backlog)
        time.sleep(STEADY_S)
        last, ended = next_batch(watcher, backlog)
        if not all(map(busy, ports)):
            raise ServerError(f"a consumer had nothing left before {STEADY_S:g} s were over: take more --events")
    finally:
        for one in running:
            stop_process(one, 10)
        watcher.close()
    return (last - first) / (ended - begun)


def busy(port: int) -> bool:
    """Whether the consumer that answers there has a batch or more in hand."""
    try:
        held, _ = Snapshot.read(f"http://127.0.0.1:{port}").held
    except OSError:
        return False  # not up yet
    return held >= BATCH


def next_batch(watcher: Consumer, backlog: Backlog) -> tuple[int, float]:
    """Events done, and the monotonic second, when the next batch has come out."""
    before = done = records(watcher, backlog)
    deadline = time.monotonic() + LATE_S
    while done == before:
        if time.monotonic() > deadline:
            raise ServerError(f"nothing came out after {done} events")
        time.sleep(LOOK_S)
        done = records(watcher, backlog)
    return done, time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description="Two consumers against one.")
    parser.add_argument("--events", type=int, default=8_000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        warm_groups(broker.bootstrap)
        for pair in range(given.pairs):
            for count in rates if pair % 2 else reversed(rates):
                log = Path(folder) / f"{pair}-{count}.log"
                rates[count].append(steady_rate(Backlog(broker.bootstrap, given.events), count, log))
    share = ratio(rates[2], rates[1])
    show({f"{count} processes, events/s": one for count, one in rates.items()}, share, as_json=given.json)


if __name__ == "__main__":
    main()
