"""A running service's /metrics as numbers, and what two looks at them say together."""

import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

ANSWER_S = 5.0
STAGES = ("take", "fetch", "decode", "model", "publish")


@dataclass(frozen=True)
class Snapshot:
    """All samples of one look; `at` is monotonic seconds."""

    samples: Mapping[str, list[tuple[Mapping[str, str], float]]]
    at: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, url: str) -> "Snapshot":
        """Ask a service; blocks for `ANSWER_S` at most.

        Raises:
            OSError: nobody answers there.
            ValueError: what answers is not Prometheus text.
        """
        with urllib.request.urlopen(f"{url.rstrip('/')}/metrics", timeout=ANSWER_S) as answer:  # noqa: S310 (the caller's own service)
            return cls.parse(answer.read().decode())

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        """Read Prometheus text."""
        samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return cls(samples)

    def sum(self, name: str, **labels: str) -> float:
        """Over all series that have these labels; 0 where there are none."""
        return sum(
            value
            for found, value in self.samples.get(name, ())
            if all(found.get(label) == wanted for label, wanted in labels.items())
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """Values by one label, series that share it summed."""
        found: dict[str, float] = {}
        for labels, value in self.samples.get(name, ()):
            found[labels.get(label, "")] = found.get(labels.get(label, ""), 0.0) + value
        return found

    @property
    def busy(self) -> dict[str, float]:
        """Busy share of each stage, 0 … 1."""
        return {stage: self.sum("mmcat_stage_busy_share", stage=stage) for stage in STAGES}

    @property
    def held(self) -> tuple[float, float]:
        """Listings held, and how many may be."""
        return self.sum("mmcat_queue_listings", queue="in_flight"), self.sum("mmcat_queue_listings", queue="limit")

    @property
    def lag(self) -> float:
        """Live events that were not polled yet."""
        return self.sum("mmcat_consumer_lag", role="live")

    @property
    def paused(self) -> bool:
        """Whether polling pauses because too much is held."""
        return self.sum("mmcat_partitions_paused") > 0

    def line(self) -> str:
        """What holds the stream up."""
        from consumer.stages import bottleneck

        return bottleneck(self.busy, *self.held, self.lag, paused=self.paused).line


def rate(name: str, before: Snapshot, now: Snapshot, **labels: str) -> float:
    """A counter's rise a second between two looks; a service that was started anew counts from nothing."""
    begun, ended = before.sum(name, **labels), now.sum(name, **labels)
    return (ended - (begun if begun <= ended else 0.0)) / max(1e-9, now.at - before.at)


def mean(histogram: str, before: Snapshot, now: Snapshot, **labels: str) -> float:
    """Mean of what a histogram took between two looks; 0 where that is nothing."""
    count = now.sum(f"{histogram}_count", **labels) - before.sum(f"{histogram}_count", **labels)
    total = now.sum(f"{histogram}_sum", **labels) - before.sum(f"{histogram}_sum", **labels)
    return total / count if count > 0 else 0.0
