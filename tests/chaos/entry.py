"""`python -m tests.chaos.entry consume|replay …`: the program under trial, with a diary, a strike, and a mutation.

MMCAT_TEST_EVIDENCE   folder for what it writes down
MMCAT_TEST_STRIKE     POINT:N, kill -9 at the N-th pass of a point (points.py)
MMCAT_TEST_MUTATION   a promise to break (mutations.py)
MMCAT_TEST_REAL       1: the bundle that the settings name instead of a model without torch
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from mmcat.cli import main
from tests.chaos.evidence import LIVE, REPLAY, Diary
from tests.chaos.mutations import MUTATIONS
from tests.chaos.points import Observer, Striker
from tests.support.stub_service import SlowModel


def run() -> int:
    """Arm the process, then be the program."""
    if mutation := os.environ.get("MMCAT_TEST_MUTATION"):
        MUTATIONS[mutation]()
    role = REPLAY if sys.argv[1:2] == ["replay"] else LIVE
    observer = Observer(Diary(Path(os.environ["MMCAT_TEST_EVIDENCE"]), role))
    observer.observe()
    if strike := os.environ.get("MMCAT_TEST_STRIKE"):
        point, _, passes = strike.partition(":")
        Striker(observer, point, int(passes)).arm()
    with ExitStack() as stack:
        if not os.environ.get("MMCAT_TEST_REAL"):
            for module in ("consume", "replay"):
                stack.enter_context(patch(f"mmcat.cli.{module}.load_model", lambda _settings: SlowModel()))
        return main()


if __name__ == "__main__":
    sys.exit(run())
