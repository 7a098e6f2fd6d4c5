"""When the service ends, and how long each step of that may take: all of it within `shutdown_s` and ten seconds.

Told by a signal, by `Service.stop` or by a part that died. The poll loop and assignment.py ask it how much time is left
for what is in flight, and then for the broker's word on the last commit; after that it ends the parts.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Final

import structlog

log = structlog.get_logger("mmcat.ending")

COMMIT_S: Final = 5.0  # for the broker's word on the last commit of a partition
LEAVE_S: Final = 5.0  # for leaving the group, and for all other parts beside it; with the brokers gone it can hang


class Ending:
    """Whether the service is to end, and until when; told and asked from any thread.

    Args:
        drain_s: for what is in flight, from when it is told to end.
        clock: monotonic seconds.
    """

    def __init__(self, drain_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._drain_s, self._clock = drain_s, clock
        self._told = threading.Event()
        self.signal: signal.Signals | None = None
        """The one that asked for it, if a signal did."""
        self._drain_until = float("inf")

    @property
    def told(self) -> bool:
        """Whether the service is to end."""
        return self.signal is not None or self._told.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Block until it is told, at most `timeout_s`; returns whether it is. A signal is seen when the time is up."""
        return self._told.wait(timeout_s) or self.told

    def begin(self, *, drain: bool = True) -> None:
        """The service is to end. Without `drain` what is in flight is dropped. The earliest end stands."""
        self._drain_until = min(self._drain_until, self._clock() + (self._drain_s if drain else 0.0))
        self._told.set()

    def begin_at_signals(self) -> None:
        """SIGTERM or SIGINT begins it, a second one ends the process at once. Only the main thread can take signals.

        A handler runs between two steps of whatever the main thread does: it takes no lock, so it does not log either.
        """
        if threading.current_thread() is not threading.main_thread():
            return

        def asked(number: int, _: FrameType | None) -> None:
            if self.told:
                os._exit(128 + number)
            self._drain_until = min(self._drain_until, self._clock() + self._drain_s)
            self.signal = signal.Signals(number)

        signal.signal(signal.SIGTERM, asked)
        signal.signal(signal.SIGINT, asked)

    def say(self) -> None:
        """Log that it ends, and at which signal."""
        asked = "none" if self.signal is None else self.signal.name
        log.info("stopping", signal=asked, in_flight_deadline_s=self._drain_s)

    @property
    def drain_s(self) -> float:
        """Seconds left to finish what is in flight; without end before the service is to end."""
        return self._left(0.0)

    @property
    def commit_s(self) -> float:
        """Seconds to wait for the broker's word on a last commit; 0: not at all."""
        return min(COMMIT_S, self._left(COMMIT_S))

    @property
    def leave_s(self) -> float:
        """Seconds to wait for the parts to end."""
        return min(LEAVE_S, self._left(COMMIT_S + LEAVE_S))

    def leave(self, parts: Mapping[str, Callable[[], object]]) -> None:
        """End all parts at once, and leave behind what does not end in time: the process ends without it."""
        threads = [threading.Thread(target=end, name=f"end-{name}", daemon=True) for name, end in parts.items()]
        deadline = self._clock() + self.leave_s
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock()))
        if late := [thread.name for thread in threads if thread.is_alive()]:
            log.warning("left_behind", parts=late)

    def _left(self, more_s: float) -> float:
        return max(0.0, self._drain_until + more_s - self._clock())
