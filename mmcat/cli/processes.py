"""A child process of ours that never outlives us: the ground that the local servers and the demo's consumer stand on.

Loopback only, logs in a file, readiness by asking a real client, a stop with a deadline. On Linux the kernel kills the
child when the thread that started it ends, however it ends (prctl PR_SET_PDEATHSIG): so start servers from a thread
that lives as long as they should, normally the main one. Elsewhere only a clean exit stops them.
Comes before `servers`, which says what the programs are.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LOG_TAIL_LINES = 25
"""How much of a server's log an error shows: a Java stack trace with its cause fits."""

PORT_TRIES = 3
"""A free port can be taken between our look and the server's bind; three losses in a row mean something else."""

# Runs as a program of its own, not as preexec_fn, which is unsafe once the parent has threads (librdkafka starts some).
# PR_SET_PDEATHSIG is 1. The parent may have died before the call: then nobody would ever kill us, so leave.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]), 0, 0, 0)
if os.getppid() != int(sys.argv[2]): sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class ServerError(Exception):
    """A local server did not start: one sentence, then the end of its log."""


class ServerMissing(ServerError):  # noqa: N818 - says what it is: nothing failed, it is not installed
    """A local server cannot be had on this machine: one sentence that says what to install."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def spawn(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, death_signal: int = signal.SIGKILL
) -> "subprocess.Popen[bytes]":
    """Start `command` so that it dies with us and sees no Ctrl-C of ours; its two outputs are appended to `log`.

    Args:
        command: program and arguments, no shell.
        log: file that receives standard output and standard error.
        env: the whole environment; None passes ours on.
        death_signal: what the kernel sends it when we die (Linux): SIGTERM lets a consumer commit first.
    """
    if sys.platform == "linux":
        starter = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(int(death_signal)), str(os.getpid())]
        command = [*starter, *command]
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own command, never a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,  # Ctrl-C reaches us alone: we stop the children in the right order
        )


def stop_process(process: "subprocess.Popen[bytes]", timeout_s: float) -> int:
    """Ask the process to end, then make it; blocks for `timeout_s` at most (and a moment). Returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, or an empty text where there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class LocalServer(ABC):
    """A server on 127.0.0.1 with its data in a temporary folder: a context manager that is ready when entered.

    `stop()` and `start()` in between keep port and data folder: that is how tests take a server away for a while.

    Args:
        logs: folder for the log (made if missing); None keeps it beside the data, where it vanishes with it.
        port: a fixed port; None takes a free one.
        ready_timeout_s: how long a start may take.
    """

    name = "server"
    stop_timeout_s = 5.0

    def __init__(self, *, logs: Path | None = None, port: int | None = None, ready_timeout_s: float = 30.0) -> None:
        self._logs = logs
        self._fixed_port = port
        self._ready_timeout_s = ready_timeout_s
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or 0

    # What a kind of server says of itself.
    def _prepare(self) -> None:  # noqa: B027 (most kinds have nothing to do)
        """Write configuration and format storage, before every start."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What to run, for every start."""

    @abstractmethod
    def _ask(self) -> None:
        """Ask the server something with a real client; raises one of `_not_yet` while it is not ready."""

    _not_yet: tuple[type[Exception], ...] = (OSError,)

    # What they share.
    @property
    def data(self) -> Path:
        """The folder of the server's data; there while the context lasts."""
        if self._folder is None:
            raise RuntimeError(f"{self.name} was not started")
        return Path(self._folder.name)

    @property
    def log(self) -> Path:
        """The file that holds what the server said."""
        return (self._logs or self.data) / f"{self.name}.log"

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix=f"mmcat-{self.name}-", ignore_cleanup_errors=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._start_on_free_port()
        except BaseException:  # Ctrl-C too must leave nothing behind
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start on the same port with the data there is; blocks until a client is answered."""
        self._prepare()
        self._process = spawn(self._command(), self.log)
        self._wait_ready(self._process)

    def stop(self) -> int | None:
        """Stop the server, keep port and data; blocks up to `stop_timeout_s`. Returns its exit status, if it ran."""
        if self._process is None:
            return None
        status = stop_process(self._process, self.stop_timeout_s)
        self._process = None
        return status

    def kill(self) -> None:
        """End it at once, as a crash would; keeps port and data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start_on_free_port(self) -> None:
        for attempt in range(1, PORT_TRIES + 1):
            self.port = self._fixed_port or free_port()
            try:
                return self.start()
            except ServerError as error:
                taken = "in use" in str(error).lower()
                if self._fixed_port or not taken or attempt == PORT_TRIES:
                    raise
                self.stop()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _wait_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        self._until(process, deadline, self._connect, (OSError,))
        self._until(process, deadline, self._ask, self._not_yet)

    def _connect(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()

    def _until(
        self,
        process: "subprocess.Popen[bytes]",
        deadline: float,
        attempt: Callable[[], None],
        not_yet: tuple[type[Exception], ...],
    ) -> None:
        while True:
            if process.poll() is not None:
                raise self._failure(f"ended at once with status {process.returncode}")
            try:
                return attempt()
            except not_yet as error:
                if time.monotonic() > deadline:
                    raise self._failure(f"gave no answer within {self._ready_timeout_s:.0f} s ({error})") from error
            time.sleep(0.02)

    def _failure(self, what: str) -> ServerError:
        return ServerError(
            f"{self.name} on port {self.port} {what}; the end of its log {self.log}:\n{log_tail(self.log)}"
        )
