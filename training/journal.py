"""What a step of training tells while it runs: the progress line, `STAGE.jsonl`, TensorBoard or MLflow if wished.

Before engine.py. Knows losses and rates; decides nothing.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker

from training.errors import TrainingError
from training.progress import Progress

TRACKERS = ("tensorboard", "mlflow")


class Journal:
    """Call `open` first and `close` last; only the first of several processes writes.

    Args:
        stage: in words for a person; files are named by it.
        folder: of the JSON lines and TensorBoard's events; None: neither.
        rows: per step, over all processes.
        writes: whether this process is the one that tells.
    """

    def __init__(
        self, stage: str, folder: Path | None, trackers: Sequence[str], progress: Progress, rows: int, writes: bool
    ) -> None:
        self.stage, self._folder, self._progress, self._rows = stage, folder, progress, rows
        self._writes = writes
        self._wished = trackers if writes else ()
        self._trackers: list[GeneralTracker] = []
        self._steps = 0
        self._since_s, self._waited_s, self._since_step = 0.0, 0.0, 0

    @property
    def slug(self) -> str:
        return slug(self.stage)

    def open(self, steps: int, done: int, settings: Mapping[str, object]) -> None:
        """A step of training begins, or goes on after `done` of its `steps`.

        Raises:
            TrainingError: a tracker that is not installed.
        """
        self._steps, self._since_s, self._since_step = steps, time.monotonic(), done
        self._progress.begin(self.stage, steps)
        if done:
            self._progress.advance(done)
        self._write({"stage": self.stage, "steps": steps, "after": done, "settings": dict(settings)})
        for name in self._wished:
            tracker = self._tracker(name)
            flat = {
                key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()
            }
            tracker.store_init_configuration(flat)
            self._trackers.append(tracker)

    def waited(self, seconds: float) -> None:
        """The device stood still for data."""
        self._waited_s += seconds

    def steps(self, step: int, count: int, loss: float, lr: float) -> None:
        """`count` steps are done up to `step`; `loss` is the last one's."""
        now = time.monotonic()
        spent_s = max(now - self._since_s, 1e-9)
        done = step - self._since_step
        rate = done * self._rows / spent_s
        left = timedelta(seconds=round((self._steps - step) * spent_s / max(done, 1)))
        loading = min(1.0, self._waited_s / spent_s)
        self._progress.advance(count, note=f"loss {loss:.3f}, {rate:,.0f} rows/s, {left} left")
        figures = {"loss": loss, "lr": lr, "rows_per_s": round(rate, 1), "loading_share": round(loading, 4)}
        self._tell(step, {**figures, "left_s": left.total_seconds()})

    def epoch(self, step: int, number: int, loss: float, accuracy: float | None) -> None:
        """An epoch ended; `accuracy` is that of whole paths on `select`, None where it was not measured."""
        figures: dict[str, float] = {"epoch": number, "epoch_loss": loss}
        if accuracy is not None:
            figures["select_path_accuracy"] = accuracy
        self._tell(step, figures)
        if self._writes and accuracy is not None:
            self._progress.advance(0, note=f"epoch {number}: loss {loss:.3f}, select {accuracy:.3f}")

    def say(self, line: str) -> None:
        """One line that stays on the screen."""
        if self._writes:
            self._progress.say(f"{self.stage}: {line}")

    def close(self) -> None:
        """Lets the trackers write what they hold."""
        for tracker in self._trackers:
            tracker.finish()
        self._trackers.clear()

    def _tell(self, step: int, figures: Mapping[str, float]) -> None:
        self._write({"step": step, **figures})
        for tracker in self._trackers:
            tracker.log(dict(figures), step=step)

    def _write(self, record: Mapping[str, object]) -> None:
        if self._folder is None or not self._writes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{self.slug}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    def _tracker(self, name: str) -> GeneralTracker:
        with suppress(ImportError):
            tracker = (
                TensorBoardTracker(self.slug, str((self._folder or Path()) / "tensorboard"))
                if name == "tensorboard"
                else MLflowTracker(experiment_name="mmcat", run_name=self.slug)
            )
            tracker.start()
            return tracker
        raise TrainingError(f"{name} is not installed: pip install 'mmcat[{name}]'")


def slug(stage: str) -> str:
    """A stage's name for files: letters and digits, the rest as dashes."""
    return "-".join("".join(character if character.isalnum() else " " for character in stage.lower()).split())
