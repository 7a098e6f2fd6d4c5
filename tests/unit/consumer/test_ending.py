"""However late each step is, the service has ended `shutdown_s` and ten seconds after it was told to."""

import subprocess
import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from consumer.ending import COMMIT_S, LEAVE_S, Ending


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_before_it_is_told_only_the_broker_is_bounded() -> None:
    ending = Ending(20.0)
    assert not ending.told
    assert ending.drain_s == float("inf")
    assert ending.commit_s == COMMIT_S


@given(st.floats(0.1, 60), st.floats(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_all_steps_together_take_shutdown_s_and_ten_seconds_at_most(
    drain_s: float, busy_s: float, drained: float, answered: float
) -> None:
    clock = Clock()
    ending = Ending(drain_s, clock)
    ending.begin()
    clock.now += min(busy_s, drain_s + COMMIT_S + LEAVE_S)  # a question that was under way when it was told
    clock.now += ending.drain_s * drained
    clock.now += ending.commit_s * answered
    clock.now += ending.leave_s
    assert clock.now <= 100.0 + drain_s + COMMIT_S + LEAVE_S + 1e-6


def test_steps_that_are_quick_leave_the_next_ones_no_more_than_their_own_time() -> None:
    ending = Ending(20.0, Clock())
    ending.begin()
    assert (ending.drain_s, ending.commit_s, ending.leave_s) == (20.0, COMMIT_S, LEAVE_S)


def test_told_again_it_does_not_end_later_and_a_death_drains_nothing() -> None:
    clock = Clock()
    ending = Ending(20.0, clock)
    ending.begin()
    clock.now += 5
    ending.begin()
    assert ending.drain_s == 15.0
    ending.begin(drain=False)
    assert ending.drain_s == 0.0
    assert ending.commit_s == COMMIT_S


def test_a_part_that_hangs_is_left_behind_and_the_others_end() -> None:
    clock = Clock()
    ending = Ending(1.0, clock)
    ending.begin()
    clock.now += 1.0 + COMMIT_S + LEAVE_S - 0.1  # a tenth of a second is left
    hang, ended = threading.Event(), threading.Event()
    ending.leave({"hangs": hang.wait, "ends": ended.set})
    assert ended.is_set()
    hang.set()


def test_a_signal_amid_a_flood_of_log_lines_ends_it() -> None:
    """A handler runs between two steps of the main thread, which may hold the lock of the log just then."""
    script = (
        "import os, signal, sys, threading, structlog\n"
        "from consumer.ending import Ending\n"
        "from consumer.log import configure_logging\n"
        "configure_logging(stream=open(os.devnull, 'w'))\n"
        "log, ending = structlog.get_logger(), Ending(1.0)\n"
        "ending.begin_at_signals()\n"
        "print('ready', flush=True)\n"
        "while not ending.told:\n"
        "    log.warning('flood', text='x' * 100)\n"
        "print(ending.signal.name)\n"
    )
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                process.terminate()
                assert process.communicate(timeout=60)[0] == "SIGTERM\n"
            finally:
                process.kill()
