"""The client calls of one transaction after another, and what each of their errors means for what comes next.

    AbortableError  this transaction cannot be committed, the producer is as good as before: abort
    DoubtfulError   nobody knows what became of it, or the producer is of no use any more: discard it, make another
    FencedError     the broker has closed this producer's door: another process took its name, or its time was up
    ForbiddenError  the broker does not let us use this name or commit for this group any more

Used by transactions.py, which decides. Knows nothing of what is sent.
"""

import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Final

from consumer.kafka import FORBIDDEN, KafkaError, KafkaException, Message, Producer, TopicPartition
from consumer.offsets import Partition
from consumer.records import Outgoing

FENCED_CODES: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
FORBIDDEN_CODES: Final = FORBIDDEN | {KafkaError.GROUP_AUTHORIZATION_FAILED}
# Not the record's fault: an abort throws unsent records away, or the broker was away for too long.
BLAMELESS_CODES: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._MSG_TIMED_OUT})
RETRY_S: Final = 0.02
FULL_S: Final = 0.02
HUNG_S: Final = 5.0  # past its time a call is not waited for
LOOK_S: Final = 0.05


class TransactionError(Exception):
    """A transaction did not succeed; the reason in the client's words."""


class AbortableError(TransactionError):
    """Abort, and go on with the same producer."""


class DoubtfulError(TransactionError):
    """Discard the producer: its successor settles what became of this transaction."""


class FencedError(TransactionError):
    """The broker takes nothing from this producer any more."""


class ForbiddenError(TransactionError):
    """We lost the right to the name or to the group; the right to a topic is lost by an `AbortableError`."""


class TransactionalClient:
    """One transactional producer at a time. Not thread-safe.

    Args:
        make: a new producer; its `transactional.id` is that of all before it.
        clock: monotonic seconds.
    """

    def __init__(self, make: Callable[[], Producer], clock: Callable[[], float] = time.monotonic) -> None:
        self._make, self._clock = make, clock
        self._producer: Producer | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a producer."""
        return self._producer is not None

    def renew(self, within_s: float) -> None:
        """Make a producer and let the broker end what others of its name left open. Blocks.

        Raises:
            KafkaException: not within the time; to be called again.
        """
        producer = self._make()
        producer.init_transactions(within_s)
        self._producer = producer

    def discard(self) -> None:
        """Use this producer no more."""
        self._producer = None

    def begin(self) -> None:
        """Open a transaction. Raises TransactionError."""
        begin = self._mine.begin_transaction
        self._until(lambda _: begin(), self._clock())

    def produce(self, record: Outgoing, on_refused: Callable[[], None]) -> None:
        """Send a record with the transaction; `on_refused` runs within a later call if the broker does not take it.

        Raises:
            AbortableError: the client itself does not take it.
        """
        producer = self._mine

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None and error.code() not in BLAMELESS_CODES:
                on_refused()

        while True:
            try:
                producer.produce(
                    record.topic, record.value, record.key, on_delivery=delivered, headers=[*record.headers]
                )
            except BufferError:
                producer.poll(FULL_S)
            except ValueError as error:  # larger than message.max.bytes allows
                on_refused()
                raise AbortableError(str(error)) from None
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    on_refused()
                # In a transaction that failed meanwhile nothing can be sent: to abort tells what it was.
                raise AbortableError(reason.str()) from None
            else:
                return

    def poll(self) -> None:
        """Let the client tell what it has to tell; does not block."""
        if self._producer is not None:
            self._producer.poll(0)

    def commit(self, offsets: Mapping[Partition, int], group: object, deadline: float) -> None:
        """Commit records and offsets in one step. Blocks until the broker has answered, to the deadline at most.

        Args:
            group: its metadata.

        Raises:
            TransactionError
        """
        producer = self._mine
        wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        self._until(lambda left_s: producer.send_offsets_to_transaction(wanted, group, left_s), deadline)
        self._until(producer.commit_transaction, deadline)

    def abort(self, deadline: float) -> None:
        """Abort: no reader of committed records will see any of it. Raises DoubtfulError or FencedError."""
        try:
            self._until(self._mine.abort_transaction, deadline)
        except AbortableError as error:
            raise DoubtfulError(str(error)) from None

    @property
    def _mine(self) -> Producer:
        assert self._producer is not None, "renew comes first"  # noqa: S101 (whoever calls asked `usable`)
        return self._producer

    def _until(self, call: Callable[[float], object], deadline: float) -> None:
        """Call, again where the client says that this may help, to the deadline."""
        while True:
            try:
                self._told(lambda: self._returned(call, deadline))
            except _RetriableError as error:
                if self._clock() >= deadline:
                    raise DoubtfulError(f"no answer in time: {error}") from None
                time.sleep(RETRY_S)  # the client says "try again" and tells of nothing that could be waited for
            else:
                return

    def _returned(self, call: Callable[[float], object], deadline: float) -> None:
        """Call, and wait for it no longer than to the deadline, or a little more.

        The client does not keep the time that it is given where the group's coordinator goes away: it may hang for ever
        (librdkafka's issues 5456 and 5511; the fault matrix saw it). Its thread is then left to it, and the producer.
        """
        left_s = max(RETRY_S, deadline - self._clock())
        ended: SimpleQueue[BaseException | None] = SimpleQueue()

        def make() -> None:
            try:
                call(left_s)
                ended.put(None)
            except BaseException as error:  # raised again by whoever waits
                ended.put(error)

        threading.Thread(target=make, name="transaction-call", daemon=True).start()
        while True:
            try:
                error = ended.get(timeout=LOOK_S)
            except Empty:
                if self._clock() >= deadline + HUNG_S:
                    raise DoubtfulError("the client does not come back") from None
            else:
                break
        if error is not None:
            raise error

    @staticmethod
    def _told(call: Callable[[], object]) -> None:
        try:
            call()
        except KafkaException as caught:
            error: KafkaError = caught.args[0]
            said = f"{error.str()} ({error.name()})"
            if error.code() in FENCED_CODES:
                raise FencedError(said) from None
            if error.code() in FORBIDDEN_CODES:
                raise ForbiddenError(said) from None
            if error.txn_requires_abort():
                raise AbortableError(said) from None
            if error.retriable() and not error.fatal():
                raise _RetriableError(said) from None
            raise DoubtfulError(said) from None


class _RetriableError(Exception):
    """The same call may succeed if it is made again."""
