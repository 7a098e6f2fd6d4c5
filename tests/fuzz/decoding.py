"""A process that decodes photos, long-lived and with its memory capped; and the handle on it.

The process (`python -m tests.fuzz.decoding`) warms up on whole photos, then allows itself `CAP_BYTES` of address space
more than it has: whoever asks for more is refused by the kernel. It has one CPU, and so one thread for each picture.
"""

import faulthandler
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE
from types import TracebackType
from typing import Final, Self

import numpy as np

from mmcat.errors import PhotoError
from mmcat.photos import decode

PX: Final = 64
MAX_PIXELS: Final = 1_000_000
MOST_BYTES: Final = 40 * 2**20
"""What decoding a photo may take: 40 bytes for each pixel that is admitted. 24 were seen."""
CAP_BYTES: Final = 256 * 2**20
"""What the process is given beyond what it has when it is warm, in address space: nothing should come near."""
ANSWER_S: Final = 60.0
"""A photo that takes longer hangs: usual are milliseconds."""
START_S: Final = 90.0
COMMAND: Final = (sys.executable, "-m", "tests.fuzz.decoding")
LENGTH: Final = struct.Struct(">I")
ALLOCATOR: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""Pixels go back to the system once freed, and threads reserve no address space: what is seen is what is used."""
EXPECTED: Final = frozenset({"decoded", "undecodable", "refused"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one photo.

    Args:
        outcome: "decoded", "undecodable" or "refused", as is promised; else "crashed", "hung", "memory" or the name of
            an exception.
        detail: in words.
        ms: how long it took.
        peak_bytes: how much memory it took at most, beyond what the process held before.
        held_bytes: how much more than when it was warm the process held after it.
    """

    outcome: str
    detail: str
    ms: float = 0.0
    peak_bytes: int = 0
    held_bytes: int = 0


class Decoder:
    """The handle. Starts another process where one ended, and says how many it started.

    Args:
        warm_up: whole photos.
        command: of the process.
    """

    def __init__(self, warm_up: Iterable[bytes], command: Sequence[str] = COMMAND) -> None:
        self.started = 0
        self._warm_up, self._command = list(warm_up), command
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stderr = self._stack.enter_context(tempfile.TemporaryFile())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._end(self._process)
        self._stack.close()

    def decode(self, data: bytes, answer_s: float = ANSWER_S) -> Verdict:
        """Have a photo decoded; blocks."""
        process = self._process or self._start()
        try:
            return self._ask(process, data, answer_s)
        except TimeoutError:
            self._end(process)
            return Verdict("hung", f"no answer within {answer_s:g} s")
        except EOFError:
            self._end(process)
            self._stderr.seek(0)
            said = self._stderr.read().decode(errors="replace")[-2_000:]
            status = process.returncode
            name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            return Verdict("crashed", f"{name}\n{said}")

    def _start(self) -> "subprocess.Popen[bytes]":
        self._stderr.truncate(0)
        command = [*self._command, str(len(self._warm_up))]
        env = {**os.environ, **ALLOCATOR}
        process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=self._stderr, env=env)
        self._process, self.started = process, self.started + 1
        for photo in self._warm_up:
            warm = self._ask(process, photo, START_S)
            assert warm.outcome == "decoded", warm
        return process

    def _ask(self, process: "subprocess.Popen[bytes]", data: bytes, answer_s: float) -> Verdict:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(LENGTH.pack(len(data)) + data)
            process.stdin.flush()
        except BrokenPipeError:
            raise EOFError from None
        if not select.select([process.stdout], [], [], answer_s)[0]:
            raise TimeoutError
        line = process.stdout.readline()
        if not line:
            raise EOFError
        return Verdict(**json.loads(line))

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        process.communicate()
        self._process = None


def judge(data: bytes, warm_bytes: int) -> Verdict:
    """Decode a photo in this process and look at it.

    Args:
        warm_bytes: what the process holds anyway; 0 while it is not warm and may take what it likes.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest mark of memory begins anew
    before_bytes, outcome, detail, since = _memory("VmRSS"), "decoded", "", time.perf_counter()
    try:
        pixels = decode(data, PX, max_pixels=MAX_PIXELS)
        assert pixels.shape == (PX, PX, 3)
        assert pixels.dtype == np.uint8
    except PhotoError as error:
        outcome, detail = error.code, error.detail
        if isinstance(error.__cause__, MemoryError):
            outcome, detail = "memory", traceback.format_exc()
    except Exception as error:
        outcome, detail = type(error).__name__, traceback.format_exc()
    ms = 1_000 * (time.perf_counter() - since)
    peak_bytes = _memory("VmHWM") - before_bytes
    if warm_bytes and peak_bytes > MOST_BYTES and outcome in EXPECTED:
        outcome, detail = "memory", f"{outcome}, but took {peak_bytes:,} bytes"
    return Verdict(outcome, detail, ms, peak_bytes, _memory("VmRSS") - warm_bytes)


def _memory(name: str) -> int:
    """One of the kernel's figures of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _cap() -> int:
    """Allow this process so much more memory than it has; returns what it holds."""
    most = _memory("VmSize") + CAP_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return _memory("VmRSS")


def main() -> None:
    """Decode what comes in at stdin, lengths before photos; the first photos are for warming up."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    warm_up, warm_bytes = int(sys.argv[1]), 0
    while head := sys.stdin.buffer.read(LENGTH.size):
        data = sys.stdin.buffer.read(LENGTH.unpack(head)[0])
        print(json.dumps(asdict(judge(data, warm_bytes))), flush=True)
        warm_up -= 1
        if warm_up == 0:
            warm_bytes = _cap()


if __name__ == "__main__":
    main()
