"""What a training run leaves for people and programs to read: `report.json` beside the bundles.

After train.py, which fills it; before the demo and the tables, which show it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.baselines import Baseline
from training.errors import TrainingError
from training.splits import SHARES

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One trained model.

    Args:
        bundle: its folder's name, beside the report.
        fingerprint: of the bundle.
        best_epoch: chosen on `select`, from 1; None where a fixed number of steps was taken.
        metrics: training.evaluate.Metrics as JSON, on the part that `Report.measured_on` names; as `promise` what
            training.calibrate.attained found there.
        withheld: path accuracy of the same model with the photo ("image") or the title ("text") withheld.
    """

    bundle: str
    fingerprint: str
    best_epoch: int | None
    metrics: Mapping[str, Any]
    withheld: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    Args:
        folder: where it was written; not part of the file.
        measured_on: "test", or "calibrate" where the split has no test part (tested on listings made elsewhere).
        held: (id, true path's ids) of each test row, in the data set's order.
        models: by name: cross, concat, text, image.
        skipped: bad rows of the data, as (line, column, reason).
        seconds: wall clock of each step.
        lost_photos: photos that the data name and that could not be fetched, read or decoded, as (line, column,
            reason); their listings are there without.
        shares: of the split's parts.
    """

    folder: Path
    dataset: str
    dataset_digest: str
    split_fingerprint: str
    recipe: Mapping[str, Any]
    seed: int
    rows: Mapping[str, int]
    measured_on: str
    held: Sequence[tuple[str, tuple[str, ...]]]
    models: Mapping[str, ModelReport]
    baselines: Sequence[Baseline]
    skipped: Sequence[tuple[int, str, str]]
    seconds: Mapping[str, float]
    lost_photos: Sequence[tuple[int, str, str]] = ()  # earlier reports do not say: then none, and the usual shares
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)

    def bundle(self, name: str) -> Path:
        """The folder of one model's bundle."""
        return self.folder / self.models[name].bundle

    def path_accuracy(self) -> dict[str, float]:
        """Path accuracy of every model and plain baseline on the same rows; baselines as "plain NAME"."""
        ours = {name: float(model.metrics["path_accuracy"]) for name, model in self.models.items()}
        return ours | {f"plain {plain.name}": plain.path_accuracy for plain in self.baselines}

    def write(self) -> Path:
        """Writes `report.json` and gives its path."""
        data = asdict(self)
        del data["folder"]
        path = self.folder / REPORT
        path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: str | Path) -> "Report":
        """Reads the report of an earlier run.

        Raises:
            TrainingError: there is none, or one of another version.
        """
        path = Path(folder) / REPORT
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            data["models"] = {name: ModelReport(**model) for name, model in data["models"].items()}
            data["baselines"] = [Baseline(**plain) for plain in data["baselines"]]
            data["held"] = [(id_, tuple(path_ids)) for id_, path_ids in data["held"]]
            data["skipped"] = [tuple(bad) for bad in data["skipped"]]
            data["lost_photos"] = [tuple(lost) for lost in data.get("lost_photos", ())]
            return cls(folder=Path(folder), **data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is not a report of this version: train again ({error!r})") from error
