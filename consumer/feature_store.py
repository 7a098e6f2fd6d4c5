"""Where kept vectors lie: a SQLite file on local disk, or a Redis that evicts by itself. The least recently used go.

SQLite because it is there, writes 4 kB in 9 µs and finds them in 6 (diskcache, which stands on it too, takes 35 and 42,
and unpickles; LMDB is quicker still and leaves bound and order to us), and because several processes may share one
file: the service and a replay beside it. Before feature_cache.py, which guards it.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, cast
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from consumer.errors import ConfigError, ConsumerError

FILE: Final = "features.sqlite"
PAGE_BYTES: Final = 4096
PAYLOAD_BYTES: Final = 4000  # of a page, at least
ENTRY_PAGES: Final = (
    6  # what a value of any size may take beside that: its last page, a place in a table and two indices
)
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, used INTEGER NOT NULL, key BLOB NOT NULL UNIQUE)",
    "CREATE INDEX IF NOT EXISTS kept_used ON kept (used)",
    "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
)
"""Two, because SQLite may write a row anew, however long, where a number in it becomes longer."""
OLDEST: Final = "id = (SELECT id FROM kept ORDER BY used LIMIT 1)"
FIND: Final = "SELECT id, value FROM kept JOIN vectors USING (id) WHERE key = ?"
WAL_BYTES: Final = 4 * 2**20
BROKEN: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreError(ConsumerError):
    """The store does not do what it is asked at the moment."""


class ByteStore(Protocol):
    """Bytes under keys of 32 bytes, bounded. Thread-safe; `open` before anything else, and again after an error."""

    def open(self) -> None:
        """Raises StoreError where it is away, ConfigError where it is not fit for this."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What lies under each key; it counts as used now. Raises StoreError."""

    def put(self, items: Mapping[bytes, bytes]) -> int:
        """Keep these; returns how many others went for them, as far as it is known. Raises StoreError."""

    def used_bytes(self) -> int:
        """What is held, as far as it is known."""

    def close(self) -> None:
        """Let go of it."""


class DiskStore:
    """One SQLite file of at most `max_bytes`, and a write-ahead log of a few megabytes beside it.

    Args:
        folder: made where there is none.
        timeout_s: longest wait for another process that writes.
    """

    def __init__(self, folder: Path, max_bytes: int, timeout_s: float) -> None:
        self._file, self._pages, self._timeout_s = folder / FILE, max_bytes // PAGE_BYTES, timeout_s
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """See `ByteStore.open`. A file that is broken is thrown away: what was kept can be computed again."""
        self.close()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"feature_cache.folder {self._file.parent} cannot be made: {error.strerror or error}"
            ) from None
        try:
            self.used_bytes()
        except StoreError as error:
            if getattr(error.__cause__, "sqlite_errorcode", None) not in BROKEN:
                raise
            self.close()
            for suffix in ("", "-wal", "-shm"):
                self._file.with_name(FILE + suffix).unlink(missing_ok=True)
            self.used_bytes()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `ByteStore.get`."""
        with self._asked() as database:
            rows = [database.execute(FIND, (key,)).fetchone() for key in keys]
            found = [row[0] for row in rows if row is not None]
            if found:
                with _transaction(database):
                    now = _latest(database)
                    uses = [(now + place, row) for place, row in enumerate(found, 1)]
                    database.executemany("UPDATE kept SET used = ? WHERE id = ?", uses)
        return [None if row is None else row[1] for row in rows]

    def put(self, items: Mapping[bytes, bytes]) -> int:
        """See `ByteStore.put`. What would fill more than the whole store is left out."""
        evicted = 0
        with self._asked() as database, _transaction(database):
            now = _latest(database)
            for place, (key, value) in enumerate(items.items(), 1):
                _forget(database, "key = ?", (key,))
                pages = len(value) // PAYLOAD_BYTES + ENTRY_PAGES
                while (over := self._used(database) + pages > self._pages) and _forget(database, OLDEST):
                    evicted += 1
                if not over:
                    made = database.execute("INSERT INTO kept (used, key) VALUES (?, ?)", (now + place, key))
                    database.execute("INSERT INTO vectors (id, value) VALUES (?, ?)", (made.lastrowid, value))
        return evicted

    def used_bytes(self) -> int:
        """See `ByteStore.used_bytes`."""
        with self._asked() as database:
            return self._used(database) * PAGE_BYTES

    def close(self) -> None:
        """See `ByteStore.close`."""
        with self._lock:
            if self._database is not None:
                with suppress(sqlite3.Error):
                    self._database.close()
                self._database = None

    @contextmanager
    def _asked(self) -> Iterator[sqlite3.Connection]:
        """The database, for one thread at a time; whatever it raises is a StoreError."""
        with self._lock:
            try:
                yield self._database or self._connect()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self._file}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        self._database = sqlite3.connect(self._file, self._timeout_s, isolation_level=None, check_same_thread=False)
        for statement in (
            f"PRAGMA page_size = {PAGE_BYTES}",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            f"PRAGMA journal_size_limit = {WAL_BYTES}",
            *TABLES,
        ):
            self._database.execute(statement)
        return self._database

    def _used(self, database: sqlite3.Connection) -> int:
        [pages], [free] = (database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
        return int(pages - free)


class RedisStore:
    """A Redis or Valkey of its own, whose `maxmemory` is the bound and whose `maxmemory-policy` is the order.

    Args:
        url: `redis://`, `rediss://` or `unix://`; with user and password where they are needed.
        prefix: first part of every key.
        timeout_s: longest wait for an answer.

    Raises:
        ConfigError: the URL cannot be read. It is never shown.
    """

    def __init__(self, url: str, prefix: str, timeout_s: float) -> None:
        given: dict[str, Any] = {}
        if urlsplit(url).scheme == "rediss" and "ssl_check_hostname" not in parse_qs(urlsplit(url).query):
            given["ssl_check_hostname"] = True
        try:
            self._redis = redis.Redis.from_url(
                url,
                protocol=2,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                **given,
            )
        except (ValueError, TypeError):
            raise ConfigError("feature_cache.url is not an address of Redis: expected redis://HOST:PORT/DB") from None
        self._prefix = prefix.encode() + b":"

    def open(self) -> None:
        """See `ByteStore.open`."""
        with _redis_asked():
            memory = self._redis.info("memory")
        policy = str(memory.get("maxmemory_policy", ""))
        if not memory.get("maxmemory") or not policy.startswith("allkeys-"):
            raise ConfigError(
                "the Redis of feature_cache.url must forget by itself, and so cannot be the view's: set maxmemory and"
                f" maxmemory-policy to allkeys-lru (it has {memory.get('maxmemory')} and {policy or 'none'})"
            )

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `ByteStore.get`."""
        with _redis_asked():
            found = self._redis.mget([self._prefix + key for key in keys])
        return cast(list[bytes | None], found)  # answers are not decoded

    def put(self, items: Mapping[bytes, bytes]) -> int:
        """See `ByteStore.put`. What goes is the server's to know."""
        with _redis_asked():
            self._redis.mset({self._prefix + key: value for key, value in items.items()})
        return 0

    def used_bytes(self) -> int:
        """The server's to know."""
        return 0

    def close(self) -> None:
        """See `ByteStore.close`."""
        self._redis.close()


@contextmanager
def _redis_asked() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StoreError(f"Redis: {error}") from error


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled it back already
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _latest(database: sqlite3.Connection) -> int:
    """When something was used last, counted in uses."""
    return int(database.execute("SELECT max(used) FROM kept").fetchone()[0] or 0)


def _forget(database: sqlite3.Connection, which: str, given: tuple[bytes, ...] = ()) -> bool:
    """Throw one away; False where there is none of that kind."""
    found = database.execute(f"SELECT id FROM kept WHERE {which}", given).fetchone()  # noqa: S608 - our own words
    if found is not None:
        database.execute("DELETE FROM vectors WHERE id = ?", found)
        database.execute("DELETE FROM kept WHERE id = ?", found)
    return found is not None
