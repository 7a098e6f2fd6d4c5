"""The view: Redis or Valkey, holding of each product the highest-ranked result, or the mark that it was deleted.

`View` is one connection and what is said over it: apply ranked records, read them, keep the positions in the output
topic up to which they were applied. view_writer.py reads the topic and calls it; whoever wants an answer needs nothing
of this, but `HGET <prefix>:product:{<product id>} result`.

Compare and write are one Lua script per product (view.lua), so writers may be many, late, or repeat themselves.
Positions are written after the values, over the same connection and only once every value was taken: whatever breaks
in between, the view knows less than it holds, and records are applied again, which changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from consumer.errors import ConfigError, ConsumerError, ViewError
from consumer.rank import Rank

CONNECT_S: Final = 2.0
ANSWER_S: Final = 5.0
FROM_BEGINNING: Final = -2  # Kafka's own number for it; a partition that was never read stands there


class ViewAwayError(ConsumerError):
    """The view does not answer, or refuses what it is asked, at the moment: try again later."""


class Applied(IntEnum):
    """What the script did with a record; the numbers are its answers."""

    OUTRANKED = 0
    WRITTEN = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Ranked:
    """A record of the output topic: a result, or a deletion when `result` is None."""

    product_id: str
    rank: Rank
    result: bytes | None


@dataclass(frozen=True, slots=True)
class Positions:
    """How far a topic was applied.

    Args:
        topic_id: of the topic that was read; "" where the broker gives none.
        partitions: how many it had.
        next_offsets: partition to the first offset that was not applied; FROM_BEGINNING where nothing was.
    """

    topic_id: str
    partitions: int
    next_offsets: Mapping[int, int]


class View:
    """One connection to the view. Every call blocks, for `ANSWER_S` at most. Not thread-safe: one per thread.

    Args:
        url: `redis://`, `rediss://` or `unix://`, credentials included.
        prefix: of every key.
        marker_life_s: how long a deletion is remembered.

    Raises:
        ConfigError: the URL cannot be read. It is never shown: it may hold a password.
    """

    def __init__(self, url: str, prefix: str, marker_life_s: float) -> None:
        try:
            pool = redis.ConnectionPool.from_url(
                url,
                protocol=2,
                socket_connect_timeout=CONNECT_S,
                socket_timeout=ANSWER_S,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),  # one try: whoever calls decides how long to wait
            )
        except (ValueError, TypeError):
            raise ConfigError("view.url is not an address of Redis: expected redis://HOST:PORT/DATABASE") from None
        self._prefix = prefix
        self._marker_life_ms = int(marker_life_s * 1000)
        self._apply_script = _script("view.lua")
        self._positions_script = _script("positions.lua")
        # One for good: the pool counts what it made, not what is open. Its class differs between TCP, TLS and files.
        self._connection: Any = pool.make_connection()
        self._connected = False

    def connect(self) -> None:
        """Open the connection anew and check that this is a place to keep a view in.

        Raises:
            ViewAwayError: it does not answer.
            ViewError: it would evict what it holds.
        """
        self.close()
        self._connected = True
        memory, *_ = self._ask(
            [
                ("INFO", "memory"),  # CONFIG GET is forbidden on many hosted ones
                ("SCRIPT", "LOAD", self._apply_script.text),
                ("SCRIPT", "LOAD", self._positions_script.text),
            ]
        )
        if (policy := _policy(memory)) != "noeviction":
            self.close()
            raise ViewError(
                f"the view would lose products: its maxmemory-policy is {policy}; set it to noeviction "
                "(CONFIG SET maxmemory-policy noeviction)"
            )

    def apply(self, records: Sequence[Ranked]) -> list[Applied]:
        """Compare and write each record, in order, in one round trip.

        Raises:
            ViewAwayError: some may have been taken; apply them all again.
        """
        if not records:
            return []
        return [Applied(answer) for answer in self._ask([self._apply_command(record) for record in records])]

    def get(self, product_id: str) -> tuple[Rank, bytes | None] | None:
        """What is held of a product: its rank, and its result unless it was deleted; None if nothing is."""
        return self.mget([product_id])[0]

    def mget(self, product_ids: Sequence[str]) -> list[tuple[Rank, bytes | None] | None]:
        """`get` for many, in one round trip.

        Raises:
            ViewAwayError: the view does not answer.
        """
        if not product_ids:
            return []
        answers = self._ask([("HMGET", self._key(product_id), "rank", "result") for product_id in product_ids])
        return [None if rank is None else (Rank.parse(rank.decode()), result) for rank, result in answers]

    def positions(self, topic: str) -> Positions | None:
        """How far `topic` was applied; None if the view knows nothing of it."""
        (flat,) = self._ask([("HGETALL", self._positions_key(topic))])
        if not flat:
            return None
        texts = [item.decode() for item in flat]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        offsets = {int(name): int(offset) for name, offset in fields.items() if name.isdigit()}
        return Positions(fields.get("topic_id", ""), int(fields.get("partitions", 0)), offsets)

    def begin_positions(self, topic: str, positions: Positions) -> None:
        """Note topic id, number of partitions, and positions of partitions that have none yet."""
        key = self._positions_key(topic)
        named = [("topic_id", positions.topic_id), ("partitions", positions.partitions)]
        fields = [*named, *positions.next_offsets.items()]
        self._ask([("HSETNX", key, str(name), str(value)) for name, value in fields])

    def move_positions(self, topic: str, topic_id: str, moves: Mapping[int, tuple[int, int]]) -> bool:
        """Move positions on, after every record before them was applied.

        Args:
            moves: partition to (position expected, position new).

        Returns:
            False if the view was emptied or somebody else moved them; nothing was written then.
        """
        triples = [str(part) for partition, move in sorted(moves.items()) for part in (partition, *move)]
        key = self._positions_key(topic)
        (moved,) = self._ask([("EVALSHA", self._positions_script.sha, 1, key, topic_id, *triples)])
        return bool(moved)

    def close(self) -> None:
        """Close the connection; `connect` opens another."""
        self._connected = False
        self._connection.disconnect()

    def _key(self, product_id: str) -> str:
        return f"{self._prefix}:product:{{{product_id}}}"

    def _positions_key(self, topic: str) -> str:
        return f"{self._prefix}:positions:{topic}"

    def _apply_command(self, record: Ranked) -> tuple[str | int | bytes, ...]:
        given = "0" if record.result is None else "1"
        rank = (*record.rank, record.rank.format())
        body = (given, record.result or b"", self._marker_life_ms)
        return ("EVALSHA", self._apply_script.sha, 1, self._key(record.product_id), *rank, *body)

    def _ask(self, commands: Sequence[tuple[str | int | bytes, ...]]) -> list[Any]:
        """Send all, then read all answers. Any error closes the connection, so that nothing follows a gap."""
        if not self._connected:
            raise ViewAwayError("the view is not connected")
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            return [self._connection.read_response() for _ in commands]
        except (redis.RedisError, OSError) as error:
            self.close()
            raise ViewAwayError(f"the view does not answer as it should: {error}") from error


@dataclass(frozen=True, slots=True)
class _Script:
    text: str
    sha: str


def _script(name: str) -> _Script:
    text = files("consumer").joinpath(name).read_text(encoding="utf-8")
    return _Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _policy(info: bytes) -> str:
    for line in info.decode(errors="replace").splitlines():
        if line.startswith("maxmemory_policy:"):
            return line.partition(":")[2].strip()
    return "noeviction"  # not told: a server that has no such setting
