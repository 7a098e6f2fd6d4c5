"""One broken promise each, put into the service's process by the chaos entry: what the oracle must object to.

Each is a mistake that a stream processor of this kind has been seen to make. test_mutations.py runs service, mutation
and oracle together.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Final

from consumer import publishing, results, view
from consumer.assignment import Assignment
from consumer.gapless import Contents, Gapless, Outcome
from consumer.kafka import KafkaException, TopicPartition
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.records import Outgoing
from consumer.repair import Repairer
from consumer.view import View
from consumer.work import Work
from tests.chaos.points import Method, after, wrap

DROP_EACH: Final = 20


def commit_early() -> None:
    """Commit what was polled, as auto-commit does."""
    wrap(Lease, "_low", lambda _: lambda lease: lease._next)


def drop_one() -> None:
    """Call an event finished that was never sent."""
    count = itertools.count(1)

    def make(method: Method) -> Method:
        def publish(self: Pipeline, works: Sequence[Work]) -> Any:
            dropped = [work for work in works if not next(count) % DROP_EACH]
            for work in dropped:
                work.records = ()
            return method(self, [work for work in works if work not in dropped]) + self._conclude(dropped)

        return publish

    wrap(Pipeline, "_publish", make)


def skip_revoked_check() -> None:
    """Go on with work whose partition was given up."""
    wrap(Lease, "ended", lambda _: property(lambda _: False))  # type: ignore[arg-type, return-value]


def commit_after_lost() -> None:
    """Commit partitions that somebody else has had since."""
    kept: list[TopicPartition] = []

    def make_lost(method: Method) -> Method:
        def lost(self: Assignment, consumer: Any, partitions: list[TopicPartition]) -> None:
            low = {lease.partition: lease.committable() for lease in self._offsets.leases}
            kept.extend(TopicPartition(*one, offset) for one, offset in low.items() if offset is not None)
            method(self, consumer, partitions)

        return lost

    def make_commit(method: Method) -> Method:
        def commit(self: Assignment, wait_s: float = 0.0) -> None:
            if kept:
                try:
                    self._consumer.commit(offsets=kept, asynchronous=False)
                    kept.clear()
                except KafkaException:
                    pass  # not a member again yet
            method(self, wait_s)

        return commit

    wrap(Assignment, "_lost", make_lost)
    wrap(Assignment, "commit", make_commit)


def transaction_past_the_gap() -> None:
    """Send with each transaction whatever is finished, also what stands past an unfinished record."""

    def take(self: Gapless[Work], into: Contents[Work]) -> tuple[list[Outcome[Work]], list[Outcome[Work]]]:
        taken: list[Outcome[Work]] = []
        dropped: list[Outcome[Work]] = []
        with self._lock:
            for lease, waiting in self._waiting.items():
                edge = lease.committable()
                (dropped if edge is None else taken).extend(waiting)
                if edge is not None:
                    into.ends[lease] = edge
            self._waiting.clear()
        into.outcomes += taken
        return taken, dropped

    wrap(Gapless, "take", lambda _: take)


def repair_skipped() -> None:
    """Leave a stale record as the topic's last word."""
    wrap(Repairer, "publish", lambda _: lambda *_: 0)


def ranks_compared_wrongly() -> None:
    """The view keeps the lower rank."""

    def make(method: Method) -> Method:
        def script(name: str) -> Any:
            found = method(name)
            swap = {"mine < theirs": "mine > theirs", "mine > theirs": "mine < theirs"}
            text = re.sub("|".join(swap), lambda match: swap[match[0]], found.text)
            if name == "view.lua" and text == found.text:
                raise RuntimeError("the comparison in view.lua reads otherwise now: mend this mutation")
            return view._Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())

        return script

    wrap(view, "_script", make)  # type: ignore[arg-type]


def tombstone_without_rank() -> None:
    """Publish deletions as bare nulls."""

    def make(method: Method) -> Method:
        def tombstone(*args: Any) -> Outgoing:
            record: Outgoing = method(*args)
            return record._replace(headers=[pair for pair in record.headers if pair[0] != "mmcat-rank"])

        return tombstone

    wrap(publishing, "tombstone", make)  # type: ignore[arg-type]


def completeness_ignored() -> None:
    """Rank answers that saw no photo like those that did."""
    wrap(results, "completeness", lambda _: lambda _image: 2)  # type: ignore[arg-type]


def marker_expired_early() -> None:
    """Forget deletions at once."""

    def forget(self: View, *_: Any, **__: Any) -> None:
        self._marker_life_ms = 1

    after(View, "__init__", forget)


MUTATIONS: Final[dict[str, Callable[[], None]]] = {
    "commit_early": commit_early,
    "drop_one": drop_one,
    "skip_revoked_check": skip_revoked_check,
    "commit_after_lost": commit_after_lost,
    "transaction_past_the_gap": transaction_past_the_gap,
    "repair_skipped": repair_skipped,
    "ranks_compared_wrongly": ranks_compared_wrongly,
    "tombstone_without_rank": tombstone_without_rank,
    "completeness_ignored": completeness_ignored,
    "marker_expired_early": marker_expired_early,
}
