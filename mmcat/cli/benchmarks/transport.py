"""How many events a second one process works off, and what CPU each costs, with a model that answers at once.

A backlog lies in a topic; the process under test starts, and the end offsets of its output are watched: neither its
start nor its end counts. Anything that takes the settings' environment can stand in for the service, a peer too.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from mmcat.cli.processes import ServerError, free_port, log_tail, spawn, stop_process

PARTITIONS: Final = 4
WARM_UP_SHARE: Final = 0.1  # of the events, before the clock starts: joining, first connections, first imports
LATE_S: Final = 120.0
LOOK_S: Final = 0.005
NO_LEADER: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)  # yet: just made
MACHINE: Final = 0  # in place of a process: all that runs, what the host of a virtual machine takes included
KINDS: Final = ("input", "output", "review", "dead_letter")


@dataclass(frozen=True, slots=True)
class Speed:
    """What one run showed.

    Args:
        cpu_ms: CPU time of the processes per event; NaN where /proc does not tell.
        beside_ms: the same of each process beside them that was asked for.
    """

    events_per_s: float
    cpu_ms: float
    beside_ms: tuple[float, ...] = ()


class Backlog:
    """Topics with `events` listings in the first of them; made on construction, which blocks."""

    def __init__(self, bootstrap: str, events: int, image_url: str = "", partitions: int = PARTITIONS) -> None:
        self.bootstrap, self.events, self.image_url, self.partitions = bootstrap, events, image_url, partitions
        tag = uuid.uuid4().hex[:8]
        self.group = f"bench-{tag}"
        self.topics = {kind: f"bench.{tag}.{kind}" for kind in KINDS}
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for made in admin.create_topics(
            [NewTopic(name, partitions, 1, config=_stamped(kind)) for kind, name in self.topics.items()]
        ).values():
            made.result(30)
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "partitioner": "murmur2_random"})
        for number in range(events):
            producer.produce(self.topics["input"], event(number, image_url), f"p{number}".encode())
            if number % 1_000 == 0:
                producer.poll(0)
        if left := producer.flush(60):
            raise ServerError(f"the broker at {bootstrap} did not take {left} of {events} events")

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The whole environment of a service that works this backlog off; no settings of ours are inherited."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MMCAT_")}
        topics = {f"MMCAT_TOPICS__{kind.upper()}": name for kind, name in self.topics.items()}
        return {
            **inherited,
            **topics,
            "MMCAT_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "MMCAT_KAFKA__GROUP_ID": self.group,
            "MMCAT_HTTP__HOST": "127.0.0.1",
            "MMCAT_HTTP__PORT": str(free_port()),
            "MMCAT_RETRY__DELAYS": "[]",
            "MMCAT_VIEW__ENABLED": "false",
            "MMCAT_LOG__LEVEL": "warning",
            **(extra or {}),
        }


def _stamped(kind: str) -> dict[str, str]:
    """Outcomes carry the broker's time, so that latency.py need not be quick to see them."""
    return {"message.timestamp.type": "LogAppendTime"} if kind == "output" else {}


def event(number: int, image_url: str = "") -> bytes:
    """A listing as shops register them, about 600 bytes; no two have one title, for equal ones are encoded once."""
    value: dict[str, Any] = {
        "product_id": f"p{number}",
        "title": f"나이키 에어 줌 페가수스 40 남성 러닝화 DV{number:07} 블랙/화이트 {220 + number % 8 * 10}mm",
        "brand": "나이키",
        "maker": "나이키코리아",
        "registered_at": "2026-03-02T09:30:00+09:00",
        "seller_path": ["패션잡화", "신발", "운동화", "러닝화"],
        "attributes": {"model": f"DV{number:07}", "price": 139_000 + number, "colour": "black/white"},
        **({"image_url": image_url.format(number)} if image_url else {}),
    }
    return json.dumps(value, ensure_ascii=False).encode()


def work_off(
    backlog: Backlog,
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    processes: int = 1,
    look: Callable[[], None] = lambda: None,
    warm_up_share: float = WARM_UP_SHARE,
    left: int = 0,
    beside: Sequence[int] = (),
    look_s: float = LOOK_S,
    late_s: float = LATE_S,
) -> Speed:
    """Start `processes` of `command`, watch them work the backlog off, end them.

    Args:
        look: called every `look_s` meanwhile, and once when all is done.
        warm_up_share: of the events, before the clock starts.
        left: events at the end that do not count: what lies ahead of the model then has nothing to fetch beside it.
        beside: ids of other processes whose CPU time is told too; `MACHINE`: of all.
        look_s: between two looks at the output; each costs this process and the broker a millisecond or so.
        late_s: how long all of it may take.

    Raises:
        ServerError: one of them ended, or the backlog is not done in time.
    """
    watcher = Consumer({"bootstrap.servers": backlog.bootstrap, "group.id": "watcher"})
    running = [spawn(command, log, env)]
    running += [spawn(command, log, {**env, "MMCAT_HTTP__PORT": str(free_port())}) for _ in range(1, processes)]
    try:
        deadline = time.monotonic() + late_s
        seen: list[tuple[int, float, list[float]]] = []  # records, monotonic seconds, CPU seconds: theirs, of others
        while not seen or seen[-1][0] < backlog.events - left:
            done = records(watcher, backlog)
            if done >= backlog.events * warm_up_share and (not seen or done > seen[-1][0]):
                cpu_s = [sum(_cpu_s(one.pid) for one in running), *map(_cpu_s, beside)]
                seen.append((done, time.monotonic(), cpu_s))
            if any(one.poll() is not None for one in running) or time.monotonic() > deadline:
                raise ServerError(f"{command[-1]} did {done} of {backlog.events} events\n{log_tail(log)}")
            look()
            time.sleep(look_s)
    finally:
        for one in running:
            stop_process(one, 10)
        watcher.close()
    (first, begun, cpu_begun), (last, ended, cpu_ended) = seen[0], seen[-1]
    count = last - first
    own, *others = (1_000 * (after - before) / count for before, after in zip(cpu_begun, cpu_ended, strict=True))
    return Speed(count / (ended - begun), own, tuple(others))


def records(watcher: Consumer, backlog: Backlog) -> int:
    """How many results there are, by the end offsets: nothing else is written there, no transaction marker."""
    topic = backlog.topics["output"]
    ends = (watcher.get_watermark_offsets(TopicPartition(topic, one), 5) for one in range(backlog.partitions))
    try:
        return sum(end[1] for end in ends if end is not None)
    except KafkaException as error:
        if error.args[0].code() not in NO_LEADER:
            raise
        return 0


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process, or of all, so far (Linux)."""
    try:
        if pid == MACHINE:
            ticks = list(map(int, Path("/proc/stat").read_text("ascii").partition("\n")[0].split()[1:9]))
            return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # less idle and waiting for disks
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
