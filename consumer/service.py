"""The service: polls Kafka, gives records to the pipeline, commits what is finished, pauses, drains, says how it is.

The loop is: seek back what failed → pause or resume → poll → submit → commit. The poll thread alone owns the Kafka
consumer; all other threads only tell it something. What is promised is in docs/decisions/0003-delivery.md.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from consumer.assignment import Assignment
from consumer.broker_checks import check_topics, check_transactions
from consumer.delivery import Delivery
from consumer.ending import LEAVE_S, Ending
from consumer.errors import ConfigError, FatalError, ViewError
from consumer.fetch import LargeBodies, PhotoFetcher
from consumer.guard import Guard
from consumer.health import Health, HealthServer
from consumer.held_order import HeldOrder
from consumer.intake import incoming
from consumer.kafka import (
    KafkaError,
    KafkaException,
    Message,
    end_offsets,
    ends,
    entry_refused,
    fenced,
    make_admin,
    make_producer,
    make_transactional_producer,
    polled,
    refused,
    transactional_id,
    unwritable,
)
from consumer.lag_watch import LagWatch
from consumer.last_results import LastResults
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.preparing import Fetcher
from consumer.records import Incoming
from consumer.retries import Delays
from consumer.retry_intake import RetryIntake
from consumer.retry_share import RetryShare
from consumer.settings import Settings
from consumer.stages import bottleneck
from consumer.transactional import TransactionalClient
from consumer.transactions import Transactions
from consumer.view import View
from consumer.view_guard import LateGuard
from consumer.view_writer import ViewWriter
from consumer.work import Work
from consumer.worker import Model

log = structlog.get_logger("mmcat.service")

POLL_RECORDS: Final = 200
POLL_S: Final = 0.02  # `consume` waits this long even when some records are there: it bounds the latency it adds
SURE_S: Final = 5.0  # a broker that has just started answers before it knows its topics: missing for so long is missing
ASK_AGAIN_S: Final = 0.5
START_S: Final = 5.0  # for one question to a broker that may be away
WATCH_S: Final = 1.0
DEFAULT_SESSION_MS: Final = 45_000  # the client's, and in the newer protocol the broker's
REPLACED: Final = (
    "another process has joined the group under our kafka.instance_id: "
    "stop one of the two, or give each instance a kafka.instance_id of its own"
)


class Service:
    """One consumer process. `run` blocks until a signal or `stop`.

    Args:
        settings: the whole tree.
        model: a loaded `Categorizer`, or a stand-in of the same protocol.
        fetcher: None: photos over HTTP as `settings.photo` says.
    """

    def __init__(self, settings: Settings, model: Model, fetcher: Fetcher | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.health = Health(stale_s=settings.shutdown_s + 10)
        self._model = model
        self._bodies = LargeBodies(settings.limits.large_photo_bytes)
        self._fetcher = fetcher or PhotoFetcher.from_settings(settings.photo, self._bodies)
        self._delays = Delays.of(settings)
        self._ending = Ending(settings.shutdown_s)
        self._failed: deque[Lease] = deque()
        self._fatal: BaseException | None = None
        self._broker_down = threading.Event()
        self._fenced = threading.Event()
        self._sure_at = float("inf")  # from when on it is sure that another process has fenced us
        self._guard = Guard(settings.guard)
        self._last = LastResults()

    def stop(self) -> None:
        """End as SIGTERM does; callable from any thread."""
        self._ending.begin()

    def run(self) -> int:
        """Serve until stopped. Returns 0.

        Raises:
            ConfigError: a topic is missing or forbidden, the port is taken, a client property is wrong (exit 1).
            FatalError: fenced, authorisation lost, a dead thread (exit 3).
        """
        self._ending.begin_at_signals()
        self.health.set("model", "the model is warming up")
        self.health.set("assignment", "no partitions assigned yet")
        self.health.set("broker", "the broker was not reached yet")
        server = self._open_health()
        try:
            self._start_up()
            return self._serve()
        finally:
            server.stop()

    # start ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _open_health(self) -> HealthServer:
        http = self.settings.http
        server = HealthServer(
            self.health,
            self.metrics.registry,
            http.host,
            http.port,
            commands={
                "/resume": lambda asked: {"resumed": self._guard.resume(asked.get("partitions"))},
                "/last-results": lambda _asked: {"results": self._last.as_json()},
            },
            token=http.token.get_secret_value() if http.token is not None else None,
        )
        try:
            port = server.start()
        except OSError as error:
            raise ConfigError(f"http.port {http.port} on {http.host} cannot be opened: {error.strerror}") from None
        log.info("health_port_open", host=http.host, port=port)
        return server

    def _start_up(self) -> None:
        """Warm the model and wait for the broker: in this order, so that a slow warm-up costs nothing twice."""
        info = self._model.info
        self.metrics.model.labels(info.name, info.fingerprint, info.engine, info.precision, info.taxonomy_digest).set(1)
        self._model.warm_up()
        self.health.set("model", None)
        log.info("model_ready", name=info.name, fingerprint=info.fingerprint[:12], engine=info.engine)
        self._admin = make_admin(self.settings.kafka)
        sure_at = float("inf")
        while not self._ending.told:
            self.health.beat()
            try:
                check_topics(self._admin, self.settings)
                if self.settings.delivery == "exactly_once":
                    check_transactions(self.settings)
            except ConfigError:
                sure_at = min(sure_at, time.monotonic() + SURE_S)
                if time.monotonic() >= sure_at:
                    raise
                self._ending.wait(ASK_AGAIN_S)
            except KafkaException as error:
                sure_at = self._no_answer(error.args[0], sure_at)
                self._ending.wait(1.0)
            else:
                self.health.set("broker", None)
                return

    def _no_answer(self, error: KafkaError, sure_at: float) -> float:
        """The broker is away, or does not let us in: returns from when on that is sure.

        Raises:
            ConfigError: it is.
        """
        log.warning("broker_away", detail=error.str()[:200])
        if not refused(error):
            return float("inf")
        if time.monotonic() >= sure_at:
            raise ConfigError(entry_refused(error, self.settings.kafka))
        self.health.set("broker", f"the broker does not let us in: {error.str()}")
        return min(sure_at, time.monotonic() + SURE_S)

    # serve ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self) -> int:
        settings = self.settings
        if self._ending.told:
            return 0
        delivery = self._delivery()
        transactions = delivery if isinstance(delivery, Transactions) else None
        late = LateGuard(View.from_settings(settings.view), self._died) if self._delays.topics else None
        pipeline = Pipeline(
            settings,
            self._model,
            self._fetcher,
            delivery,
            self.metrics,
            on_failed=self._failed.append,
            on_death=self._died,
            on_outcomes=self._outcomes,
            late=late,
            held_order=HeldOrder(settings, self._died) if settings.order_by == "version" else None,
            bodies=self._bodies,
            last=self._last,
            reuse=True,
        )
        assignment = Assignment(
            settings,
            self.metrics,
            self.health,
            pipeline.budget,
            self._guard,
            ending=self._ending,
            on_error=self._client_error,
            transactions=transactions,
        )
        share = RetryShare(settings.retry.share, min(settings.photo.concurrency, settings.limits.in_flight_listings))
        retries = RetryIntake(self._delays, assignment, share, self.metrics)
        view = ViewWriter(settings, self.metrics) if settings.view.enabled else None
        if isinstance(delivery, Transactions):
            delivery.start(assignment, pipeline.budget)
        else:
            delivery.start()
        pipeline.start()
        if view is not None:
            view.start()
        watch = threading.Thread(target=self._watch, args=(view, assignment, pipeline), name="watch", daemon=True)
        watch.start()
        try:
            assignment.subscribe()
            self._loop(pipeline, assignment, retries)
            self._ending.say()
            self._drain(pipeline, assignment)
        except Exception as error:  # whatever ends the loop: only a new process goes on from what is committed
            log.exception("loop_died")
            self._died(error)
        finally:
            self._ending.begin()
            parts: dict[str, Callable[[], object]] = {
                "group": assignment.leave,
                "pipeline": pipeline.stop,
                "delivery": delivery.stop,
            }
            if view is not None:
                parts["view"] = partial(view.stop, LEAVE_S)
            self._ending.leave(parts)
        if self._fatal is not None:
            raise FatalError(f"the service cannot go on: {self._fatal}") from self._fatal
        log.info("stopped")
        return 0

    def _delivery(self) -> Delivery[Work] | Transactions[Work]:
        """What takes outcomes, as `delivery` says."""
        kafka, extra = self.settings.kafka, {"message.max.bytes": self.settings.limits.dead_letter_bytes}
        if self.settings.delivery == "at_least_once":
            producer = make_producer(kafka, extra=extra, on_error=self._client_error)
            return Delivery(producer, self._died, patient=self.settings.topics.dead_letter)

        def told(error: KafkaError) -> None:
            if not error.fatal():  # fatal for one producer: the transaction that it fails says what to do
                self._client_error(error)

        client = TransactionalClient(lambda: make_transactional_producer(kafka, extra=extra, on_error=told))
        return Transactions(
            client,
            transactional_id(kafka),
            self.settings.commit_interval_s,
            self.health,
            unwritable=lambda topics: unwritable(self._admin, topics, START_S),
            patient=self.settings.topics.dead_letter,
            shadow_s=self._session_s(),
            on_death=self._died,
        )

    def _loop(self, pipeline: Pipeline, assignment: Assignment, retries: RetryIntake) -> None:
        commit_at = time.monotonic() + self.settings.commit_interval_s
        while not self._ending.told:
            self.health.beat()
            if self._fenced.is_set() and not self._joined_again(assignment):
                continue
            while self._failed:
                assignment.seek_back(self._failed.popleft())
            assignment.pause_or_resume()
            pipeline.submit(retries.let_through(pipeline.budget.room))
            count = min(POLL_RECORDS, max(1, pipeline.budget.room))
            self._take(self._polled(assignment, count, POLL_S), pipeline, assignment, retries)
            if time.monotonic() >= commit_at:
                assignment.commit()
                assignment.show_lag()
                retries.show_overdue()
                commit_at = time.monotonic() + self.settings.commit_interval_s

    def _polled(self, assignment: Assignment, count: int, timeout_s: float) -> Sequence[Message]:
        try:
            return polled(assignment.consumer, count, timeout_s)
        except KafkaException as error:
            if not fenced(error.args[0]):
                raise
            self._fenced.set()
            return []

    def _joined_again(self, assignment: Assignment) -> bool:
        """We are fenced: by another process, if it is still there when a shadow's session would have ended.

        Then this one ends; else it joins anew.
        """
        self.health.set("assignment", "fenced: a member with our kafka.instance_id is in the group")
        replaced = assignment.replaced()
        if replaced is False:
            self._fenced.clear()
            self._sure_at = float("inf")
            assignment.join_again()
            return True
        self._sure_at = min(self._sure_at, time.monotonic() + self._session_s()) if replaced else float("inf")
        if time.monotonic() >= self._sure_at:
            self._died(FatalError(REPLACED))
        self._ending.wait(ASK_AGAIN_S)
        return False

    def _session_s(self) -> float:
        """How long the group keeps a member that is gone, and a little more."""
        return SURE_S + int(self.settings.kafka.properties().get("session.timeout.ms", DEFAULT_SESSION_MS)) / 1000

    def _take(
        self, messages: Sequence[Message], pipeline: Pipeline, assignment: Assignment, retries: RetryIntake
    ) -> None:
        """Give polled records to the pipeline, each under the lease of its partition; retries wait until they may."""
        live: list[Incoming] = []
        for message in messages:
            if (error := message.error()) is not None:
                self._consumer_error(error, message, assignment)
                continue
            record = incoming(message)
            if record.origin.topic in self._delays:
                retries.polled(record)
            else:
                live.append(record)
        started = assignment.start(live)
        retries.live(len(started))
        pipeline.submit(started)

    def _drain(self, pipeline: Pipeline, assignment: Assignment) -> None:
        """Finish what is in flight, while there is time; polling goes on so that the group keeps us; commit."""
        assignment.pause_all()
        while self._ending.drain_s and not pipeline.budget.wait_empty(0.05):
            pipeline.drop_waiting()
            # All paused: nothing new comes, and what does is not started, so not committed.
            self._polled(assignment, 1, 0)
            self.health.beat()
        assignment.commit(self._ending.commit_s)
        log.info("drained", unfinished=pipeline.budget.items)

    # errors ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _consumer_error(self, error: KafkaError, message: Message, assignment: Assignment) -> None:
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            assignment.out_of_range((message.topic() or "", message.partition() or 0), error)
        elif code == KafkaError._PARTITION_EOF:
            assignment.at_end((message.topic() or "", message.partition() or 0), message.offset() or 0)
        elif ends(error):
            self._cannot_go_on(error)
        else:
            log.warning("poll_error", code=error.name(), detail=error.str())

    def _client_error(self, error: KafkaError) -> None:
        """From a client's own thread of events: fatal ends the process, unreachable makes it not ready."""
        if ends(error):
            self._cannot_go_on(error)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.health.set("broker", "no broker can be reached")
            self._broker_down.set()

    def _cannot_go_on(self, error: KafkaError) -> None:
        if fenced(error):
            self._fenced.set()
        else:
            self._died(FatalError(f"Kafka: {error.str()} ({error.name()})"))

    def _died(self, error: BaseException) -> None:
        """A thread ended, or a client can do nothing any more: the loop ends, the process with it."""
        if self._fatal is None:
            log.error("fatal", error=repr(error)[:1000])
            self._fatal = error
        self._ending.begin(drain=False)

    def _outcomes(self, lease: Lease, works: Sequence[Work]) -> None:
        """From the thread of the delivery reports. Retries come late, in another order: they are not guarded."""
        if lease.partition[0] == self.settings.topics.input:
            self._guard.told(lease.partition, [(work.offset, work.outcome == "dead_letter") for work in works])

    def _watch(self, view: ViewWriter | None, assignment: Assignment, pipeline: Pipeline) -> None:
        """Sees what no other thread tells: a broker that came back, partitions held back or silent, a dead view writer.

        And how long delay topics have become while they rest.
        """
        lag = LagWatch(self._admin, self.metrics, self.health, self.settings.watchdog_s)
        while not self._ending.wait(WATCH_S):
            try:
                self._watch_once(view, assignment, lag, pipeline)
            except Exception as error:  # nobody would see the other threads die any more
                log.exception("watch_died")
                self._died(error)

    def _watch_once(self, view: ViewWriter | None, assignment: Assignment, lag: LagWatch, pipeline: Pipeline) -> None:
        self.metrics.guarded.set(len(self._guard.paused))
        shares = pipeline.stages.shares()
        for stage, share in shares.items():
            self.metrics.busy.labels(stage).set(share)
        held, limit = pipeline.budget.items, self.settings.limits.in_flight_listings
        found = bottleneck(shares, held, limit, assignment.shown_lag, paused=assignment.paused)
        self.metrics.bottleneck.state(found.name)
        self.health.set("guard", self._guard.sentence)
        lag.look(assignment.positions)
        if self._broker_down.is_set():
            with suppress(KafkaException):
                self._admin.list_topics(timeout=START_S)
                self._broker_down.clear()
                self.health.set("broker", None)
        if view is not None:
            if view.error is not None and not isinstance(view.error, ViewError):
                self._died(view.error)
            self.health.set("view", f"the view is stopped: {view.error}" if view.error is not None else None)
        if resting := assignment.resting_retries:
            assignment.ends = end_offsets(self._admin, resting, START_S)
