"""The stores of the feature cache: real SQLite files and a real Valkey."""

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import ConfigError
from consumer.feature_cache import AWAY_S, FeatureCache
from consumer.feature_store import FILE, PAGE_BYTES, DiskStore, RedisStore, StoreError
from consumer.loading import load
from consumer.metrics import Metrics
from mmcat.cli.servers import LocalValkey

BOUND = 2**20


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    made = DiskStore(tmp_path / "features", BOUND, 5.0)
    made.open()
    yield made
    made.close()


def test_what_was_put_is_found_also_by_another_process_and_after_a_restart(store: DiskStore, tmp_path: Path) -> None:
    store.put({key(1): b"one", key(2): b"two"})
    other = DiskStore(tmp_path / "features", BOUND, 5.0)
    other.open()
    assert other.get([key(2), key(3), key(1)]) == [b"two", None, b"one"]
    other.put({key(1): b"more"})
    assert store.get([key(1)]) == [b"more"]
    other.close()


NUMBERS = st.integers(0, 12)
STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(NUMBERS, st.sampled_from([1, 3_000, 100_000, 250_000, 400_000])), min_size=1, max_size=4),
        st.lists(NUMBERS, min_size=1, max_size=4),
    ),
    min_size=5,
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=30, deadline=None)
def test_the_bound_is_kept_and_only_the_least_recently_used_go(
    steps: list[list[tuple[int, int]] | list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against an ordered dictionary: whatever is left is what was used last, in its newest form, and nothing else."""
    folder = tmp_path_factory.mktemp("features")
    store = DiskStore(folder, BOUND, 5.0)
    store.open()
    expected: OrderedDict[int, bytes] = OrderedDict()
    evicted = 0
    for step in steps:
        if isinstance(step[0], int):
            store.get([key(number) for number in step])
            for number in step:
                if number in expected:
                    expected.move_to_end(number)
        else:
            items = {number: bytes([number]) * size for number, size in step}
            gone = store.put({key(number): value for number, value in items.items()})
            evicted += gone
            for number, value in items.items():
                expected[number] = value
                expected.move_to_end(number)
        assert store.used_bytes() <= BOUND
        assert (folder / FILE).stat().st_size <= BOUND
        left = _left(folder)
        assert left == list(expected)[len(expected) - len(left) :]
        expected = OrderedDict((number, expected[number]) for number in left)
    assert store.get([key(number) for number in expected]) == list(expected.values())
    if not evicted:
        assert sum(map(len, expected.values())) <= BOUND
    store.close()


def _left(folder: Path) -> list[int]:
    """What is there, the least recently used first."""
    database = sqlite3.connect(folder / FILE)
    rows = database.execute("SELECT key FROM kept ORDER BY used").fetchall()
    database.close()
    return [int.from_bytes(row[0], "big") for row in rows]


def test_what_would_fill_more_than_the_store_is_left_out(store: DiskStore) -> None:
    store.put({key(1): b"x"})
    store.put({key(2): b"y" * (BOUND + PAGE_BYTES)})
    assert store.get([key(2)]) == [None]
    store.put({key(3): b"z"})
    assert store.get([key(3)]) == [b"z"]


def test_a_broken_file_is_thrown_away(store: DiskStore, tmp_path: Path) -> None:
    store.put({key(1): b"one"})
    store.close()
    (tmp_path / "features" / FILE).write_bytes(b"no database" * 1_000)
    store.open()
    assert store.get([key(1)]) == [None]
    store.put({key(1): b"one"})
    assert store.get([key(1)]) == [b"one"]


def test_many_threads_may_ask(store: DiskStore) -> None:
    def work(number: int) -> None:
        for turn in range(20):
            store.put({key(number): bytes([turn])})
            assert store.get([key(number)]) == [bytes([turn])]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.get([key(number) for number in range(8)])) == 8


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"feature_cache\.folder .*file/features cannot be made"):
        DiskStore(tmp_path / "file" / "features", BOUND, 1.0).open()


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalValkey]:
    """A Valkey of its own that evicts."""
    with LocalValkey(logs=tmp_path_factory.mktemp("valkey")) as server:
        import redis

        client = redis.Redis.from_url(server.url)
        client.config_set("maxmemory", "8mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.close()
        yield server


def test_redis_keeps_until_its_own_bound_and_says_nothing_then(forgetful: LocalValkey) -> None:
    store = RedisStore(forgetful.url, "test", 5.0)
    store.open()
    store.put({key(1): b"one"})
    assert store.get([key(1), key(2)]) == [b"one", None]
    for number in range(100, 400):
        store.put({key(number): b"x" * 100_000})
    found = store.get([key(number) for number in range(100, 400)])
    assert 0 < sum(value is not None for value in found) < 100
    store.close()


def test_a_redis_that_does_not_forget_is_refused(valkey_url: str) -> None:
    with pytest.raises(ConfigError, match="maxmemory-policy to allkeys-lru"):
        RedisStore(valkey_url, "test", 5.0).open()
    with pytest.raises(ConfigError, match=r"feature_cache\.url is not an address") as raised:
        RedisStore("http://secret", "test", 5.0)
    assert "secret" not in str(raised.value)


# ── Guarded ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def count(metrics: Metrics, kind: str, outcome: str) -> float:
    labels = {"kind": kind, "outcome": outcome}
    return metrics.registry.get_sample_value("mmcat_feature_cache_lookups_total", labels) or 0.0


def test_a_damaged_value_is_a_miss(store: DiskStore) -> None:
    metrics = Metrics()
    cache = FeatureCache(store, metrics)
    cache.start()
    cache.put({key(1): b"one", key(2): b"two", key(3): b""})
    assert cache.get("photo", [key(1), key(2), key(3), key(4)]) == [b"one", b"two", b"", None]
    [raw] = store.get([key(1)])
    assert raw is not None
    store.put({key(1): raw[:-1] + b"x", key(2): b"xx"})
    assert cache.get("photo", [key(1), key(2)]) == [None, None]
    assert [count(metrics, "photo", one) for one in ("hit", "miss", "corrupt", "away")] == [3, 1, 2, 0]
    assert metrics.registry.get_sample_value("mmcat_feature_cache_bytes") == store.used_bytes() > 0


class Failing:
    """A store that fails while it is told to."""

    def __init__(self, store: DiskStore) -> None:
        self.store, self.down, self.asked = store, False, 0

    def _ask(self) -> None:
        self.asked += 1
        if self.down:
            raise StoreError("database or disk is full")

    def open(self) -> None:
        self._ask()
        self.store.open()

    def get(self, keys: list[bytes]) -> list[bytes | None]:
        self._ask()
        return self.store.get(keys)

    def put(self, items: dict[bytes, bytes]) -> int:
        self._ask()
        return self.store.put(items)

    def used_bytes(self) -> int:
        return self.store.used_bytes()

    def close(self) -> None:
        self.store.close()


def test_a_store_that_fails_is_left_alone_for_a_while_and_told_of_once(
    store: DiskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, metrics, clock = Failing(store), Metrics(), Clock()
    failing.down = True
    cache = FeatureCache(failing, metrics, clock)  # type: ignore[arg-type]  # lists are sequences
    cache.start()
    for _ in range(3):
        assert cache.get("title", [key(1)]) == [None]
        cache.put({key(1): b"one"})
    assert failing.asked == 1
    clock.now += AWAY_S
    assert cache.get("title", [key(1)]) == [None]
    assert failing.asked == 2
    failing.down = False
    assert cache.get("title", [key(1)]) == [None]  # left alone still
    clock.now += AWAY_S
    cache.put({key(1): b"one"})
    assert cache.get("title", [key(1)]) == [b"one"]
    assert count(metrics, "title", "away") == 5
    assert metrics.registry.get_sample_value("mmcat_feature_cache_failures_total") == 2
    said = capsys.readouterr().err
    assert (said.count("feature_cache_away"), said.count("feature_cache_back")) == (1, 1)


def test_a_full_disk_is_a_store_that_fails(store: DiskStore) -> None:
    cache = FeatureCache(store, Metrics())
    cache.start()
    cache.put({key(1): b"one"})
    database = store._database
    assert database is not None
    [pages] = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")  # what SQLite says of a full disk, it says of this
    cache.put({key(2): b"x" * 100_000})
    with pytest.raises(StoreError, match="full"):
        store.put({key(2): b"x" * 100_000})
    assert store.get([key(1)]) != [None]  # what was there is there


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"feature_cache.store": "disk"}, "store disk needs a folder: set MMCAT_FEATURE_CACHE__FOLDER"),
        ({"feature_cache.store": "redis"}, "store redis needs an address: set MMCAT_FEATURE_CACHE__URL"),
    ],
)
def test_a_store_without_a_place_is_refused(overrides: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(environment={}, overrides=overrides)


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    settings, _ = load(environment={}, overrides={"feature_cache.folder": tmp_path})
    assert FeatureCache.from_settings(settings.feature_cache, Metrics()) is None
