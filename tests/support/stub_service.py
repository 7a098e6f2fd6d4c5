"""`python -m tests.support.stub_service`: the service as `mmcat consume` runs it, on a model that needs no torch.

For tests in which the model decides nothing: a start takes a second instead of ten. `MMCAT_TEST_MODEL_MS` makes each
batch take so long, so that something can happen in the middle; `MMCAT_TEST_MODEL_GENERATION` says how new it is, and
`MMCAT_TEST_MODEL_FINGERPRINT` which model; a listing with the id `MMCAT_TEST_MODEL_BREAKS_ON` breaks its device for
good. `… replay …` is `mmcat replay` on the same model.
"""

import dataclasses
import os
import sys
import threading
from collections.abc import Sequence
from unittest.mock import patch

from mmcat.cli import main
from mmcat.listing import ImageStatus, Prepared, Result
from tests.support.stub_model import StubModel


class SlowModel(StubModel):
    """Takes `MMCAT_TEST_MODEL_MS` for each batch."""

    def __init__(self) -> None:
        super().__init__()
        generation = int(os.environ.get("MMCAT_TEST_MODEL_GENERATION", self.info.created_ms))
        fingerprint = os.environ.get("MMCAT_TEST_MODEL_FINGERPRINT", self.info.fingerprint)
        self.info = dataclasses.replace(self.info, created_ms=generation, fingerprint=fingerprint)
        self.broken = False

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        """Wait, then answer."""
        threading.Event().wait(float(os.environ.get("MMCAT_TEST_MODEL_MS", "0")) / 1_000)
        fatal = os.environ.get("MMCAT_TEST_MODEL_BREAKS_ON")
        self.broken = self.broken or any(one.listing_id == fatal for one in batch)
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().categorize_prepared(batch, top_k)

    def warm_up(self) -> None:
        """Fails where the device is broken."""
        self.categorize_prepared([Prepared("", "warm up", None, ImageStatus.ABSENT)])


if __name__ == "__main__":
    with (
        patch("mmcat.cli.consume.load_model", lambda _settings: SlowModel()),
        patch("mmcat.cli.replay.load_model", lambda _settings: SlowModel()),
    ):
        sys.exit(main())
