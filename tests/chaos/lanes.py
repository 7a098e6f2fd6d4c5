"""Lanes: processes that run trials side by side, each on servers of its own, and take them from one plan.

Most of a trial is waiting, so that two lanes on two cores take little more than half the time. The parent alone
hands trials out and writes records down. After `plan`, before `runner`, which is the inside of a lane.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from tests.chaos.plan import Plan, Task
from tests.chaos.records import TrialRecord

CLOSE_S: Final = 60.0
"""A broker that stops writes its archive of classes first, three of them one after the other."""

Work = Callable[["Connection[Any, Any]", int], None]
"""What a lane runs: gets its end of the pipe and its number; has to be importable, as the process is started anew."""


class Lane:
    """One process, seen from its parent; started at once.

    Args:
        work: runs tasks that come through the pipe, and sends back one record for each.
        number: from 1.
    """

    def __init__(self, work: Work, number: int) -> None:
        context = get_context("spawn")  # a process that is forked after a Kafka client was made hangs
        self.pipe, theirs = context.Pipe()
        self.number, self.brokers = number, 0
        self.task: Task | None = None
        self.process = context.Process(target=work, args=(theirs, number), name=f"lane {number}")
        self.process.start()
        theirs.close()  # so that its death closes the pipe

    def give(self, task: Task, brokers: int) -> None:
        """Let it run a task; returns at once."""
        self.task, self.brokers = task, brokers
        with suppress(OSError):  # it died while it had nothing to do: `take` will see it
            self.pipe.send(task)

    def take(self) -> TrialRecord | None:
        """What became of the task; blocks until it is known. None: the lane died."""
        try:
            record: TrialRecord = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return record

    def join(self) -> None:
        """Wait until it has closed its servers."""
        self.process.join(CLOSE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_on_lanes(plan: Plan, count: int, work: Work, keep: Callable[[TrialRecord], None]) -> None:
    """Run a plan on so many lanes; blocks until nothing is left to hand out, or no lane is left to take it.

    A lane that dies is told of on standard error, and its trial is done by another. However this ends, by Ctrl-C or an
    error of `keep` too, lanes are ended and their servers with them.

    Args:
        keep: called for each record, in the order in which trials end.
    """
    idle = [Lane(work, number) for number in range(1, min(count, plan.missing) + 1)]
    lanes, busy = list(idle), dict[Any, Lane]()
    try:
        while True:
            while idle and (task := plan.next(idle[-1].brokers)) is not None:
                lane = idle.pop()
                lane.give(task, plan.brokers(task))
                busy[lane.pipe] = lane
            if not busy:
                return
            for pipe in wait(list(busy)):
                lane = busy.pop(pipe)
                record = lane.take()
                if record is None:
                    _mourn(lane, plan)
                else:
                    plan.finished(record)
                    idle.append(lane)
                    keep(record)
    except BaseException:
        for lane in lanes:
            lane.process.terminate()
        raise
    finally:
        for lane in lanes:
            lane.pipe.close()
        for lane in lanes:
            lane.join()


def _mourn(lane: Lane, plan: Plan) -> None:
    """Say that a lane died, and give its trial back."""
    assert lane.task is not None
    lane.process.join()
    plan.lost(lane.task)
    row, mode, number = lane.task
    print(f"lane {lane.number} died (exit {lane.process.exitcode}) in {row} [{mode}] #{number}", file=sys.stderr)
