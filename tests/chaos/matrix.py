"""`python -m tests.chaos.matrix`: runs the matrix and writes its table. What was run already is not run again.

    --row NAME      only rows whose name contains it; may be repeated
    --trials N      so many of each row instead of the full number
    --mode NAME     at_least_once or exactly_once, where there is a choice
    --file FILE     where trials are appended, one JSON object a line
    --fresh         forget the trials that stand there

One trial of every row and mode comes first, then the second of each. A trial counts when the fault struck with events
in flight. One that the oracle objects to keeps its folder and is made up for, and the command exits with 1.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.chaos.points import MODES
from tests.chaos.rows import ROWS, Row
from tests.chaos.site import Site, open_site
from tests.chaos.table import write_table
from tests.chaos.trial import Trial
from tests.support.tiny import make_tiny_bundle

FILE: Final = Path("docs/reliability-trials.jsonl")
"""Kept with the source, so that whoever comes next goes on."""
SITE_TRIALS: Final = 60
"""A broker of 256 MB is full of topics after two hundred."""
TRIES: Final = 2
"""A row may miss its point this many times as often as it is to strike."""


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
    objections: list[str]


class Matrix:
    """Rows to run on sites that are opened when the first row needs them."""

    def __init__(self, file: Path, logs: Path) -> None:
        self._file, self._logs = file, logs
        self._commit = _commit()
        self._stack = ExitStack()
        self._site: tuple[int, Site] | None = None
        self._held = 0  # trials on this site

    def __enter__(self) -> "Matrix":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, row: Row, mode: str, trials: int) -> bool:
        """Run what is missing of a row up to so many trials; returns whether the oracle had nothing to object to."""
        done = [one for one in read_trials(self._file) if (one["row"], one["mode"]) == (row.name, mode)]
        number, clean = len(done), True
        left = trials - sum(one["struck"] and not one["objections"] for one in done)
        tries = TRIES * left
        while left > 0 and tries > 0:
            record = self._trial(row, mode, number)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
            print(_line(record), flush=True)
            kept = record.struck and not record.objections
            number, tries, left = number + 1, tries - 1, left - kept
            clean = clean and not record.objections
        return clean

    def _trial(self, row: Row, mode: str, number: int) -> TrialRecord:
        site = self._on_site(row.brokers)
        folder = self._logs / f"{row.name.replace(' ', '_')}-{mode}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        env = _real_env(self._logs) if row.real else {}
        struck, held, counts = False, 0, (0, 0, 0)
        recovered: float | None = None
        try:
            with Trial(site, folder, mode, env=env, seed=number + 1, delays=row.delays) as trial:
                row.run(trial, number)
                verdict = trial.reckon(compact=number == 0)
                strikes = trial.evidence().strikes
                held = strikes[-1].in_flight if strikes else trial.held_at_strike()
                struck, recovered = held > 0, trial.recovered_after_s()
                counts, objections = (verdict.events, verdict.losses, verdict.duplicates), verdict.objections
        except Exception as error:  # a trial that fails by itself is a finding too: it is written down, others go on
            objections = [f"trial: {error!r:.500}", traceback.format_exc()[-1500:]]
            struck = True
        if not objections:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = round(time.monotonic() - began, 1)
        rounded = None if recovered is None else round(recovered, 2)
        return TrialRecord(
            row.name, mode, number, at, self._commit, seconds, struck, held, *counts, rounded, objections
        )

    def _on_site(self, brokers: int) -> Site:
        self._held += 1
        if self._site is None or self._site[0] != brokers or self._held > SITE_TRIALS:
            self._stack.close()
            self._held = 1
            site = self._stack.enter_context(open_site(self._logs / f"servers-{brokers}", brokers=brokers))
            self._site = (brokers, site)
        return self._site[1]


def read_trials(file: Path) -> list[dict[str, Any]]:
    """The trials that stand in a file; none where there is none."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _commit() -> str:
    """The commit that the working tree stands on."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "consumer", "mmcat", "training", "tests")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)


def _real_env(folder: Path) -> dict[str, str]:
    bundle = folder / "tiny"
    if not bundle.exists():
        make_tiny_bundle(bundle)
    return {
        "MMCAT_TEST_REAL": "1",
        "MMCAT_MODEL__BUNDLE": str(bundle),
        "MMCAT_MODEL__DEVICE": "cpu",
        "MMCAT_MODEL__THREADS": "1",
    }


def _line(record: TrialRecord) -> str:
    said = "; ".join(record.objections)[:300] or ("ok" if record.struck else "did not strike")
    return (
        f"{record.row} [{record.mode}] #{record.number}: {record.seconds:.0f} s, {record.in_flight} in flight, "
        f"{record.losses} lost, {record.duplicates} twice, recovered in {record.recovered_s} s: {said}"
    )


def main() -> int:
    """Run what is asked for, then write the table of all trials in the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--row", action="append", default=[])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--table", type=Path, default=Path("docs/reliability.md"))
    parser.add_argument("--fresh", action="store_true")
    given = parser.parse_args()
    given.file.parent.mkdir(parents=True, exist_ok=True)
    if given.fresh:
        given.file.unlink(missing_ok=True)
    rows = [row for row in ROWS.values() if not given.row or any(part in row.name for part in given.row)]
    rows.sort(key=lambda row: row.brokers)
    wanted = {row.name: row.trials if given.trials is None else given.trials for row in rows}
    clean = True
    with Matrix(given.file, Path(tempfile.mkdtemp(prefix="mmcat-chaos-"))) as matrix:
        for upto in range(1, max(wanted.values(), default=0) + 1):
            for row in rows:
                for mode in row.modes:
                    if upto <= wanted[row.name] and given.mode in (None, mode):
                        clean = matrix.run(row, mode, upto) and clean
                        write_table(given.table, read_trials(given.file))
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
