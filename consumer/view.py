"""The view: Redis or Valkey, holding of each product the highest-ranked result, or the mark that it was deleted.

`View` is what is said over one connection: apply ranked records, read them, keep the positions in the output topic up
to which they were applied. view_writer.py reads the topic and calls it; whoever wants an answer needs nothing of this,
but `HGET <prefix>:product:{<product id>} result`, where `<prefix>` is `view.prefix`, or what the key
`<view.prefix>:current` says: `mmcat cache rebuild` fills another generation of keys and sets it.

Compare and write are one Lua script per product (view.lua), so writers may be many, late, or repeat themselves.
Positions are written after the values, over the same connection and only once every value was taken: whatever breaks
in between, the view knows less than it holds, and records are applied again, which changes nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, Self

from consumer.errors import ViewError
from consumer.rank import Rank
from consumer.records import Headers
from consumer.settings import ViewSettings
from consumer.view_connection import ANSWER_S, Access, Command, Connection, ViewAwayError
from consumer.view_keys import current_key, is_generation, pattern, positions_key, product_key

__all__ = ["FROM_BEGINNING", "Applied", "Held", "Positions", "Ranked", "View", "ViewAwayError"]

FROM_BEGINNING: Final = -2  # Kafka's own number for it; a partition that was never read stands there
RANK_HEADER: Final = "mmcat-rank"
REPAIR_HEADER: Final = "mmcat-repair"


class Applied(IntEnum):
    """What the script did with a record; the numbers are its answers."""

    OUTRANKED = 0
    WRITTEN = 1
    DELETED = 2
    STALE = 3
    """Outranked, and what outranks it stands before it in the topic: the topic's last word is the wrong one."""

    @property
    def outcome(self) -> str:
        """As `mmcat_view_writes_total` counts it."""
        return "outranked" if self is Applied.STALE else self.name.lower()


@dataclass(frozen=True, slots=True)
class Ranked:
    """A record of the output topic: a result, or a deletion when `result` is None; and where it stands there."""

    product_id: str
    rank: Rank
    result: bytes | None
    partition: int = 0
    offset: int = 0
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What the view holds of a product, with all that is needed to publish it again.

    Args:
        at: (partition, offset) of the record it was taken from; None where the view does not say.
        headers: of that record, the rank's and a repair's left out.
    """

    rank: Rank
    result: bytes | None
    at: tuple[int, int] | None
    headers: Headers


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
    """One connection to the view. Every call blocks, for `timeout_s` at most. Not thread-safe: one per thread.

    Args:
        url: `redis://`, `rediss://` or `unix://`, credentials included.
        prefix: of every key.
        marker_life_s: how long a deletion is remembered.
        access: credentials and certificates beside the URL.
        timeout_s: longest wait for one answer.
        generation: the keys to use, whatever the pointer says; None follows the pointer.

    Raises:
        ConfigError: the URL cannot be read. It is never shown: it may hold a password.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        marker_life_s: float,
        *,
        access: Access = Access(),  # noqa: B008 (frozen)
        timeout_s: float = ANSWER_S,
        generation: str | None = None,
    ) -> None:
        self._connection = Connection(url, access, timeout_s)
        self._prefix, self._follows = prefix, generation is None
        self.generation = generation or prefix
        """First part of the keys in use; known for sure once connected."""
        self._marker_life_ms = int(marker_life_s * 1000)
        self._apply_script = _script("view.lua")
        self._positions_script = _script("positions.lua")

    @classmethod
    def from_settings(
        cls, settings: ViewSettings, *, timeout_s: float = ANSWER_S, generation: str | None = None
    ) -> Self:
        """The view that the settings name."""
        access = Access(settings.username, settings.password, settings.ca_file)
        url, life_s = settings.url.get_secret_value(), settings.marker_life_s
        return cls(url, settings.prefix, life_s, access=access, timeout_s=timeout_s, generation=generation)

    def connect(self) -> None:
        """Open the connection anew, check that this is a place to keep a view in, and see which generation is current.

        Raises:
            ViewAwayError: it does not answer.
            ViewError: it would evict what it holds, or does not let us in.
        """
        memory, pointer, *_ = self._connection.open(
            [
                ("INFO", "memory"),  # CONFIG GET is forbidden on many hosted ones
                self._pointer,
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
        if self._follows:
            self.generation = self._named(pointer)

    def apply(self, records: Sequence[Ranked]) -> list[Applied]:
        """Compare and write each record, in order, in one round trip.

        Raises:
            ViewAwayError: some may have been taken; apply them all again.
        """
        if not records:
            return []
        return [Applied(answer) for answer in self.ask([self._apply_command(record) for record in records])]

    def get(self, product_id: str) -> tuple[Rank, bytes | None] | None:
        """What is held of a product: its rank, and its result unless it was deleted; None if nothing is."""
        return self.mget([product_id])[0]

    def mget(self, product_ids: Sequence[str]) -> list[tuple[Rank, bytes | None] | None]:
        """`get` for many, in one round trip.

        Raises:
            ViewAwayError: the view does not answer, or another generation is current: connect again.
        """
        return [None if held is None else (held.rank, held.result) for held in self.held(product_ids)]

    def held(self, product_ids: Sequence[str]) -> list[Held | None]:
        """`mget`, with where each record stands in the topic and its headers."""
        if not product_ids:
            return []
        fields = ("rank", "result", "at", "headers")
        asked = [("HMGET", product_key(self.generation, one), *fields) for one in product_ids]
        *answers, pointer = self.ask([*asked, self._pointer])
        if not self._current(pointer):
            self.close()
            raise ViewAwayError("the view was rebuilt: another generation of it is current")
        return [_held(*answer) for answer in answers]

    def positions(self, topic: str) -> Positions | None:
        """How far `topic` was applied; None if the view knows nothing of it."""
        (flat,) = self.ask([("HGETALL", positions_key(self.generation, topic))])
        if not flat:
            return None
        texts = [item.decode() for item in flat]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        offsets = {int(name): int(offset) for name, offset in fields.items() if name.isdigit()}
        return Positions(fields.get("topic_id", ""), int(fields.get("partitions", 0)), offsets)

    def begin_positions(self, topic: str, positions: Positions) -> None:
        """Note topic id, number of partitions, and positions of partitions that have none yet."""
        key = positions_key(self.generation, topic)
        named = [("topic_id", positions.topic_id), ("partitions", positions.partitions)]
        fields = [*named, *positions.next_offsets.items()]
        self.ask([("HSETNX", key, str(name), str(value)) for name, value in fields])

    def move_positions(self, topic: str, topic_id: str, moves: Mapping[int, tuple[int, int]]) -> bool:
        """Move positions on, after every record before them was applied.

        Args:
            moves: partition to (position expected, position new).

        Returns:
            False if the view was emptied, somebody else moved them, or another generation is current by now: read
            them again.
        """
        triples = [str(part) for partition, move in sorted(moves.items()) for part in (partition, *move)]
        key = positions_key(self.generation, topic)
        moved, pointer = self.ask([("EVALSHA", self._positions_script.sha, 1, key, topic_id, *triples), self._pointer])
        return bool(moved) and self._current(pointer)

    def close(self) -> None:
        """Close the connection; `connect` opens another."""
        self._connection.close()

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Plain commands, in one round trip: for those who look after the keys themselves (rebuild, verify)."""
        return self._connection.ask(commands)

    def scan(self, start: str) -> Iterator[list[bytes]]:
        """The names of all keys that begin so, a thousand looked at a time; some may come twice."""
        cursor: bytes | str = "0"
        while True:
            ((cursor, keys),) = self.ask([("SCAN", cursor, "MATCH", pattern(start), "COUNT", 1000)])
            yield keys
            if cursor == b"0":
                return

    @property
    def _pointer(self) -> Command:
        return ("GET", current_key(self._prefix))

    def _named(self, pointer: bytes | None) -> str:
        """The generation that the pointer names.

        Raises:
            ViewError: it names none of this view.
        """
        named = self._prefix if pointer is None else pointer.decode(errors="replace")
        if is_generation(self._prefix, named):
            return named
        self.close()
        where = current_key(self._prefix)
        raise ViewError(f"the key {where} names no generation of this view: delete it, or run `mmcat cache rebuild`")

    def _current(self, pointer: bytes | None) -> bool:
        return not self._follows or (self._prefix if pointer is None else pointer.decode()) == self.generation

    def _apply_command(self, record: Ranked) -> Command:
        given = "0" if record.result is None else "1"
        rank = (*record.rank, record.rank.format())
        body = (given, record.result or b"", self._marker_life_ms)
        place = (record.partition, record.offset, _packed(record.headers))
        key = product_key(self.generation, record.product_id)
        return ("EVALSHA", self._apply_script.sha, 1, key, *rank, *body, *place)


@dataclass(frozen=True, slots=True)
class _Script:
    text: str
    sha: str


def _script(name: str) -> _Script:
    text = files("consumer").joinpath(name).read_text(encoding="utf-8")
    return _Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _held(rank: bytes | None, result: bytes | None, at: bytes | None, headers: bytes | None) -> Held | None:
    """None as well where somebody else wrote what is none of ours."""
    if rank is None:
        return None
    partition, _, offset = (at or b"").partition(b":")
    try:
        place = (int(partition), int(offset)) if offset else None
        named: Headers = [(name, value.encode("latin-1")) for name, value in json.loads(headers or b"[]")]
        return Held(Rank.parse(rank.decode()), result, place, named)
    except (ValueError, TypeError, AttributeError):
        return None


def _packed(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Headers as JSON: latin-1 keeps any bytes. The rank stands beside them, and a repair is not repaired twice."""
    kept = [(name, (value or b"").decode("latin-1")) for name, value in headers]
    return json.dumps([pair for pair in kept if pair[0] not in (RANK_HEADER, REPAIR_HEADER)], separators=(",", ":"))


def _policy(info: bytes) -> str:
    for line in info.decode(errors="replace").splitlines():
        if line.startswith("maxmemory_policy:"):
            return line.partition(":")[2].strip()
    return "noeviction"  # not told: a server that has no such setting
