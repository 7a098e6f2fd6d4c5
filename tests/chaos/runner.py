"""Runs trials one after the other on a site of its own, opened when the first trial needs it: the inside of a lane.

After `lanes`, which starts `work` in a process of its own and tells it by a pipe what to run.
"""

import shutil
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Self

from tests.chaos.plan import Task
from tests.chaos.records import TrialRecord
from tests.chaos.rows import ROWS
from tests.chaos.site import Site, open_site
from tests.chaos.trial import Trial

SITE_TRIALS: Final = 60
"""A broker of 256 MB is full of topics after two hundred."""


def work(folder: Path, commit: str, pipe: "Connection[Any, Any]", lane: int) -> None:
    """Be a lane: run each task that comes through the pipe and send its record back, until the pipe is closed.

    Ctrl-C reaches the whole group of processes and is left to the parent, which ends its lanes by SIGTERM.
    """
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN: what is started from here would inherit that
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with Runner(folder / f"lane-{lane}", commit) as runner:
        while True:
            try:
                task = pipe.recv()
            except EOFError:
                return
            pipe.send(runner.run(task))


class Runner:
    """Trials on sites of its own; as a context manager it closes the last one.

    Args:
        folder: for the logs of servers and of trials that were objected to.
        commit: see `TrialRecord`.
    """

    def __init__(self, folder: Path, commit: str) -> None:
        self._folder, self._commit = folder, commit
        self._stack = ExitStack()
        self._site: tuple[int, Site] | None = None
        self._held = 0  # trials on this site

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, task: Task) -> TrialRecord:
        """Run one trial; blocks until it is reckoned with. One that the oracle objects to keeps its folder."""
        row, number = ROWS[task.row], task.number
        site = self._on_site(row.brokers)
        folder = self._folder / f"{row.name.replace(' ', '_')}-{task.mode}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        env = _real_env(self._folder) if row.real else {}
        struck, held, counts = False, 0, (0, 0, 0)
        recovered: float | None = None
        try:
            with Trial(site, folder, task.mode, env=env, seed=number + 1, delays=row.delays) as trial:
                row.run(trial, number)
                verdict = trial.reckon(compact=number == 0)
                strikes = trial.evidence().strikes
                held = strikes[-1].in_flight if strikes else trial.held_at_strike()
                struck, recovered = held > 0, trial.recovered_after_s()
                counts, objections = (verdict.events, verdict.losses, verdict.duplicates), verdict.objections
        except Exception as error:  # a trial that fails by itself is a finding too: it is written down, others go on
            objections = [f"trial: {error!r:.500}", traceback.format_exc()[-1500:]]
            struck = True
            self._held = SITE_TRIALS  # it may have left a server down: the next trial gets new ones
        if not objections:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = round(time.monotonic() - began, 1)
        rounded = None if recovered is None else round(recovered, 2)
        return TrialRecord(*task, at, self._commit, seconds, struck, held, *counts, rounded, objections)

    def _on_site(self, brokers: int) -> Site:
        self._held += 1
        if self._site is None or self._site[0] != brokers or self._held > SITE_TRIALS:
            self._stack.close()
            self._held = 1
            site = self._stack.enter_context(open_site(self._folder / f"servers-{brokers}", brokers=brokers))
            self._site = (brokers, site)
        return self._site[1]


def _real_env(folder: Path) -> dict[str, str]:
    from tests.support.tiny import make_tiny_bundle  # here, for it brings torch

    bundle = folder / "tiny"
    if not bundle.exists():
        make_tiny_bundle(bundle)
    return {
        "MMCAT_TEST_REAL": "1",
        "MMCAT_MODEL__BUNDLE": str(bundle),
        "MMCAT_MODEL__DEVICE": "cpu",
        "MMCAT_MODEL__THREADS": "1",
    }
