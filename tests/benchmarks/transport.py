"""The service with a null model and no photos against a bare confluent-kafka loop; and what CPU an event costs it.

    python -m tests.benchmarks.transport [--events 20000] [--pairs 9] [--json]

Targets: at least 0.6 of the loop's events/s; at most 0.6 ms of CPU per listing. See bare_loop.py for the peer.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from mmcat.cli.benchmarks.intervals import median, ratio
from mmcat.cli.benchmarks.transport import Backlog, Speed, work_off
from mmcat.cli.servers import LocalKafka
from tests.support.broker import warm_groups

SERVICE = (sys.executable, "-m", "mmcat.cli.benchmarks.null_service")
PEER = (sys.executable, "-m", "tests.benchmarks.bare_loop")


def run(bootstrap: str, name: str, events: int, folder: Path) -> Speed:
    """One run on topics of its own."""
    backlog = Backlog(bootstrap, events)
    peer = (*PEER, bootstrap, backlog.group, backlog.topics["input"], backlog.topics["output"])
    return work_off(backlog, SERVICE if name == "service" else peer, backlog.env(), folder / f"{name}.log")


def main() -> None:
    parser = argparse.ArgumentParser(description="The service against a bare loop.")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, list[Speed]] = {"service": [], "bare loop": []}
    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        warm_groups(broker.bootstrap)
        for pair in range(given.pairs):
            for name in found if pair % 2 else reversed(found):
                found[name].append(run(broker.bootstrap, name, given.events, Path(folder)))
    rates = {name: [one.events_per_s for one in speeds] for name, speeds in found.items()}
    cpu = {name: median([one.cpu_ms for one in speeds]) for name, speeds in found.items()}
    share = ratio(rates["service"], rates["bare loop"])
    if given.json:
        parts = {name: {"events_per_s": asdict(median(rates[name])), "cpu_ms": asdict(cpu[name])} for name in found}
        print(json.dumps({**parts, "ratio": asdict(share), "events": given.events}))
        return
    for name in found:
        print(f"{name:<10} {median(rates[name]).median:>9,.0f} events/s   {cpu[name].median:.3f} ms CPU per event")
    print(f"ratio      {share}")


if __name__ == "__main__":
    main()
