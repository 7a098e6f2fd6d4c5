"""`python -m tests.support.read_only FOLDER… -- COMMAND…`: a program to which all but these folders is read-only.

As in a container with a read-only root, for any user, root included: by Landlock, which a process lays upon itself and
its children. /dev stays writable, as it is there. Reading is not restricted.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NO_NEW_PRIVILEGES: Final = 38
# Write, remove folders and files, make files of any kind (bits 6 to 12); then rename across folders, and truncate.
_WRITES: Final = 1 << 1 | 1 << 4 | 1 << 5 | sum(1 << bit for bit in range(6, 13))
_WRITES_SINCE: Final = {2: 1 << 13, 3: 1 << 14}

_libc = ctypes.CDLL(None, use_errno=True)


def supported() -> bool:
    """Whether this kernel can do it, truncation included."""
    return sys.platform == "linux" and _version() >= max(_WRITES_SINCE)


def restrict(writable: Sequence[str]) -> None:
    """Let this process write below these folders only, from now on.

    Raises:
        OSError: the kernel does not do it.
    """
    handled = _WRITES | sum(_WRITES_SINCE.values())
    wanted = ctypes.create_string_buffer(struct.pack("=Q", handled), 8)
    ruleset = _called(_libc.syscall(_CREATE_RULESET, wanted, ctypes.c_size_t(8), 0))
    for folder in writable:
        opened = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", handled, opened), 12)
        _called(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
        os.close(opened)
    _called(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _called(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _version() -> int:
    return int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION))


def _called(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    end = sys.argv.index("--")
    restrict([*sys.argv[1:end], "/dev"])
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])  # noqa: S606  the test's own command
