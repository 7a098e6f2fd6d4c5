"""What a listing costs in the pipeline alone: null model, no photos, no broker and no client of one.

    python -m tests.benchmarks.transport_floor [--events 60000] [--runs 9]

Whatever the client costs, the service cannot come below this: to be held against what bare_loop.py takes in all, as
transport.py tells it (decision 0021).
"""

import argparse
import time

from consumer.fetch import PhotoFetcher
from consumer.log import configure_logging
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.records import Incoming, Origin
from consumer.service import POLL_RECORDS
from consumer.settings import Settings
from mmcat.cli.benchmarks.intervals import median
from mmcat.cli.benchmarks.null_service import NullModel
from mmcat.cli.benchmarks.transport import event
from tests.support.at_once import AtOnce

LATE_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description="The pipeline alone.")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    configure_logging("warning", "json")
    records = [
        Incoming(Origin("in", 0, number, 1_750_000_000_000), f"p{number}".encode(), event(number), [])
        for number in range(given.events)
    ]
    found = median([cpu_us(records) for _ in range(given.runs)])
    print(f"{found.median:.1f} µs of CPU a listing, 95 % interval {found.low:.1f} to {found.high:.1f}")


def cpu_us(records: list[Incoming]) -> float:
    """CPU microseconds of this process for each record, from poll to outcome."""
    settings = Settings()
    deaths: list[BaseException] = []
    pipeline = Pipeline(
        settings, NullModel(), PhotoFetcher.from_settings(settings.photo), AtOnce(), Metrics(),
        on_failed=lambda _: None, on_death=deaths.append,
    )  # fmt: skip
    pipeline.start()
    lease = Lease(("in", 0))
    begun = time.process_time()
    for start in range(0, len(records), POLL_RECORDS):
        polled = records[start : start + POLL_RECORDS]
        lease.start(*[record.origin.offset for record in polled])
        pipeline.submit([(record, lease) for record in polled])
        pipeline.budget.wait_room(LATE_S)
    assert pipeline.budget.wait_empty(LATE_S), "not done after a minute"
    took = time.process_time() - begun
    pipeline.stop()
    assert not deaths, deaths
    return 1e6 * took / len(records)


if __name__ == "__main__":
    main()
