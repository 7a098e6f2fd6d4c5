"""Lanes and their plan, on work that takes no time: what is run, what is not run twice, and what an end leaves."""

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmcat.cli.processes import spawn
from tests.chaos.lanes import run_on_lanes
from tests.chaos.plan import Plan, Task, Wanted
from tests.chaos.records import TrialRecord, append_trial, read_trials
from tests.support.waiting import eventually

ROWS = [Wanted("one", "a", 3, 1), Wanted("one", "b", 3, 1), Wanted("three", "a", 2, 3)]


def _record(task: Task, *, struck: bool = True, objections: Sequence[str] = ()) -> TrialRecord:
    return TrialRecord(*task, "now", "commit", 0.0, struck, 1, 10, 0, 0, None, objections)


def _drain(plan: Plan, *, struck: bool = True) -> list[Task]:
    """Hand out all there is, as one lane would."""
    tasks = []
    while (task := plan.next()) is not None:
        tasks.append(task)
        plan.finished(_record(task, struck=struck))
    return tasks


# what a lane of these tests does ────────────────────────────────────────────────────────────────────────────────────


def _answer(pipe: "Connection[Any, Any]", lane: int) -> None:
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_record(task))


def _die_once(mark: Path, pipe: "Connection[Any, Any]", lane: int) -> None:
    if lane == 1:
        pipe.recv()
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    _answer(pipe, lane)


def _die(pipe: "Connection[Any, Any]", lane: int) -> None:
    pipe.recv()
    sys.exit(7)


def _serve(folder: Path, pipe: "Connection[Any, Any]", lane: int) -> None:
    """Has a server of its own, is told nothing of Ctrl-C, and never finishes its second task."""
    server = spawn([sys.executable, "-c", "import time; time.sleep(600)"], folder / "log")
    (folder / f"{server.pid}.pid").touch()
    pipe.send(_record(pipe.recv()))
    signal.pause()


# the plan ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_of_every_row_and_mode_comes_first_and_nothing_comes_twice() -> None:
    tasks = _drain(Plan(ROWS, []))
    assert [(row, mode) for row, mode, _ in tasks[:3]] == [("one", "a"), ("one", "b"), ("three", "a")]
    assert [number for _, _, number in tasks[3:6]] == [1, 1, 1]
    assert len(set(tasks)) == len(tasks) == 8


def test_what_was_run_is_not_run_again_and_what_did_not_count_is_made_up_for() -> None:
    done = [
        _record(Task("one", "a", 0)),
        _record(Task("one", "a", 4), objections=["lost"]),
        _record(Task("one", "b", 0), struck=False),
    ]
    tasks = _drain(Plan(ROWS[:2], done))
    assert tasks == [("one", "b", 1), ("one", "a", 5), ("one", "b", 2), ("one", "a", 6), ("one", "b", 3)]


def test_a_row_that_never_strikes_is_tried_twice_as_often_as_it_is_wanted() -> None:
    plan = Plan(ROWS[:1], [])
    assert len(_drain(plan, struck=False)) == 6
    assert plan.missing == plan.total == 3


def test_no_more_is_handed_out_than_is_missing_until_one_comes_back_that_does_not_count() -> None:
    plan = Plan([Wanted("one", "a", 1, 1)], [])
    task = plan.next()
    assert task is not None
    assert plan.next() is None
    plan.finished(_record(task, objections=["lost"]))
    assert plan.next() == ("one", "a", 1)


def test_of_equal_turn_comes_first_what_the_lanes_brokers_are_for() -> None:
    assert Plan(ROWS, []).next(brokers=3) == ("three", "a", 0)


# the lanes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lanes_share_a_plan_and_every_record_is_one_line_of_the_file(tmp_path: Path) -> None:
    file, plan = tmp_path / "trials.jsonl", Plan(ROWS, [])
    run_on_lanes(plan, 2, _answer, partial(append_trial, file))
    done = [(one.row, one.mode, one.number) for one in read_trials(file)]
    assert sorted(done) == sorted(_drain(Plan(ROWS, [])))
    assert plan.missing == 0
    assert _drain(Plan(ROWS, read_trials(file))) == []


def test_the_trial_of_a_lane_that_died_is_done_by_another(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan, kept, mark = Plan(ROWS, []), list[TrialRecord](), tmp_path / "mark"
    run_on_lanes(plan, 2, partial(_die_once, mark), kept.append)
    assert mark.exists()
    assert sorted((one.row, one.mode, one.number) for one in kept) == sorted(_drain(Plan(ROWS, [])))
    assert "lane 1 died (exit -9)" in capfd.readouterr().err


def test_with_all_lanes_dead_the_plan_says_what_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    plan = Plan(ROWS, [])
    kept = list[TrialRecord]()
    run_on_lanes(plan, 2, _die, kept.append)
    assert not kept
    assert plan.missing == 8
    assert capfd.readouterr().err.count("died (exit 7)") == 2


def test_an_interrupted_run_leaves_no_lane_and_no_server(tmp_path: Path) -> None:
    def interrupt(_: TrialRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_lanes(Plan(ROWS, []), 2, partial(_serve, tmp_path), interrupt)
    pids = [int(one.stem) for one in tmp_path.glob("*.pid")]
    assert pids
    eventually(lambda: not any(map(_runs, pids)), f"the servers {pids} have ended")


def _runs(pid: int) -> bool:
    """Whether a process is there, and not only its entry for a parent that has not asked."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
