"""The photos of a trial: most are there, some come late and some never; all along, so that every fault meets some.

Before trial.py, which serves them; rows put other faults in their place.
"""

import io
import time
from math import inf
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from training.shop.photo_host import Fault

EACH: Final = 8
"""Of so many photos one comes late, and of twice as many one never comes."""
MISSING_S: Final = 2.0
"""For so long the late ones are missing, and then there for as long, in turn."""


def late_and_never(name: str) -> Fault | None:
    """Which photos are missing now: some are found by the first later attempt, some by the second, some by none."""
    number = int(Path(name).stem)
    if number % EACH == 0:
        return Fault(missing_s=inf) if time.monotonic() % (2 * MISSING_S) < MISSING_S else None
    return Fault(missing_s=inf) if number % (2 * EACH) == EACH // 2 else None


def noise(name: str) -> bytes:
    """A photo by its name."""
    pixels = np.random.default_rng(int(Path(name).stem)).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG")
    return body.getvalue()
