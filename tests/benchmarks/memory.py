"""How much anonymous memory a service gains over many null-model events, after a warm-up.

    python -m tests.benchmarks.memory [--events 1000000] [--warm-up 100000]

Events come in chunks, so that the broker's disk is all that fills. Target: less than 2 %. Linux (RssAnon).
"""

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer

from mmcat.cli.benchmarks.transport import Backlog, event, records
from mmcat.cli.processes import log_tail, spawn, stop_process
from mmcat.cli.servers import LocalKafka
from tests.benchmarks.transport import SERVICE
from tests.support.broker import warm_groups

CHUNK, LATE_S = 20_000, 120.0


def anonymous_bytes(pid: int) -> int:
    """What the process holds that no file stands behind."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii", "replace"))
    assert found, f"{pid} has no RssAnon"
    return int(found[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory over many events.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--warm-up", type=int, default=100_000)
    given = parser.parse_args()
    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        warm_groups(broker.bootstrap)
        backlog = Backlog(broker.bootstrap, CHUNK)
        log = Path(folder) / "service.log"
        process = spawn(SERVICE, log, backlog.env())
        watcher = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "watcher"})
        producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 20, "partitioner": "murmur2_random"})
        sent, series = CHUNK, []
        try:
            while True:
                deadline = time.monotonic() + LATE_S
                while records(watcher, backlog) < sent:
                    assert process.poll() is None, log_tail(log)
                    assert time.monotonic() < deadline, f"{sent} outcomes did not come"
                    time.sleep(0.05)
                series.append((sent, anonymous_bytes(process.pid)))
                if sent >= given.warm_up + given.events:
                    break
                for number in range(sent, sent + CHUNK):
                    producer.produce(backlog.topics["input"], event(number), f"p{number}".encode())
                    if number % 1_000 == 0:
                        producer.poll(0)
                producer.flush(60)
                sent += CHUNK
        finally:
            stop_process(process, 10)
            watcher.close()
    begun = next(held for count, held in series if count >= given.warm_up)
    growth = series[-1][1] / begun - 1
    print(json.dumps({"events": sent, "growth": growth, "anonymous_bytes": series[-1][1], "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
