"""Two consumers of one group against one, each listing holding a device of their own for 4 ms (device_service.py).

    python -m tests.benchmarks.two_consumers [--events 5000] [--pairs 9] [--json]

Target: at least 1.9 times the events/s.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from mmcat.cli.benchmarks.intervals import median, ratio
from mmcat.cli.benchmarks.transport import Backlog, work_off
from mmcat.cli.servers import LocalKafka
from tests.benchmarks.whole_consumer import SERVICE
from tests.support.broker import warm_groups

WARM_UP_SHARE = 0.4  # until both have joined: the first to come begins by itself
HELD = {"MMCAT_LIMITS__IN_FLIGHT_LISTINGS": "256"}  # else the first to come takes the whole backlog in hand


def main() -> None:
    parser = argparse.ArgumentParser(description="Two consumers against one.")
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        warm_groups(broker.bootstrap)
        for pair in range(given.pairs):
            for count in rates if pair % 2 else reversed(rates):
                backlog = Backlog(broker.bootstrap, given.events)
                log = Path(folder) / "service.log"
                speed = work_off(backlog, SERVICE, backlog.env(HELD), log, processes=count, warm_up_share=WARM_UP_SHARE)
                rates[count].append(speed.events_per_s)
    share = ratio(rates[2], rates[1])
    if given.json:
        print(json.dumps({str(count): asdict(median(one)) for count, one in rates.items()} | {"ratio": asdict(share)}))
        return
    for count, one in rates.items():
        print(f"{count} process{'es' if count > 1 else '  '}  {median(one).median:>8,.0f} events/s")
    print(f"ratio        {share.median:>8.2f}   95 % interval {share.low:.2f} to {share.high:.2f}, {share.pairs} pairs")


if __name__ == "__main__":
    main()
