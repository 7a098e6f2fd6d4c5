"""What a service under trial writes down of itself while it works, line by line, so that a kill leaves it readable.

The chaos entry writes (`Diary`), the oracle reads (`read_evidence`): which offsets were polled under which lease, which
commits the broker confirmed, how a lease ended, where a fault struck and what was in flight then. It bounds what may be
repeated and shows that a fault struck; what came out is never taken from here, only from the topics.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Final

Origin = tuple[int, int]
"""Partition and offset of the input topic."""

LEASE_HEADER: Final = "mmcat-test-lease"
"""Names the lease under which an outcome was worked; only services under trial write it."""
LIVE: Final = "live"
RETRY: Final = "retry"
REPLAY: Final = "replay"

Copy = tuple[str, int, int]
"""Topic, partition and offset of a record of a delay topic."""


class Diary:
    """One process's lines. Each is one write to a file opened for appending: whole, or not there at all."""

    def __init__(self, folder: Path, role: str) -> None:
        self.role = role
        self._file = os.open(folder / f"evidence-{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, what: str, **facts: Any) -> None:
        """Note a fact, with the time."""
        line = {"at": time.time(), "pid": os.getpid(), "role": self.role, "what": what, **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")


@dataclass(slots=True)
class LeaseNotes:
    """One holding of one partition, of the input topic or (role retry) of a delay topic.

    Args:
        role: live, retry or replay.
        pid: of the process that held it.
        begun_at: seconds since 1970.
        polled: first and last offset of what one poll brought, and when.
        commits: offsets that the broker confirmed under it, and when.
        ended: revoked, lost or sought_back; None: its process ended first.
    """

    name: str
    role: str
    topic: str
    partition: int
    pid: int
    begun_at: float
    polled: list[tuple[int, int, float]] = field(default_factory=list)
    commits: list[tuple[int, float]] = field(default_factory=list)
    ended: str | None = None

    @property
    def lapsed(self) -> bool:
        """Whether it ended with work on its way that nobody could call back."""
        return self.ended != "revoked"

    def origins(self, until: float = inf) -> Iterable[Origin]:
        """Everything polled under it, up to a moment."""
        spans = ((first, last) for first, last, at in self.polled if at <= until)
        return ((self.partition, offset) for first, last in spans for offset in range(first, last + 1))

    def abandoned(self, until: float = inf) -> Iterable[Origin]:
        """What was polled under it and not committed when it ended, or at a moment."""
        committed = max((offset for offset, at in self.commits if at <= until), default=0)
        return (origin for origin in self.origins(until) if origin[1] >= committed)


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault at its point, from inside.

    Args:
        passes: how often the point was passed with events in flight.
        in_flight: events between poll and acknowledgement.
    """

    point: str
    passes: int
    in_flight: int
    at: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the processes of one trial wrote down."""

    leases: Mapping[str, LeaseNotes]
    strikes: tuple[Strike, ...] = ()

    def may_repeat(self) -> Counter[Origin]:
        """How many outcomes beyond the first each input may have, at least once being promised."""
        return Counter(origin for lease in self._live() for origin in lease.abandoned())

    def may_repeat_late(self) -> Counter[Copy]:
        """The same for each record of the delay topics."""
        retries = (lease for lease in self.leases.values() if lease.role == RETRY)
        return Counter((lease.topic, *origin) for lease in retries for origin in lease.abandoned())

    def in_flight(self, at: float) -> int:
        """How many events were polled and uncommitted at a moment."""
        return len({origin for lease in self._live() for origin in lease.abandoned(at)})

    def reached(self, at: float) -> dict[int, int]:
        """The highest offset of each partition that was polled by a moment."""
        found: dict[int, int] = {}
        for partition, offset in (one for lease in self._live() for one in lease.origins(at)):
            found[partition] = max(offset, found.get(partition, -1))
        return found

    def replayed(self) -> Counter[Origin]:
        """How often each input was polled by a replay."""
        replays = (lease for lease in self.leases.values() if lease.role == REPLAY)
        return Counter(origin for lease in replays for origin in lease.origins())

    def _live(self) -> list[LeaseNotes]:
        return [lease for lease in self.leases.values() if lease.role == LIVE]


def read_evidence(folder: Path) -> Evidence:
    """Read what all processes wrote into the folder; a last line that a kill cut short is left out."""
    lines: list[dict[str, Any]] = []
    for path in folder.glob("evidence-*.jsonl"):
        whole = path.read_bytes().split(b"\n")[:-1]
        lines += [json.loads(line) for line in whole]
    return gather(sorted(lines, key=lambda line: line["at"]))


def gather(lines: Iterable[Mapping[str, Any]]) -> Evidence:
    """Make evidence of lines in order of time."""
    leases: dict[str, LeaseNotes] = {}
    latest: dict[tuple[int, str, int], LeaseNotes] = {}  # process and partition → its last lease
    strikes: list[Strike] = []
    for line in lines:
        what = line["what"]
        if what == "begun":
            lease = LeaseNotes(*(line[name] for name in ("lease", "role", "topic", "partition", "pid", "at")))
            leases[lease.name] = latest[lease.pid, lease.topic, lease.partition] = lease
        elif what == "polled":
            leases[line["lease"]].polled.append((line["first"], line["last"], line["at"]))
        elif what == "ended":
            leases[line["lease"]].ended = line["how"]
        elif what == "committed":
            held = latest.get((line["pid"], line["topic"], line["partition"]))
            if held is not None:
                held.commits.append((line["offset"], line["at"]))
        elif what == "strike":
            strikes.append(Strike(line["point"], line["passes"], line["in_flight"], line["at"]))
    return Evidence(leases, tuple(strikes))
