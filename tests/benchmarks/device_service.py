"""The service on a stub of a device: photos are decoded as ever, each listing holds the device for 4 ms without CPU.

    python -m tests.benchmarks.device_service

Settings come from the environment, as `mmcat consume` reads them. A child process of the other measurements.
"""

import sys
import time
from collections.abc import Sequence
from typing import Final

from consumer.loading import load
from consumer.log import configure_logging
from consumer.service import Service
from mmcat.cli.benchmarks.null_service import NullModel
from mmcat.listing import Listing, Prepared, Result
from mmcat.preparation import Preprocessing, prepare

LISTING_S: Final = 0.004
PREPROCESSING: Final = Preprocessing(px=224)


class DeviceModel(NullModel):
    """The null model's answers, at the pace of a device that the CPU waits for."""

    def prepare(self, listing: Listing) -> Prepared:
        """With pixels, if it has a photo."""
        return prepare(listing, PREPROCESSING)

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        """One answer each, after 4 ms for each."""
        time.sleep(LISTING_S * len(batch))
        return super().categorize_prepared(batch, top_k)


def main() -> int:
    """Serve until SIGTERM."""
    settings, _ = load()
    configure_logging(settings.log.level, settings.log.format)
    return Service(settings, DeviceModel()).run()


if __name__ == "__main__":
    sys.exit(main())
