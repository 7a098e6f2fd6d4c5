"""`python -m tests.chaos.matrix`: runs the matrix and writes its table. What was run already is not run again.

    --lanes N       so many trials at once, each on servers of its own (2)
    --row NAME      only rows whose name contains it; may be repeated
    --trials N      so many of each row instead of the full number
    --mode NAME     at_least_once or exactly_once, where there is a choice
    --file FILE     where trials are appended, one JSON object a line
    --fresh         forget the trials that stand there

One trial of every row and mode comes first, then the second of each. A trial counts when the fault struck with events
in flight. One that the oracle objects to keeps its folder and is made up for, and the command exits with 1; so it does
where trials are missing in the end. Ctrl-C ends the lanes and their servers, and leaves the table as the file is.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

from tests.chaos.lanes import run_on_lanes
from tests.chaos.plan import Plan, Wanted
from tests.chaos.points import MODES
from tests.chaos.records import TrialRecord, append_trial, read_trials
from tests.chaos.rows import ROWS
from tests.chaos.runner import work
from tests.chaos.table import write_table

FILE: Final = Path("docs/reliability-trials.jsonl")
"""Kept with the source, so that whoever comes next goes on."""


class Keeper:
    """Appends each record to the file of trials, and says how far the plan is. Only the parent of the lanes has one."""

    def __init__(self, file: Path, plan: Plan) -> None:
        self._file, self._plan = file, plan
        self._began, self._missed = time.monotonic(), plan.missing
        self.clean = True

    def keep(self, record: TrialRecord) -> None:
        """Take the record of a trial that the plan knows of already."""
        append_trial(self._file, record)
        self.clean = self.clean and not record.objections
        print(f"{self._progress()} {_line(record)}", flush=True)

    def _progress(self) -> str:
        missing, total = self._plan.missing, self._plan.total
        if (counted := self._missed - missing) == 0:
            return f"[{total - missing}/{total}]"
        left = (time.monotonic() - self._began) / counted * missing
        return f"[{total - missing}/{total}, {left / 60:.0f} min left]"


def _commit() -> str:
    """The commit that the working tree stands on."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "consumer", "mmcat", "training", "tests")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)


def _line(record: TrialRecord) -> str:
    said = "; ".join(record.objections)[:300] or ("ok" if record.struck else "did not strike")
    return (
        f"{record.row} [{record.mode}] #{record.number}: {record.seconds:.0f} s, {record.in_flight} in flight, "
        f"{record.losses} lost, {record.duplicates} twice, recovered in {record.recovered_s} s: {said}"
    )


def main() -> int:
    """Run what is asked for, then write the table of all trials in the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--row", action="append", default=[])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--table", type=Path, default=Path("docs/reliability.md"))
    parser.add_argument("--fresh", action="store_true")
    given = parser.parse_args()
    if given.lanes < 1:
        parser.error("--lanes: at least 1")
    given.file.parent.mkdir(parents=True, exist_ok=True)
    if given.fresh:
        given.file.unlink(missing_ok=True)
    rows = [row for row in ROWS.values() if not given.row or any(part in row.name for part in given.row)]
    rows.sort(key=lambda row: row.brokers)
    wanted = [
        Wanted(row.name, mode, row.trials if given.trials is None else given.trials, row.brokers)
        for row in rows
        for mode in row.modes
        if given.mode in (None, mode)
    ]
    plan = Plan(wanted, read_trials(given.file))
    keeper = Keeper(given.file, plan)
    folder = Path(tempfile.mkdtemp(prefix="mmcat-chaos-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_on_lanes(plan, given.lanes, partial(work, folder, _commit()), keeper.keep)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        write_table(given.table, read_trials(given.file))
        print(f"{plan.missing} of {plan.total} trials are missing", flush=True)
    return 0 if keeper.clean and not plan.missing else 1


if __name__ == "__main__":
    sys.exit(main())
