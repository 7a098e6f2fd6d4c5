"""Sends dead letters again: the original bytes to the first delay topic, from where the service takes them in its time.

Two passes over the same range: `plan` counts, `run` sends. What was sent is noted in the journals (letter_journal.py)
as the broker acknowledges it, so that a run that was stopped goes on, and a second one sends nothing twice. Order and
identity of what comes out are the origin's: what is newer by now stays.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from consumer.errors import ConfigError
from consumer.kafka import KafkaError, KafkaException, Message, make_producer
from consumer.letter_journal import Journal
from consumer.letter_reader import LetterReader
from consumer.letters import Choice, Letter, sent_again
from consumer.offsets import Lease
from consumer.replay_pace import Pace
from consumer.retries import Delays
from consumer.settings import Settings
from consumer.spans import Bound, Span

log = structlog.get_logger("mmcat.dead_letter")

KEEP_S: Final = 1.0
WAIT_S: Final = 0.02
FLUSH_S: Final = 30.0
QUEUE_KIB: Final = 64 * 1024  # what is on its way to the broker at most


@dataclass(frozen=True, slots=True)
class LetterPlan:
    """What a run would do.

    Args:
        spans: of the dead-letter topic, fixed.
        codes: how many would be sent, by code.
        refused: how many cannot be, by reason.
        already: how many were sent before.
    """

    spans: tuple[Span, ...]
    codes: dict[str, int]
    refused: dict[str, int]
    already: int

    @property
    def chosen(self) -> int:
        """How many would be sent."""
        return sum(self.codes.values())


@dataclass(frozen=True, slots=True)
class LetterSummary:
    """What a run did: `complete` when everything that was chosen was acknowledged."""

    topic: str
    chosen: int
    sent: int
    codes: dict[str, int]
    refused: dict[str, int]
    already: int
    seconds: float
    complete: bool

    def summary(self) -> dict[str, object]:
        """As JSON."""
        return asdict(self)


class LetterReplay:
    """One replay of dead letters: `plan`, then `run` once.

    Args:
        reader: entered.
        again: send what was sent before, too.
        rate: letters a second at most; None is as fast as it goes.
        on_progress: told how many were sent and how many were chosen.

    Raises:
        ConfigError: (from `plan`) there is no delay topic.
    """

    def __init__(
        self,
        settings: Settings,
        reader: LetterReader,
        choice: Choice,
        *,
        again: bool = False,
        rate: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._settings, self._reader, self._choice, self._again = settings, reader, choice, again
        self._pace, self._on_progress = Pace(rate), on_progress
        delays = Delays.of(settings).topics
        if not delays:
            raise ConfigError(
                "dead letters are sent again through the first delay topic, and retry.delays names none: "
                "name one, and let the service read it"
            )
        self._topic = delays[0]
        self._stopping = threading.Event()
        limit = {"message.max.bytes": settings.limits.dead_letter_bytes, "queue.buffering.max.kbytes": QUEUE_KIB}
        self._producer = make_producer(settings.kafka, extra=limit)
        self._journals: dict[int, Journal] = {}
        self._leases: dict[int, Lease] = {}
        self._sent: Counter[str] = Counter()
        self._failed: KafkaError | None = None
        self._kept_at = time.monotonic()

    def stop(self) -> None:
        """Send nothing more; safe from a signal handler."""
        self._stopping.set()

    def plan(self, start: Bound, end: Bound) -> LetterPlan:
        """Read the range and say what would be sent; changes nothing."""
        self._reader.require(self._topic)
        spans = self._reader.spans(start, end)
        self._journals = self._reader.journals(spans)
        codes, refused, already = Counter[str](), Counter[str](), 0
        for letter in self._reader.letters(spans):
            if not self._choice.takes(letter):
                continue
            if letter.refused is not None:
                refused[letter.refused.name.lower()] += 1
            elif self._was_sent(letter):
                already += 1
            else:
                codes[letter.code] += 1
        return LetterPlan(spans, dict(codes), dict(refused), already)

    def run(self, plan: LetterPlan) -> LetterSummary:
        """Send what was planned; blocks until the broker has it all, or until it is stopped.

        Raises:
            KafkaException: the broker does not take a letter; those before it are noted as sent.
        """
        began = time.monotonic()
        self._leases = {span.partition: Lease((self._topic, span.partition)) for span in plan.spans}
        for letter in self._reader.letters(plan.spans):
            if letter.refused is not None or not self._choice.takes(letter) or self._was_sent(letter):
                continue
            if not self._may_send(plan):
                break
            self._send(letter)
        self._producer.flush(FLUSH_S)
        self._keep(plan)
        if self._failed is not None:
            raise KafkaException(self._failed)
        sent = sum(self._sent.values())
        return LetterSummary(
            self._topic,
            plan.chosen,
            sent,
            dict(self._sent),
            plan.refused,
            plan.already,
            round(time.monotonic() - began, 3),
            sent == plan.chosen,
        )

    def _was_sent(self, letter: Letter) -> bool:
        return not self._again and self._journals[letter.partition].has(letter)

    def _may_send(self, plan: LetterPlan) -> bool:
        """Wait for the pace, listening to the broker; returns False where nothing more is to be sent."""
        self._producer.poll(0)
        while not self._stopping.is_set() and self._failed is None:
            if time.monotonic() - self._kept_at >= KEEP_S:
                self._keep(plan)
            if self._pace.allowed(1):
                self._pace.spend(1)
                return True
            self._producer.poll(WAIT_S)
        return False

    def _send(self, letter: Letter) -> None:
        record = sent_again(letter, self._topic, time.time_ns() // 1_000_000)
        lease = self._leases[letter.partition]
        lease.start(letter.offset)

        def told(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                lease.finish(letter.offset)
                self._sent[letter.code] += 1
            else:
                log.error("dead_letter_not_taken", partition=letter.partition, offset=letter.offset, error=error.str())
                self._failed = error

        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, headers=[*record.headers], on_delivery=told
                )
            except BufferError:  # 64 MiB are on their way: the broker makes room
                self._producer.poll(WAIT_S)
            else:
                return

    def _keep(self, plan: LetterPlan) -> None:
        """Note how far each partition came without a gap."""
        starts = {span.partition: span.start for span in plan.spans}
        came = {partition: lease.committable() for partition, lease in self._leases.items()}
        self._reader.keep(
            {
                partition: (end, self._journals[partition].add(self._choice, starts[partition], end))
                for partition, end in came.items()
                if end is not None
            }
        )
        self._kept_at = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(sum(self._sent.values()), plan.chosen)
