"""The whole service, a photo of 600 px for each listing, against an engine alone that holds its device 4 ms a listing.

    python -m tests.benchmarks.whole_consumer [--events 2000] [--pairs 9] [--json]

The engine takes no CPU (device_service.py), so what is missing to 1 is time in which the service let the device wait:
polling, fetching from a host on loopback, decoding and publishing have to go on beside it. Broker and host of photos
run on the same cores. Target: at least 0.92.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from mmcat.cli.benchmarks.intervals import ratio
from mmcat.cli.benchmarks.parts import photos
from mmcat.cli.benchmarks.photo_host import PhotoHost
from mmcat.cli.benchmarks.transport import Backlog, work_off
from mmcat.cli.servers import LocalKafka
from mmcat.listing import Listing
from tests.benchmarks.device_service import DeviceModel
from tests.benchmarks.intervals import show
from tests.support.broker import warm_groups

SERVICE = (sys.executable, "-m", "tests.benchmarks.device_service")
BATCH, DRAWN = 32, 16  # listings at once; different photos
PX = 600


def engine_rate(listings: int) -> float:
    """Listings a second of the engine alone, in batches of the service's default."""
    model = DeviceModel()
    batch = [model.prepare(Listing(str(number), "a title")) for number in range(BATCH)]
    begun = time.perf_counter()
    for _ in range(listings // BATCH):
        model.categorize_prepared(batch)
    return listings // BATCH * BATCH / (time.perf_counter() - begun)


def service_rate(bootstrap: str, host: PhotoHost, events: int, folder: Path) -> float:
    """Events a second of the service on a backlog."""
    backlog = Backlog(bootstrap, events, host.url)
    photo = {"ALLOW": "127.0.0.1/32", "PORTS": str(host.port), "PER_HOST": "64"}
    env = backlog.env({f"MMCAT_PHOTO__{name}": value for name, value in photo.items()})
    return work_off(backlog, SERVICE, env, folder / "service.log").events_per_s


def main() -> None:
    parser = argparse.ArgumentParser(description="The whole service against an engine alone.")
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"service": [], "engine": []}
    with (
        LocalKafka() as broker,
        PhotoHost(photos((PX,) * DRAWN)) as host,
        tempfile.TemporaryDirectory() as folder,
    ):
        warm_groups(broker.bootstrap)
        for _ in range(given.pairs):
            rates["engine"].append(engine_rate(given.events // 2))
            rates["service"].append(service_rate(broker.bootstrap, host, given.events, Path(folder)))
    share = ratio(rates["service"], rates["engine"])
    show({f"{name} listings/s": one for name, one in rates.items()}, share, as_json=given.json)


if __name__ == "__main__":
    main()
