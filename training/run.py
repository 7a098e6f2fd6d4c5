"""What the steps of one run share: data, recipe, split, where things go, and how the run is done.

After recipe.py, splits.py, steps.py; before train.py, which runs the steps.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from mmcat.taxonomy import Taxonomy
from training.data import Dataset
from training.errors import RecipeError
from training.features import titles
from training.hardware import processes
from training.journal import TRACKERS
from training.ledger import note_test_look
from training.order import Rows
from training.progress import Progress
from training.recipe import Recipe
from training.splits import Split
from training.steps import Encoders, Modality, preprocessing_of
from training.task import Keep

Fusion = Literal["concat", "cross"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One member of the family that a run can make; what its keys are, the recipe says."""

    modality: Modality
    fusion: Fusion
    flat: bool = False

    def shape(self, taxonomy: Taxonomy) -> tuple[Modality, Fusion, int | None]:
        """Arguments of `Encoders.config`."""
        return self.modality, self.fusion, len(taxonomy) if self.flat else None


MODELS = ("text", "image", "concat", "cross")  # that a run makes unless it is told otherwise
FAMILY: Mapping[str, Kind] = {
    "text": Kind("text", "concat"),
    "image": Kind("image", "concat"),
    "concat": Kind("both", "concat"),
    "cross": Kind("both", "cross"),
    "flat": Kind("both", "cross", flat=True),
}
CHECKPOINTS, LOGS = "checkpoints", "logs"  # under a run's folder


@dataclass(frozen=True)
class Options:
    """How a run is done; nothing here changes what comes out of it.

    Args:
        models: those of FAMILY to make, and no more than their encoders.
        load: bundles of earlier steps to take encoders from, see training.earlier.
        resume: go on where a run into the same folder was stopped.
        logs: folder of the JSON lines; None: `logs` under the run's folder.
    """

    models: Sequence[str] = MODELS
    load: str | Path | None = None
    resume: bool = False
    logs: str | Path | None = None
    trackers: Sequence[str] = ()
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.models or set(self.models) - set(FAMILY):
            raise RecipeError(f"models are {', '.join(FAMILY)}, not {', '.join(self.models) or 'none'}")
        if set(self.trackers) - set(TRACKERS):
            raise RecipeError(f"curves go to {' or '.join(TRACKERS)}, not to {', '.join(self.trackers)}")

    @property
    def modality(self) -> Modality:
        """What the models read between them."""
        read = {FAMILY[name].modality for name in self.models}
        return next(iter(read)) if len(read) == 1 else "both"


DEFAULT = Options()


@dataclass
class Run:
    """What the steps of one run share."""

    dataset: Dataset
    recipe: Recipe
    out: Path
    cache: Path
    split: Split
    split_file: Path
    seed: int
    progress: Progress
    device: str
    options: Options
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self, part: str) -> Rows:
        return self.split.rows(part, self.dataset)

    @property
    def measured_on(self) -> str:
        return "test" if "test" in self.split.parts else "calibrate"

    def held(self, model: str) -> Rows:
        """The rows that `model` is measured on; a look at the test part goes into its ledger."""
        if self.measured_on == "test" and processes(self.device).is_main_process:
            note_test_look(
                self.split_file,
                split_fingerprint=self.split.fingerprint,
                recipe=self.recipe.model_dump(mode="json"),
                model=model,
                purpose="training report",
            )
        return self.rows(self.measured_on)

    @cached_property
    def texts(self) -> list[str]:
        """The listings' texts as serving sees them."""
        return titles(self.dataset, preprocessing_of(self.recipe))

    @cached_property
    def _contents(self) -> str:
        """SHA-256 of ids, paths and texts: a split does not change with the title column, a run does."""
        digest = hashlib.sha256(self.dataset.digest.encode())
        for text in self.texts:
            digest.update(text.encode() + b"\n")
        return digest.hexdigest()

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - begun, 1)

    def keep(self, encoders: Encoders) -> Keep:
        """What is kept of a step that starts from these encoders, and which run it belongs to."""
        facts = {
            "recipe": self.recipe.model_dump_json(),
            "split": self.split.fingerprint,
            "data": self._contents,
            "seed": str(self.seed),
            "set of encoders": encoders.fingerprint,
        }
        return Keep(
            checkpoints=self.out / CHECKPOINTS,
            logs=Path(self.options.logs) if self.options.logs is not None else self.out / LOGS,
            identity={name: hashlib.sha256(fact.encode()).hexdigest()[:16] for name, fact in facts.items()},
            resume=self.options.resume,
            trackers=self.options.trackers,
        )
