"""What becomes of a piece of work: makes its records, has them sent, and finishes it when the broker has them all.

Between the pipeline, which says what it is and when it may go, and delivery.py or transactions.py, which send it.
A batch goes out together, and what is acknowledged together is finished together: locks and counters are asked once.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from itertools import groupby
from typing import Final

import structlog

from consumer.budget import Budget
from consumer.dead_letters import dead_letter
from consumer.events import Code, Event
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.ordering import SentOrders
from consumer.outcomes import Outcomes
from consumer.records import Outgoing
from consumer.results import Answered, Audit, Reason, Reused, result_record, reused_record, review_copy, tombstone
from consumer.retries import Delay, Delays, retry_record
from consumer.reuse import Answer
from consumer.settings import Settings
from consumer.work import UNPREPARED, Work
from mmcat.listing import ModelInfo, Result

log = structlog.get_logger("mmcat.publishing")

# Headers and framing of a dead letter, below what the topic accepts.
DEAD_LETTER_ROOM_BYTES: Final = 32 * 1024


class Publisher:
    """Makes and sends outcomes. Thread-safe.

    Args:
        budget: everything in it is released here.
        delays: the delay topics, for counting; empty where there are no retries.
        sent_orders: told of what is on its way; None: nobody asks.
        on_failed: a record of this lease was not taken by the broker: the lease has ended, read its partition again.
        on_outcomes: told of acknowledged outcomes of one lease, in any order.
        attempt: written into results of live records; 0 is live.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelInfo,
        delivery: Outcomes[Work],
        metrics: Metrics,
        budget: Budget,
        *,
        delays: Delays,
        sent_orders: SentOrders | None,
        on_failed: Callable[[Lease], None],
        on_outcomes: Callable[[Lease, Sequence[Work]], None] | None,
        attempt: int,
    ) -> None:
        self._settings, self._topics, self._model = settings, settings.topics, model
        self._delivery, self._metrics, self._budget = delivery, metrics, budget
        self._delays, self._sent_orders = delays, sent_orders
        self._on_failed, self._on_outcomes, self._attempt = on_failed, on_outcomes, attempt
        self._version = version("mmcat")
        self._audit = Audit.of(settings.review)
        # A look-up of labels costs as much as a hash of the event: once per label, not once per listing.
        self._listings = cache(metrics.listings.labels)

    # what it is ───────────────────────────────────────────────────────────────────────────────────────────────────

    def result(self, work: Work, result: Result, now: str) -> None:
        """The model's answer.

        Args:
            now: RFC 3339, UTC.
        """
        assert isinstance(work.parsed, Event)  # noqa: S101 (only events reach the engine)
        generation, attempt = self._model.created_ms, work.incoming.attempt or self._attempt
        answered = Answered(work.incoming, work.parsed, result, work.order or 0, generation, attempt, now)
        self._answered(work, *result_record(answered, self._model, self._topics.output, self._audit))

    def reused(self, work: Work, answer: Answer, now: str) -> None:
        """An answer given before."""
        assert isinstance(work.parsed, Event)  # noqa: S101 (only events are asked for)
        order, generation = work.order or 0, self._model.created_ms
        reused = Reused(work.incoming, work.parsed, answer, order, generation, self._attempt, now)
        self._answered(work, *reused_record(reused, self._topics.output, self._audit, self._settings.model.top_k))

    def _answered(self, work: Work, record: Outgoing, reason: Reason | None) -> None:
        records = [record]
        if reason is not None:
            self._metrics.review.labels(reason).inc()
            records.append(review_copy(record, reason, self._topics.review))
        if work.later is not None:
            records.append(work.later)
        work.records, work.outcome = records, "result"

    def tombstone(self, work: Work, order: int) -> None:
        """A deletion."""
        record = tombstone(work.incoming, work.product_id, order, self._model.created_ms, self._topics.output)
        work.records, work.outcome = [record], "tombstone"

    def superseded(self, work: Work) -> None:
        """Something newer is there already: nothing is sent."""
        work.records, work.outcome = (), "superseded"

    def dead(self, work: Work, code: Code, detail: str) -> None:
        """It cannot be categorized; sent at once."""
        room = self._settings.limits.dead_letter_bytes - DEAD_LETTER_ROOM_BYTES
        topic = self._topics.dead_letter
        record = dead_letter(work.incoming, code, detail, topic=topic, version=self._version, max_bytes=room)
        origin = work.incoming.origin
        log.warning("dead_letter", code=code, detail=detail, partition=origin.partition, offset=origin.offset)
        work.records, work.outcome = [record], "dead_letter"
        self.send([work])

    def hand_on(self, work: Work, delay: Delay) -> None:
        """No outcome now: a later attempt has it; sent at once."""
        work.records, work.outcome = [retry_record(work.incoming, delay, now_ms())], None
        self.send([work])

    # to the broker ────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, works: Sequence[Work]) -> None:
        """Hand over what is to be sent for each; each is finished when all of its records are acknowledged."""
        heavier = 0
        for work in works:
            work.prepared = UNPREPARED  # the pixels are not needed any more
            size_bytes = work.incoming.size_bytes
            for record in work.records:
                size_bytes += record.size_bytes
                if record.topic in self._delays:
                    self._metrics.retries.labels(record.topic).inc()
            heavier += size_bytes - work.size_bytes
            work.size_bytes = size_bytes
            if self._sent_orders is not None and work.order is not None:
                self._sent_orders.sent(work.product_id, work.order)
        self._budget.resize(0, heavier)
        self._delivery.send(works, self.done)

    def done(self, works: Sequence[Work], ok: bool) -> None:
        """The broker has all records of each, or has not taken one of each."""
        if self._sent_orders is not None:
            for work in works:
                if work.order is not None:
                    self._sent_orders.done(work.product_id)
        for lease, part in _by_lease(works):
            if ok:
                self._finish(lease, part)
            elif not lease.ended:  # else it is dropped with its lease
                self._metrics.delivery_failures.inc(len(part))
                self._on_failed(lease)
        self._budget.release(sum(work.size_bytes for work in works), len(works))

    def _finish(self, lease: Lease, works: Sequence[Work]) -> None:
        lease.finish(*[work.offset for work in works])
        told = [work for work in works if work.outcome is not None]
        for outcome, count in Counter(work.outcome for work in told).items():
            self._listings(outcome).inc(count)
        if self._on_outcomes is not None:
            self._on_outcomes(lease, told)
        now = now_ms()
        live = [work.incoming.origin for work in works if not work.incoming.attempt]
        self._metrics.end_to_end.observe_all([max(0.0, now - origin.timestamp_ms) / 1000 for origin in live])

    def drop(self, work: Work) -> None:
        """Its lease ended: whoever holds the partition now reads it again."""
        self._budget.release(work.size_bytes)

    def resize(self, work: Work, size_bytes: int) -> None:
        """It weighs something else now."""
        if size_bytes != work.size_bytes:
            self._budget.resize(work.size_bytes, size_bytes)
            work.size_bytes = size_bytes

    def lighten(self, work: Work) -> None:
        """The pixels are not needed any more."""
        work.prepared = UNPREPARED
        self.resize(work, work.incoming.size_bytes)


def _by_lease(works: Sequence[Work]) -> list[tuple[Lease, Sequence[Work]]]:
    """Works of one lease together; within it in the order they came."""
    if len({id(work.lease) for work in works}) == 1:
        return [(works[0].lease, works)]
    ordered = sorted(works, key=lambda work: id(work.lease))
    return [(lease, list(part)) for lease, part in groupby(ordered, key=lambda work: work.lease)]


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
