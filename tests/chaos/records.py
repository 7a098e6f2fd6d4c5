"""The file of trials: one JSON object a line, appended by one process, kept with the source."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One line of the file of trials.

    Args:
        commit: that it ran on; with a plus if files of the program or of the tests were changed since.
        struck: whether the fault struck with events in flight; only then the trial counts.
        in_flight: at the strike.
        recovered_s: from the fault until all that was polled before it was committed, and more; None: never seen.
        objections: of the oracle, or what went wrong with the trial itself.
    """

    row: str
    mode: str
    number: int
    at: str
    commit: str
    seconds: float
    struck: bool
    in_flight: int
    events: int
    losses: int
    duplicates: int
    recovered_s: float | None
    objections: Sequence[str]

    @property
    def counts(self) -> bool:
        """Whether it is one of those that are wanted: the fault struck, and nobody objected."""
        return self.struck and not self.objections


def read_trials(file: Path) -> list[TrialRecord]:
    """The trials that stand in a file; none where there is none."""
    if not file.exists():
        return []
    return [TrialRecord(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def append_trial(file: Path, record: TrialRecord) -> None:
    """Put a trial at the end of a file."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(record)) + "\n")
