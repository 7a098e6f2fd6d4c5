"""The consumer as users run it: a process of its own, watched through its endpoints, stopped by signals."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from mmcat.cli.processes import free_port, log_tail, spawn, stop_process
from tests.support.waiting import eventually

START_S = 90.0
"""Importing torch from a cold disk takes 9 s here, and tests share their cores."""


@dataclass
class ServiceProcess:
    """A consumer process. As a context manager it is started on entry and killed on exit, whatever became of it."""

    env: Mapping[str, str]
    folder: Path
    command: tuple[str, ...] = (sys.executable, "-m", "mmcat.cli", "consume")
    http_port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        """What it said, over all its lives."""
        return self.folder / "service.log"

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process, running or ended."""
        assert self._process is not None, "not started"
        return self._process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            stop_process(self._process, timeout_s=0)
        if error is not None:
            print(f"--- the end of {self.log}\n{log_tail(self.log, 60)}")

    def whole_env(self) -> dict[str, str]:
        """The environment it runs in, none of the tests' own settings of the service in it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MMCAT_")}
        ours = {"MMCAT_HTTP__PORT": str(self.http_port), "MMCAT_HTTP__HOST": "127.0.0.1", "MMCAT_LOG__FORMAT": "json"}
        engine = {"MMCAT_MODEL__ENGINE": "eager"}  # making another takes seconds of each test's time
        return {**inherited, "OMP_NUM_THREADS": "1", **engine, **ours, **self.env}

    def start(self) -> None:
        """Start it and return at once."""
        self._process = spawn(self.command, self.log, self.whole_env(), signal.SIGKILL)

    def wait_ready(self) -> None:
        """Wait until it takes work."""
        self.until(lambda: self.status("/readyz") == 200, "the service is ready", START_S)

    def until(self, look: Callable[[], object], what: str, within_s: float = 60.0) -> None:
        """Wait for something while the service lives; says why it ended if it did."""

        def alive_and_true() -> bool:
            status = self.process.poll()
            assert status is None, f"the service ended with {status} while waiting: {what}\n{log_tail(self.log)}"
            return bool(look())

        eventually(alive_and_true, what, within_s, every_s=0.1)

    def terminate(self, within_s: float = 40.0) -> int:
        """SIGTERM, and wait for its exit status."""
        self.process.terminate()
        return self.process.wait(within_s)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def wait(self, within_s: float = START_S) -> int:
        """Wait until it ends by itself; returns its exit status."""
        return self.process.wait(within_s)

    def get(self, path: str) -> tuple[int, str]:
        """Ask one of its endpoints: (status, body), or (0, "") while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self, path: str) -> int:
        """The status of one of its endpoints; 0 while nobody listens."""
        return self.get(path)[0]

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of a metric over all series that have these labels; None where there is none."""
        found = None
        for line in self.get("/metrics")[1].splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)(?: \d+)?", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                found = (found or 0.0) + float(match[2])
        return found
