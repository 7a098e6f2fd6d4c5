"""Keeps what encoders have seen, and never stands in anybody's way: what cannot be read is computed, what cannot be
written is not kept.

Before it: feature_store.py, where the bytes lie. After it: the model (`mmcat.features.Store`) and known_photos.py. Each
value carries a checksum, so that a damaged one is a miss. A store that fails is left alone for a second, counted, and
told of once until it is back.
"""

import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self, TypeVar

import structlog

from consumer.errors import ConsumerError
from consumer.feature_store import ByteStore, DiskStore, RedisStore, StoreError
from consumer.metrics import Metrics
from consumer.settings import FeatureCacheSettings

log = structlog.get_logger("mmcat.features")

AWAY_S: Final = 1.0
SUM_BYTES: Final = 4

T = TypeVar("T")


class FeatureCache:
    """A store, guarded. Thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, store: ByteStore, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._metrics, self._clock = store, metrics, clock
        self._opening = threading.Lock()
        self._open, self._again_at, self._told = False, 0.0, False

    @classmethod
    def from_settings(cls, settings: FeatureCacheSettings, metrics: Metrics) -> Self | None:
        """As the operator set it; None where nothing is to be kept.

        Raises:
            ConfigError: the store is not fit for this. One that is away is waited for.
        """
        store: ByteStore
        if settings.store == "disk" and settings.folder is not None:
            store = DiskStore(settings.folder, settings.max_bytes, settings.timeout_s)
        elif settings.store == "redis" and settings.url is not None:
            store = RedisStore(settings.url.get_secret_value(), settings.prefix, settings.timeout_s)
        else:
            return None
        cache = cls(store, metrics)
        cache.start()
        return cache

    def start(self) -> None:
        """Open the store.

        Raises:
            ConfigError: it is not fit for this.
        """
        try:
            self._store.open()
            self._open = True
        except StoreError as error:
            self._failed(error)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def get(self, kind: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `mmcat.features.Store.get`; `kind` is photo, title or address."""
        if not keys:
            return []
        held = self._ask(lambda: self._store.get(keys))
        if held is None:
            self._metrics.feature_lookups.labels(kind, "away").inc(len(keys))
            return [None] * len(keys)
        found = [None if value is None else _checked(value) for value in held]
        outcomes = Counter(
            "miss" if value is None else "corrupt" if whole is None else "hit"
            for value, whole in zip(held, found, strict=True)
        )
        for outcome, count in outcomes.items():
            self._metrics.feature_lookups.labels(kind, outcome).inc(count)
        return found

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """See `mmcat.features.Store.put`."""
        summed = {key: zlib.crc32(value).to_bytes(SUM_BYTES, "big") + value for key, value in items.items()}
        evicted = self._ask(lambda: self._store.put(summed))
        if evicted is not None:
            self._metrics.feature_evictions.inc(evicted)
            self._metrics.feature_bytes.set(self._ask(self._store.used_bytes) or 0)

    def _ask(self, what: Callable[[], T]) -> T | None:
        """What the store says; None while it is away."""
        if self._clock() < self._again_at:
            return None
        try:
            with self._opening:
                if not self._open:
                    self._store.open()
                    self._open = True
            answer = what()
        except ConsumerError as error:
            self._failed(error)
            return None
        if self._told:
            log.info("feature_cache_back")
            self._told = False
        return answer

    def _failed(self, error: ConsumerError) -> None:
        self._open, self._again_at = False, self._clock() + AWAY_S
        self._metrics.feature_failures.inc()
        if not self._told:
            log.warning("feature_cache_away", detail=str(error)[:300])
            self._told = True


def _checked(value: bytes) -> bytes | None:
    """The value without its checksum; None where it is damaged."""
    content = value[SUM_BYTES:]
    return content if value[:SUM_BYTES] == zlib.crc32(content).to_bytes(SUM_BYTES, "big") else None
