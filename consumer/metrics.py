"""Every number the service shows, with unit and meaning, in one place.

One `Metrics` per service, on a registry of its own, so that tests can run several in one process.
"""

from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram

from consumer.stages import NAMES
from consumer.tally import Tally

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TENTHS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


class Metrics:
    """The service's instruments; attribute names follow the metric names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.listings = Counter(
            "mmcat_listings", "Attempts by outcome: result, dead_letter, tombstone, superseded", ["outcome"], registry=r
        )
        self.keyless = Counter(
            "mmcat_keyless_events", "Events without a key: no order is promised for them", registry=r
        )
        self.photo = Counter(
            "mmcat_photo",
            "Photos by status: used, absent, pending, unavailable, undecodable, refused",
            ["status"],
            registry=r,
        )
        self.review = Counter("mmcat_review", "Copies sent to the review topic, by reason", ["reason"], registry=r)
        self.reuse = Counter(
            "mmcat_reuse",
            "Events looked up in the view: reused, none (no answer there), changed, old, away (it did not answer)",
            ["outcome"],
            registry=r,
        )
        self.shared_work = Counter(
            "mmcat_shared_work",
            "Work done once for several: fetch (waited for one in flight), photo and title (encoded with its batch's)",
            ["work"],
            registry=r,
        )
        self.photo_unchanged = Counter(
            "mmcat_photo_unchanged", "Photos whose host said that they had not changed (304)", registry=r
        )
        self.feature_lookups = Counter(
            "mmcat_feature_cache_lookups",
            "Looked up in the feature cache: photo, title or address; hit, miss, corrupt, away (it did not answer)",
            ["kind", "outcome"],
            registry=r,
        )
        self.feature_evictions = Counter(
            "mmcat_feature_cache_evictions", "Entries that had to go for newer ones (disk)", registry=r
        )
        self.feature_failures = Counter(
            "mmcat_feature_cache_failures", "Times that the store failed and was left alone for a second", registry=r
        )
        self.feature_bytes = Gauge("mmcat_feature_cache_bytes", "What the feature cache holds (disk)", registry=r)
        self.stage = Histogram(
            "mmcat_stage_seconds",
            "Time spent in a stage: take per poll, fetch and decode per photo, model and publish per batch",
            ["stage"],
            buckets=SECONDS,
            registry=r,
        )
        self.busy = Gauge(
            "mmcat_stage_busy_share",
            "Share of the last second that a stage's workers were at work, 0 to 1: take, fetch, decode, model, publish",
            ["stage"],
            registry=r,
        )
        self.bottleneck = Enum(
            "mmcat_bottleneck",
            "1 for what holds the stream up, in the words of mmcat top; none: it waits for events",
            states=NAMES,
            registry=r,
        )
        self.queue = Gauge(
            "mmcat_queue_listings",
            "Listings held, by place: in_flight (all), limit (how many may be), ready",
            ["queue"],
            registry=r,
        )
        self.in_flight_bytes = Gauge("mmcat_in_flight_bytes", "Bytes of records and photos held", registry=r)
        self.batch = Histogram("mmcat_batch_listings", "Listings per model call", buckets=BATCH, registry=r)
        self.end_to_end = Tally(
            "mmcat_end_to_end_seconds",
            "From the origin record's timestamp to the broker's acknowledgement of its outcome",
            (*SECONDS, 60, 300, 3600),
            r,
        )
        self.lag = Gauge(
            "mmcat_consumer_lag",
            "Records between the position and the end of a partition; role live, retry or view",
            ["topic", "partition", "role"],
            registry=r,
        )
        self.retries = Counter(
            "mmcat_retries", "Records sent to a delay topic, for a late photo", ["topic"], registry=r
        )
        self.retry_overdue = Gauge(
            "mmcat_retry_overdue_seconds",
            "How long the oldest retry that is due has been waiting for its turn or its outcome; 0: none is due",
            registry=r,
        )
        self.paused = Gauge("mmcat_partitions_paused", "1 while the partitions are paused for the budget", registry=r)
        self.guarded = Gauge("mmcat_guarded_partitions", "Partitions held back: mostly dead letters", registry=r)
        self.silent = Gauge(
            "mmcat_silent_partitions",
            "Partitions that stand still before their end with nothing to hold them up",
            registry=r,
        )
        self.out_of_range = Counter(
            "mmcat_offset_out_of_range", "Partitions stopped: their committed offset is gone", ["partition"], registry=r
        )
        self.delivery_failures = Counter(
            "mmcat_delivery_failures", "Records the broker did not take; their partition seeks back", registry=r
        )
        self.view_up = Gauge("mmcat_view_up", "1 while the view answers", registry=r)
        self.view_writes = Counter(
            "mmcat_view_writes",
            "Records read by the view's writer: written, deleted, outranked, unreadable; and published again: repaired",
            ["outcome"],
            registry=r,
        )
        self.path_probability = Tally(
            "mmcat_path_probability", "Calibrated probability of the answered path", TENTHS, r
        )
        self.model = Gauge(
            "mmcat_model_info",
            "Always 1; the labels name the model that answers",
            ["name", "fingerprint", "engine", "precision", "taxonomy"],
            registry=r,
        )

    def watch(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        """Let `mmcat_queue_listings{queue=…}` read these sizes whenever somebody asks."""
        for queue, size in gauges.items():
            self.queue.labels(queue).set_function(size)
