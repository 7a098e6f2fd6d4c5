"""The newest answers of this process, for `mmcat top`: the engine thread notes them, the health port tells them."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

from mmcat.listing import Result

KEPT: Final = 10


class LastResults:
    """The last `KEPT` of them, the newest first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: deque[Result] = deque(maxlen=KEPT)

    def add(self, results: Iterable[Result]) -> None:
        """Those of a batch, in its order."""
        with self._lock:
            self._results.extend(results)

    def as_json(self) -> list[dict[str, object]]:
        """Plain data."""
        with self._lock:
            results = list(self._results)
        return [
            {
                "product_id": result.listing_id,
                "path": [node.name for node in result.path],
                "probability": round(result.probability, 4),
                "safe_level": result.safe_level,
                "decision": result.decision.value,
            }
            for result in reversed(results)
        ]
