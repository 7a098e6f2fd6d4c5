"""`mmcat consume`, with a clock at the parts of its start. A child process of start.py.

    python -m tests.benchmarks.start_service MARKS

Settings come from the environment. MARKS is written when the model is warm: seconds of each part, and of CPU.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

PARTS: Final = ("imports", "bundle", "engine", "warm-up")


def main() -> int:
    """Serve until SIGTERM."""
    marks, parts = Path(sys.argv[1]), {}

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            answer = call(*given, **named)
            parts[part] = time.perf_counter() - started
            if set(parts) == set(PARTS):
                marks.write_text(json.dumps({"parts_s": parts, "cpu_s": time.process_time()}), "utf-8")
            return answer

        return run

    started = time.perf_counter()
    import consumer.service  # noqa: F401 - what the service imports on its way
    from mmcat import bundle
    from mmcat.categorizer import Categorizer
    from mmcat.cli.root import main as program
    from mmcat.engines import choice

    parts["imports"] = time.perf_counter() - started
    calls = ((bundle, "read", "bundle"), (choice, "choose", "engine"), (Categorizer, "warm_up", "warm-up"))
    for owner, name, part in calls:
        setattr(owner, name, timed(part, getattr(owner, name)))
    return program(["consume"])


if __name__ == "__main__":
    sys.exit(main())
