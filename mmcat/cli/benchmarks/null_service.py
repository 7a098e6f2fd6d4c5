"""The service on a model that answers at once (or after a set time): what is left is what this system costs by itself.

    python -m mmcat.cli.benchmarks.null_service [MILLISECONDS]

Settings come from the environment, as `mmcat consume` reads them. A child process of the other measurements.
"""

import sys
import time
from collections.abc import Sequence
from typing import Final

from mmcat.listing import Decision, ImageStatus, Listing, ModelInfo, PathNode, PhotoVectors, Prepared, Result, Store

PATH: Final = (PathNode(1, "1", "everything", 0.9),)


class NullModel:
    """Keeps `consumer.worker.Model`: the same certain answer for every listing.

    Args:
        seconds: how long each batch takes; the engine thread sleeps, as it does while a device works.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.info = ModelInfo("null", "0" * 64, "null", "fp32", "0" * 64, 1_700_000_000_000)
        self._seconds = seconds

    def prepare(self, listing: Listing) -> Prepared:
        """Photos are taken as they are: no pixels."""
        status = listing.image_status or (ImageStatus.USED if listing.image else ImageStatus.ABSENT)
        return Prepared(listing.id, listing.title, None, status)

    def keep_features(self, store: Store | None) -> None:
        """Keeps nothing."""

    def known_photos(self, digests: Sequence[bytes]) -> list[PhotoVectors | None]:
        """Knows none."""
        return [None] * len(digests)

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        """One answer each."""
        if self._seconds:
            time.sleep(self._seconds)
        return [Result(one.listing_id, PATH, 0.9, 1, Decision.ACCEPT, None, (), one.image) for one in batch]

    def warm_up(self) -> None:
        """Always warm."""


def main() -> int:
    """Serve until SIGTERM."""
    from consumer.loading import load
    from consumer.log import configure_logging
    from consumer.service import Service

    settings, _ = load()
    configure_logging(settings.log.level, settings.log.format)
    return Service(settings, NullModel(float(sys.argv[1]) / 1_000 if len(sys.argv) > 1 else 0.0)).run()


if __name__ == "__main__":
    sys.exit(main())
