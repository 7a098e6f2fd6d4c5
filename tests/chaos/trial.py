"""One trial: topics of its own, a photo host, load from another process, the service under trial, and the reckoning.

    with Trial(site, folder) as trial:
        trial.load(400, rate=150)
        service = trial.service("a", strike="before_commit:3")
        ...
        verdict = trial.reckon()

Rows (rows.py) and tests say what happens in between.
"""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from mmcat.cli.processes import log_tail, spawn, stop_process
from tests.chaos.case import Case
from tests.chaos.evidence import Evidence, read_evidence
from tests.chaos.oracle import Verdict, judge
from tests.chaos.photos import late_and_never, noise
from tests.chaos.reading import PARTITIONS, all_closed, compacted, make_topics, read_view, view_is_at, worked_through
from tests.chaos.site import Site
from tests.chaos.watch import Watch
from tests.support.broker import (
    TopicNames,
    end_offsets,
    random_topics,
    read_topic,
    reader,
    send,
)
from tests.support.listings import Mix, events
from tests.support.outcomes import Stream, read_stream
from tests.support.service import ServiceProcess
from tests.support.waiting import eventually
from training.shop.photo_host import FaultPlan, PhotoHost

DRAIN_S: Final = 120.0
LEFT_CALL: Final = '"detail": "the client does not come back"'
DELAYS: Final = ("1s", "2s")
"""What a photo that is not there yet is waited for, twice."""
SHORT: Final = {
    "MMCAT_KAFKA__HEARTBEAT_INTERVAL_MS": "300",
    "MMCAT_KAFKA__SESSION_TIMEOUT_MS": "2000",
    "MMCAT_KAFKA__MAX_POLL_INTERVAL_MS": "4000",
    "MMCAT_COMMIT_INTERVAL_S": "0.2",
    "MMCAT_PHOTO__DEADLINE_S": "1",
    "MMCAT_SHUTDOWN_S": "2",
    "MMCAT_REVOKE_S": "1",
    "MMCAT_BATCH__MAX_LISTINGS": "16",
    "MMCAT_TEST_MODEL_MS": "30",
    "MMCAT_LOG__LEVEL": "info",
}
"""Settings under which faults show quickly: a session of 2 s, 4 s between polls."""


@dataclass
class Trial:
    """What one trial works with. As a context manager it ends every process that it started.

    Args:
        delays: before each further attempt at a photo.
        drain_s: longest wait for whatever has to be worked through.
    """

    site: Site
    folder: Path
    mode: str = "at_least_once"
    mutation: str = ""
    env: dict[str, str] = field(default_factory=dict)
    seed: int = 1
    delays: Sequence[str] = DELAYS
    drain_s: float = DRAIN_S

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.topics: TopicNames = random_topics()
        self.group = self.prefix = f"chaos-{uuid.uuid4().hex[:10]}"
        self.services: dict[str, Member] = {}
        self.photo_faults: FaultPlan = late_and_never
        self.delay_topics = [f"{self.topics.retry_prefix}.{delay}" for delay in self.delays]
        self.mixes: list[Mix] = []
        self.struck_at: float | None = None
        self._senders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        make_topics(self.site, self.topics, self.delay_topics)
        self.open_photos()
        self.watch = Watch(self.site.bootstrap, self.topics, self.group, PARTITIONS, self._pids)
        self.watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for service in self.services.values():
            service.resume()
            service.__exit__(kind, error, trace)
        for sender in self._senders:
            stop_process(sender, 0)
        self.photos.stop()
        self.watch.stop()

    def open_photos(self, port: int = 0) -> None:
        """Start the photo host, or start it again at its port after it was stopped."""
        self.photos = PhotoHost(noise, lambda name: self.photo_faults(name), port=port)
        self.photos.start()

    # what happens ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, count: int, rate: float = 0.0) -> "subprocess.Popen[bytes]":
        """Start a process that sends listings, updates, deletions and bad events; it ends when all are acknowledged."""
        mix = self._mix(count)
        given = ["--bootstrap", self.site.bootstrap, "--topic", self.topics.input, "--photos", mix.photos]
        for name in ("count", "updates", "deletions", "bad", "seed"):
            given += [f"--{name}", str(getattr(mix, name))]
        command = [sys.executable, "-m", "tests.support.listings", *given, "--rate", str(rate)]
        sender = spawn(command, self.folder / "load.log")
        self._senders.append(sender)
        return sender

    def send(self, count: int) -> None:
        """Send so many listings, and what belongs to them, and wait until they are acknowledged."""
        mix = self._mix(count)
        send(self.site.bootstrap, self.topics.input, ((one.key, one.value, one.headers) for one in events(mix)))

    def _mix(self, count: int) -> Mix:
        seed = self.seed * 1000 + len(self.mixes)
        mix = Mix(count, count // 4, count // 16, max(2, count // 20), self.photos.base_url, seed)
        self.mixes.append(mix)
        return mix

    def service(self, name: str = "a", strike: str = "", **more: str) -> "Member":
        """Start a member of the group under this name, or start it again."""
        once = {"MMCAT_DELIVERY": self.mode, "MMCAT_KAFKA__INSTANCE_ID": name} if self.mode == "exactly_once" else {}
        env = {**self._environment(), **once, **more, "MMCAT_TEST_STRIKE": strike}
        service = Member(env, self.folder / name, (sys.executable, "-m", "tests.chaos.entry", "consume"))
        if (old := self.services.get(name)) is not None:
            service.http_port = old.http_port
        service.folder.mkdir(exist_ok=True)
        service.start()
        self.services[name] = service
        return service

    def struck(self, when: float | None = None) -> None:
        """Note when the fault struck; how much was in flight then, the members' diaries tell."""
        self.struck_at = when or time.time()

    def held_at_strike(self) -> int:
        """Events that were polled before the fault and committed after it, or never."""
        return self.evidence().in_flight(self.struck_at or 0.0)

    def in_flight(self, name: str = "a") -> int:
        """What a member says that it holds."""
        return int(self.services[name].metric("mmcat_queue_listings", queue="in_flight") or 0)

    def wait_busy(self, name: str = "a", committed: int = 20) -> None:
        """Wait until work is committed and more is in flight."""
        service = self.services[name]
        service.until(lambda: self.watch.committed() >= committed, "some work is committed", DRAIN_S)
        eventually(lambda: self.in_flight(name), "work is in flight", DRAIN_S)

    def replay(self) -> dict[str, Any]:
        """Replay the first half of the input beside the live service; returns its summary."""
        ends = end_offsets(self.site.bootstrap, self.topics.input)
        to = ",".join(f"{partition}:{end // 2}" for partition, end in ends.items())
        env = Member(self._environment(), self.folder).whole_env()
        command = [sys.executable, "-m", "tests.chaos.entry", "replay", "--to", to, "--json"]
        log = self.folder / "replay.log"
        with log.open("ab") as said:
            done = subprocess.run(
                command, env=env, stdout=subprocess.PIPE, stderr=said, timeout=self.drain_s, check=False
            )
        assert done.returncode == 0, f"the replay ended with {done.returncode}: {log_tail(log)}"
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    @contextmanager
    def intruder(self) -> Iterator[None]:
        """Join the group as somebody who takes partitions and does nothing: members have to give some up."""
        given: list[object] = []
        member: dict[str, str | int] = {
            "group.id": self.group,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 2000,
            "heartbeat.interval.ms": 300,
        }
        with reader(self.site.bootstrap, **member) as consumer:
            consumer.subscribe([self.topics.input], on_assign=lambda _, partitions: given.extend(partitions))
            eventually(lambda: consumer.poll(0.05) is not None or given, "the intruder is let in", DRAIN_S)
            yield

    # the reckoning ────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, *, view: bool = True) -> None:
        """Wait until all senders are through, all is committed, late photos too, and the view is as the topic."""
        self._wait_for_senders()
        wanted = {one: end for one, end in end_offsets(self.site.bootstrap, self.topics.input).items() if end}
        try:
            eventually(lambda: self.watch.has_committed(wanted), "all is committed", self.drain_s, every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"{wanted} wanted, {self.watch.snapshots[-1:]} seen") from error
        where, outputs = self.site.bootstrap, (self.topics.output, self.topics.dead_letter)
        # An open transaction of a member that was killed hides late photos behind it, until the broker ends it.
        for waited in (
            lambda: all_closed(where, self.delay_topics),
            lambda: worked_through(where, self.delay_topics, self.group),
            lambda: all_closed(where, outputs),
        ):
            eventually(waited, "no photo is due, no transaction is open", self.drain_s, every_s=0.2)
        if view:
            self._wait_for_view()

    def _wait_for_senders(self) -> None:
        for sender in self._senders:
            assert sender.wait(self.drain_s) == 0, log_tail(self.folder / "load.log")

    def _wait_for_view(self) -> None:
        output = read_topic(self.site.bootstrap, self.topics.output)  # its end may be a transaction's mark, no record
        ends = {one.partition: one.offset + 1 for one in output}
        where = (self.site.view_url, self.prefix, self.topics.output)
        eventually(lambda: view_is_at(ends, *where), "the view has read the topic", self.drain_s, every_s=0.2)

    def reckon(self, *, replay: bool = True, compact: bool = False, settle: bool = True) -> Verdict:
        """Replay a part beside the live service and its late photos, let everything settle, and ask the oracle."""
        if replay:
            self._wait_for_senders()
            self.replay()
        if settle:
            self.settle()
        self.watch.stop()
        for service in self.services.values():
            if service.process.poll() is None:
                service.terminate()
        return judge(self.case(compact=compact))

    def case(self, *, compact: bool = False) -> Case:
        """Read back all that the trial left."""
        stream = self._stream()
        return Case(
            stream=stream,
            output_topic=self.topics.output,
            dead_letter_topic=self.topics.dead_letter,
            evidence=self.evidence(),
            view=read_view(self.site.view_url, self.prefix, stream.output),
            snapshots=self.watch.snapshots,
            usage=self.watch.usage,
            retries={topic: read_topic(self.site.bootstrap, topic) for topic in self.delay_topics},
            compacted=compacted(self.site.bootstrap, self.topics.output) if compact else None,
            exactly_once=self.mode == "exactly_once",
            left_calls=sum(one.log.read_text("utf-8").count(LEFT_CALL) for one in self.services.values()),
        )

    def evidence(self) -> Evidence:
        """What the processes wrote down so far."""
        return read_evidence(self.folder)

    def recovered_after_s(self) -> float | None:
        """Seconds from the fault until all that was polled before it is committed, and more; None: never seen."""
        if self.struck_at is None:
            return None
        reached = self.evidence().reached(self.struck_at)
        level = max(
            (sum(one.committed.values()) for one in self.watch.snapshots if one.at <= self.struck_at), default=0
        )
        for snapshot in self.watch.snapshots:
            there = all(snapshot.committed.get(partition, 0) > offset for partition, offset in reached.items())
            if snapshot.at > self.struck_at and there and sum(snapshot.committed.values()) > level:
                return snapshot.at - self.struck_at
        return None

    def _stream(self) -> Stream:
        sent = [event for mix in self.mixes for event in events(mix)]
        return read_stream(self.site.bootstrap, self.topics, sent)

    # its parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _environment(self) -> dict[str, str]:
        return {
            **SHORT,
            "MMCAT_KAFKA__BOOTSTRAP_SERVERS": self.site.bootstrap,
            "MMCAT_KAFKA__GROUP_ID": self.group,
            "MMCAT_VIEW__URL": self.site.view_url,
            "MMCAT_VIEW__PREFIX": self.prefix,
            "MMCAT_PHOTO__ALLOW": "127.0.0.1",
            "MMCAT_PHOTO__PORTS": str(urlsplit(self.photos.base_url).port),
            "MMCAT_TEST_EVIDENCE": str(self.folder),
            "MMCAT_TEST_MUTATION": self.mutation,
            **self.topics.env(),
            "MMCAT_RETRY__DELAYS": ",".join(self.delays),
            **self.env,
        }

    def _pids(self) -> list[int]:
        return [one.process.pid for one in list(self.services.values()) if one.process.poll() is None]


class Member(ServiceProcess):
    """A service process that can also be stopped and continued."""

    def stall(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; harmless where it runs or has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
