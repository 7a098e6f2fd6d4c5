"""The whole service on a GPU, photos of 224 px from hosts on loopback, against what GPU and CPU can do by themselves.

    python -m tests.benchmarks.gpu_pipeline [--device cuda] [--engine compiled] [--processes N] [--hosts 4]
        [--events 60000] [--pairs 9] [--small] [--json]

`compute` is the model alone (gpu_compute.py); `ceiling` is the same processes, photos and hosts on a model that decodes
and answers at once: fetching, decoding and transport. Target: the service at least 0.8 of the smaller. Last the service
runs once more, watched by PyTorch's profiler (gpu_service.py), for the share of time in which the device computes.

Processes share the GPU; one Python process fetches and publishes 1,000 to 2,000 listings/s at most, so give as many as
there are cores for (the default is one for two cores), and about as many hosts. Needs no network, but Apache Kafka
(make kafka) and the extra test.
`--device cpu --engine eager --small --processes 1 --events 5000` shows that it runs.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from mmcat.cli.bench import CONSUME
from mmcat.cli.benchmarks import parts
from mmcat.cli.benchmarks.intervals import ratio
from mmcat.cli.benchmarks.photo_host import PhotoHost
from mmcat.cli.benchmarks.transport import Backlog, event, work_off
from mmcat.cli.bundles import home
from mmcat.cli.processes import ServerError, free_port
from mmcat.cli.servers import LocalKafka
from tests.benchmarks.engine import BERT, SMALL_BERT
from tests.benchmarks.intervals import show
from tests.benchmarks.peers import bundle
from tests.support.broker import warm_groups

SERVICE = (sys.executable, "-m", "tests.benchmarks.gpu_service")
PX, SMALL_PX, TOKENS, DRAWN = 224, 32, 30, 64
BATCH = 128  # the largest run of the compiled engine
SHARES = 4  # partitions for each process
WARM_UP_SHARE = 0.2  # until all processes have joined


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs have in common."""

    bootstrap: str
    port: int
    bundle: Path
    device: str
    engine: str
    processes: int
    events: int

    def rate(self, *command: str) -> float:
        """Listings a second of `processes` of a service."""
        url = f"http://127.0.0.1:{self.port}/{{}}.jpg"
        backlog = Backlog(self.bootstrap, self.events, url, partitions=SHARES * self.processes)
        env = backlog.env(
            {
                "MMCAT_HOME": str(home()),
                "MMCAT_MODEL__BUNDLE": str(self.bundle),
                "MMCAT_MODEL__DEVICE": self.device,
                "MMCAT_MODEL__ENGINE": self.engine,
                "MMCAT_BATCH__MAX_LISTINGS": str(BATCH),
                "MMCAT_PHOTO__ALLOW": "127.0.0.1/32",
                "MMCAT_PHOTO__PORTS": str(self.port),
                "MMCAT_PHOTO__PER_HOST": "64",
                "MMCAT_PHOTO__DECODE_THREADS": str(max(2, (os.cpu_count() or 2) // self.processes)),
            }
        )
        log = self.bundle.parent / "service.log"
        return work_off(
            backlog, command, env, log, self.processes, warm_up_share=WARM_UP_SHARE, late_s=1_800
        ).events_per_s


def main() -> None:
    parser = argparse.ArgumentParser(description="The whole service on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engine", default="compiled", choices=("eager", "compiled"))
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--hosts", type=int, default=4, help="processes that answer with photos")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    compute = computed(given.device, given.engine, given.small)
    with (
        LocalKafka() as broker,
        hosts(given.hosts, SMALL_PX if given.small else PX) as port,
        tempfile.TemporaryDirectory() as folder,
    ):
        warm_groups(broker.bootstrap)
        model = write_bundle(Path(folder) / "bundle", given.small)
        bench = Bench(broker.bootstrap, port, model, given.device, given.engine, given.processes, given.events)
        service, ceiling = [], []
        for _ in range(given.pairs):
            service.append(bench.rate(*CONSUME))
            ceiling.append(bench.rate(*SERVICE, "ceiling"))
        seen = Path(folder) / "busy"
        seen.mkdir()
        bench.rate(*SERVICE, "profiled", str(seen))
        shares = [float(file.read_text("utf-8")) for file in seen.iterdir()]
        if not shares:
            raise ServerError("no process had batches enough to be watched: give more --events")
    figures = {
        "service listings/s": service,
        "ceiling listings/s": ceiling,
        "compute listings/s": [compute] * given.pairs,
        "device busy share": [mean(shares) * given.processes],
    }
    show(figures, ratio(service, [min(compute, one) for one in ceiling]), as_json=given.json)


def computed(device: str, engine: str, small: bool) -> float:
    """The best rate of the model alone, in a process that leaves the device when it is done."""
    options = ("--device", device, "--engines", engine, "--json", *(("--small",) if small else ()))
    command = (sys.executable, "-m", "tests.benchmarks.gpu_compute", *options)
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return max(float(told["listings_per_s"][engine]["median"]) for told in found["batches"].values())


def write_bundle(folder: Path, small: bool) -> Path:
    """The research code's model with random weights, a tree of a marketplace's size."""
    titles = [str(json.loads(event(number))["title"]) for number in range(1_000)]
    return bundle.write(
        folder,
        titles,
        TOKENS,
        text_encoder=SMALL_BERT | {"vocab_size": bundle.VOCABULARY} if small else BERT,
        text_pooling="cls",
        image_layers="layer4",
        px=SMALL_PX if small else PX,
        width=768,
        blocks=1 if small else 6,
        members=1,
    )


@contextmanager
def hosts(count: int, px: int) -> Iterator[int]:
    """Processes that answer on one port, which the kernel shares out among them (SO_REUSEPORT)."""
    spawned = multiprocessing.get_context("spawn")
    port, ready = free_port(), spawned.Barrier(count + 1)
    running = [spawned.Process(target=serve, args=(port, px, ready), daemon=True) for _ in range(count)]
    for one in running:
        one.start()
    try:
        ready.wait(60)
        yield port
    finally:
        for one in running:
            one.terminate()
            one.join(10)


def serve(port: int, px: int, ready: threading.Barrier) -> None:
    """Answers until it is ended."""
    with PhotoHost(parts.photos((px,) * DRAWN), port=port):
        ready.wait(60)
        threading.Event().wait()


if __name__ == "__main__":
    main()
