"""The service as gpu_pipeline.py needs it: on a model that decodes and answers at once, or watched by the profiler.

    python -m tests.benchmarks.gpu_service ceiling
    python -m tests.benchmarks.gpu_service profiled FOLDER

Settings come from the environment, as `mmcat consume` reads them. `profiled` writes into the folder, as a file named by
its process, the share of time in which the device computed for this process (kernels, not copies) while `WATCHED`
batches passed.
"""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from consumer.loading import load
from consumer.log import configure_logging
from consumer.service import Service
from consumer.worker import Model
from mmcat import bundle
from mmcat.categorizer import Categorizer
from mmcat.cli.benchmarks.null_service import NullModel
from mmcat.cli.bundles import ENGINES, home
from mmcat.listing import Listing, Prepared, Result
from mmcat.preparation import Preprocessing, prepare

SKIPPED, WATCHED = 5, 20  # batches
COPIES = ("Memcpy", "Memset")


class Decoding(NullModel):
    """Photos are decoded as the bundle wants them, answers come at once."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._preprocessing = preprocessing

    def prepare(self, listing: Listing) -> Prepared:
        """With pixels."""
        return prepare(listing, self._preprocessing)


class Profiled:
    """A model that watches its device for a while. See `consumer.worker.Model`."""

    def __init__(self, model: Categorizer, file: Path) -> None:
        self._file, self._batches, self._begun = file, 0, 0.0
        kernels = [ProfilerActivity.CUDA] if torch.cuda.is_available() else None  # alone: what Python does costs time
        self._profile = profile(activities=kernels)
        self._categorize = model.categorize_prepared
        self.info, self.prepare, self.warm_up = model.info, model.prepare, model.warm_up
        self.keep_features, self.known_photos = model.keep_features, model.known_photos

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        """As the model does."""
        self._batches += 1
        if self._batches == SKIPPED:
            self._profile.start()
            self._begun = time.perf_counter()
        results = self._categorize(batch, top_k)
        if self._batches == SKIPPED + WATCHED:
            seconds = time.perf_counter() - self._begun
            self._profile.stop()
            self._file.write_text(f"{self._device_s() / seconds:.4f}", "utf-8")
        return results

    def _device_s(self) -> float:
        """Seconds in which a kernel ran; copies, which go beside them, are none."""
        events: Sequence[Any] = self._profile.events() or []  # type: ignore[no-untyped-call]  # theirs
        kernels = [one for one in events if one.device_type.name == "CUDA" and not one.name.startswith(COPIES)]
        return covered([(one.time_range.start, one.time_range.end) for one in kernels]) / 1e6


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of what these spans cover together."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def main() -> int:
    """Serve until SIGTERM."""
    settings, _ = load()
    configure_logging(settings.log.level, settings.log.format)
    assert settings.model.bundle is not None
    model: Model
    if sys.argv[1] == "ceiling":
        model = Decoding(bundle.load(settings.model.bundle).preprocessing)
    else:
        categorizer = Categorizer.load(
            settings.model.bundle,
            device=settings.model.device,
            engine=settings.model.engine,
            cache=home() / ENGINES,
        )
        model = Profiled(categorizer, Path(sys.argv[2]) / str(os.getpid()))
    return Service(settings, model).run()


if __name__ == "__main__":
    sys.exit(main())
