"""The whole service with a real model on the CPU, against what its cores could do if they did needed work alone.

    python -m tests.benchmarks.work_conserving [--events 600] [--pairs 9] [--precision P] [--small] [--json]

Engine, decode, fetch, broker and host of photos share the cores, so the engine's own rate cannot be had beside them.
What can is the bound: cores ÷ the CPU seconds that a listing needs. Of these, engine, prepare (decode to the model's
square included), fetch and transport (the service on a null model without photos) are each measured alone, on all
cores where they can be; those of the broker and of this process, which is the host of photos and watches, are measured
while the service runs. Target: at least 0.95 of the bound. What is missing is cores unused, cores that others used, or
CPU beyond what is needed; the table tells all. The model has the shape that training makes for CPUs (peers/bundle.py):
ResNet50 at 128 px, MiniLM, three fusions, with random weights, in bf16 where the CPU has it, as "auto" would take it.
Photos have 600 px; no two share a title or a photo.
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from mmcat.categorizer import Categorizer
from mmcat.cli.bench import CONSUME, NULL
from mmcat.cli.benchmarks import parts
from mmcat.cli.benchmarks.intervals import ratio
from mmcat.cli.benchmarks.photo_host import PhotoHost
from mmcat.cli.benchmarks.transport import MACHINE, Backlog, event, work_off
from mmcat.cli.bundles import ENGINES, home
from mmcat.cli.servers import LocalKafka
from mmcat.engines import graphs
from mmcat.listing import Listing
from tests.benchmarks.intervals import show
from tests.benchmarks.peers import bundle
from tests.support.broker import warm_groups
from tests.support.tiny import make_tiny_bundle

BATCH, DRAWN = 32, 16  # listings at once; photos that are drawn
PX: Final = 600
LOOK_S: Final = 0.1  # rarely: looking takes from the cores too
HELD: Final = 256  # listings in the service, an eighth of its default: what lies ahead of the window has no share in it
BESIDE: Final = "needed, beside model and decode ms"  # what is left of the service is a difference of large numbers
CORES: Final = len(os.sched_getaffinity(0))
ALONE, FETCHED, TRANSPORTED = 128, 640, 10_000  # listings of the parts' own runs


def title(number: int) -> str:
    """That of an event of the backlog."""
    return str(json.loads(event(number))["title"])


class Bench:
    """The service and its parts on one broker, one host of photos and one bundle; all figures are of one listing.

    Args:
        events: counted of each run of the service.
    """

    def __init__(self, broker: LocalKafka, host: PhotoHost, model: Path, precision: str, events: int) -> None:
        self._broker, self._host, self._bundle, self._precision = broker, host, model, precision
        self._events, self._log = events, model.parent / "service.log"
        self._model = Categorizer.load(model, engine="cpu", precision=precision, cache=home() / ENGINES)
        self._model.warm_up()
        drawn = parts.photos((PX,) * DRAWN)
        self._listings = [
            Listing(str(one), title(one), parts.numbered(drawn[one % DRAWN], one)) for one in range(ALONE)
        ]
        self.figures: dict[str, list[float]] = {}

    def pair(self) -> None:
        """The parts, then the whole; tells the figures of one pair."""
        alone, engine = self._engine()
        rate, service, broker, host, machine = self._service()
        needed = {
            "engine": engine,
            "prepare": self._prepare(),
            "fetch": self._fetch(),
            "transport": self._transport(),
            "broker": broker,
            "host": host,
        }
        spent = service + broker + host
        found = {
            "service listings/s": rate,
            "bound listings/s": CORES / sum(needed.values()),
            "engine alone listings/s": alone,
            **{f"needed, {name} ms": 1_000 * seconds for name, seconds in needed.items()},
            "spent, service ms": 1_000 * service,
            BESIDE: 1_000 * (needed["fetch"] + needed["transport"]),
            "cores unused": CORES - rate * machine,
            "cores that others used": rate * (machine - spent),
        }
        for name, value in found.items():
            self.figures.setdefault(name, []).append(value)

    def _engine(self) -> tuple[float, float]:
        """Listings a second, and CPU seconds of each."""
        ready = [self._model.prepare(one) for one in self._listings]
        self._model.categorize_prepared(ready[:BATCH])  # the first run of a shape takes longer
        begun, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(ready), BATCH):
            self._model.categorize_prepared(ready[start : start + BATCH])
        return len(ready) / (time.perf_counter() - begun), (time.process_time() - cpu) / len(ready)

    def _prepare(self) -> float:
        def one(listing: Listing) -> float:
            begun = time.thread_time()
            self._model.prepare(listing)
            return time.thread_time() - begun

        with ThreadPoolExecutor(CORES) as threads:
            return sum(threads.map(one, self._listings)) / ALONE

    def _fetch(self) -> float:
        _, cpu_ms = parts.fetch(self._host.url, FETCHED)
        return cpu_ms / 1_000

    def _transport(self) -> float:
        backlog = Backlog(self._broker.bootstrap, TRANSPORTED)
        return work_off(backlog, NULL, backlog.env(), self._log).cpu_ms / 1_000

    def _service(self) -> tuple[float, ...]:
        """Listings a second; and CPU seconds of each in the service, the broker, this process and all there are."""
        backlog = Backlog(self._broker.bootstrap, self._events + 2 * HELD, self._host.url)
        env = backlog.env(
            {
                "MMCAT_HOME": str(home()),
                "MMCAT_MODEL__BUNDLE": str(self._bundle),
                "MMCAT_MODEL__ENGINE": "cpu",
                "MMCAT_MODEL__PRECISION": self._precision,
                "MMCAT_LIMITS__IN_FLIGHT_LISTINGS": str(HELD),
                "MMCAT_PHOTO__ALLOW": "127.0.0.1/32",
                "MMCAT_PHOTO__PORTS": str(self._host.port),
                "MMCAT_PHOTO__PER_HOST": "64",
            }
        )
        beside = (self._broker.pid or 0, os.getpid(), MACHINE)
        warm_up = HELD / backlog.events
        found = work_off(
            backlog, CONSUME, env, self._log, warm_up_share=warm_up, left=HELD, beside=beside, look_s=LOOK_S
        )
        return found.events_per_s, *(cpu_ms / 1_000 for cpu_ms in (found.cpu_ms, *found.beside_ms))


def main() -> None:
    parser = argparse.ArgumentParser(description="The whole service against the bound of its cores.")
    parser.add_argument(
        "--events", type=int, default=600, help="counted of each run; twice as many more are sent as are held"
    )
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--precision", default="bf16" if graphs.has_bf16() else "fp32", choices=("fp32", "bf16"))
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with (
        LocalKafka() as broker,
        PhotoHost(parts.photos((PX,) * DRAWN)) as host,
        tempfile.TemporaryDirectory() as folder,
    ):
        warm_groups(broker.bootstrap)
        place = Path(folder) / "bundle"
        model = (
            make_tiny_bundle(place) if given.small else bundle.write(place, [title(number) for number in range(1_000)])
        )
        bench = Bench(broker, host, model, given.precision, given.events)
        for _ in range(given.pairs):
            bench.pair()
    found = bench.figures
    show(found, ratio(found["service listings/s"], found["bound listings/s"]), as_json=given.json)


if __name__ == "__main__":
    main()
