"""Whole consumers in turns: each a process that stays, with topics of its own, stopped while another has its turn.

A turn is a backlog of listings. Results are counted from the end of the first batch to where `AHEAD` listings are left,
by the broker's clock: so joining does not count, nor an end at which nothing is fetched any more because all that is
left was fetched ahead. Every product must have a result that saw its photo. After packages.py, which says where the
packages of a peer are.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from mmcat.cli.benchmarks.transport import PARTITIONS, Backlog
from mmcat.cli.bundles import home
from mmcat.cli.processes import ServerError, log_tail, spawn, stop_process
from tests.benchmarks.peers import packages
from tests.benchmarks.peers.work import AHEAD, BATCH, FETCHES, PHOTO_S, SESSION_MS

SERVICE: Final = "mmcat"
LATE_S: Final = 300.0  # of a turn, the start before the first included: the engine's graphs are made then
ROOT: Final = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Place:
    """What all run on: a broker, a bundle, photos (`{}` in the address is a number), and a folder for logs."""

    bootstrap: str
    bundle: Path
    image_url: str
    logs: Path


@dataclass(frozen=True, slots=True)
class Turn:
    """What one backlog showed: results a second, and each product's path (its last id) and probability."""

    events_per_s: float
    answers: Mapping[str, tuple[str, float]]


class Runner:
    """The service or a peer, with an engine. As a context manager it is stopped on exit; `turn` starts it.

    Args:
        name: `SERVICE`, or a peer of `packages.REQUIREMENTS`.
        engine: as in `Categorizer.load`.
    """

    def __init__(self, name: str, engine: str, place: Place) -> None:
        self.name, self.engine, self._place = name, engine, place
        self._backlog = Backlog(place.bootstrap, 0)
        self._log = place.logs / f"{name}-{engine}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._results = Consumer({"bootstrap.servers": place.bootstrap, "group.id": "results", "fetch.wait.max.ms": 50})
        output = self._backlog.topics["output"]
        self._results.assign([TopicPartition(output, one, OFFSET_BEGINNING) for one in range(PARTITIONS)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            stop_process(self._process, 10)
        self._results.close()

    def turn(self, numbers: range) -> Turn:
        """Listings with these numbers from registration to results; blocks until they are all there.

        Raises:
            ServerError: it ended, was late, or answered a listing without its photo.
        """
        with self._awake():
            self._register(numbers)
            messages = self._collect({f"p{number}".encode() for number in numbers})
        results = [json.loads(message.value() or b"") for message in messages]
        if blind := sum(said["image"] != "used" for said in results):
            raise ServerError(f"{self}: {blind} of {len(numbers)} listings were answered without their photo")
        answers = {said["product_id"]: (said["path"][-1]["id"], said["probability"]) for said in results}
        return Turn(rate([message.timestamp()[1] for message in messages]), answers)

    def __str__(self) -> str:
        return f"{self.name} ({self.engine})"

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """Runs inside, stands still outside: what waits for its turn takes nothing from the others."""
        if self._process is None:
            self._process = spawn(self._command(), self._log, self._env())
        self._process.send_signal(signal.SIGCONT)
        yield
        self._process.send_signal(signal.SIGSTOP)  # not after an error: then it is to end

    def _command(self) -> list[str]:
        if self.name == SERVICE:
            return [sys.executable, "-m", "mmcat.cli", "consume"]
        topics = self._backlog.topics
        job = (self._place.bootstrap, self._backlog.group, topics["input"], topics["output"])
        program = f"tests.benchmarks.peers.{self.name}_job"
        return [sys.executable, "-m", program, *job, str(self._place.bundle), self.engine]

    def _env(self) -> dict[str, str]:
        if self.name != SERVICE:
            own = os.pathsep.join((str(packages.folder(self.name)), str(ROOT)))
            return {**os.environ, "PYTHONPATH": own, "MMCAT_HOME": str(home())}
        port = self._place.image_url.rsplit(":", 1)[1].split("/")[0]
        return self._backlog.env(
            {
                "MMCAT_HOME": str(home()),
                "MMCAT_MODEL__BUNDLE": str(self._place.bundle),
                "MMCAT_MODEL__ENGINE": self.engine,
                "MMCAT_PHOTO__ALLOW": "127.0.0.1/32",
                "MMCAT_PHOTO__PORTS": port,
                "MMCAT_PHOTO__PER_HOST": str(FETCHES),
                "MMCAT_PHOTO__DEADLINE_S": str(PHOTO_S),
                "MMCAT_LIMITS__IN_FLIGHT_LISTINGS": str(AHEAD),
                "MMCAT_KAFKA__SESSION_TIMEOUT_MS": str(SESSION_MS),
                "MMCAT_KAFKA__MAX_POLL_INTERVAL_MS": str(SESSION_MS),
            }
        )

    def _register(self, numbers: range) -> None:
        producer = Producer({"bootstrap.servers": self._place.bootstrap, "partitioner": "murmur2_random"})
        for number in numbers:
            value = json.dumps(event(number, self._place.image_url), ensure_ascii=False).encode()
            producer.produce(self._backlog.topics["input"], value, f"p{number}".encode())
        if left := producer.flush(30):
            raise ServerError(f"the broker did not take {left} events")

    def _collect(self, products: Set[bytes]) -> list[Message]:
        """The first result of each; what is said again, of an earlier turn too, is left out: at least once may."""
        assert self._process is not None
        first: dict[bytes, Message] = {}
        deadline = time.monotonic() + LATE_S
        while len(first) < len(products):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{self} gave {len(first)} of {len(products)} results\n{log_tail(self._log)}")
            for message in self._results.consume(len(products), 0.1):
                if message.error() is None and message.key() in products:
                    first.setdefault(message.key() or b"", message)
        return list(first.values())


def event(number: int, image_url: str) -> dict[str, Any]:
    """A listing whose title and photo no other of its turn has."""
    title = f"나이키 에어 줌 페가수스 {number % 41} 남성 러닝화 DV{number:05} 블랙/화이트 {220 + number % 8 * 10}mm"
    return {"product_id": f"p{number}", "title": title, "brand": "나이키", "image_url": image_url.format(number)}


def rate(stamps_ms: list[int]) -> float:
    """Results a second between the end of the first batch and the last that had fetches beside it."""
    stamps_ms = sorted(stamps_ms)
    first, last = BATCH - 1, len(stamps_ms) - AHEAD - 1
    return 1_000 * (last - first) / (stamps_ms[last] - stamps_ms[first])
