"""One frozen split per data set: train, select, calibrate, test, by group and not by row.

`train` fits weights, `select` chooses epochs and recipes, `calibrate` temperatures and thresholds, `test` is looked at
once per reported row. Colour variants of a product share a group (see `group_key`); by row, 40 % of test titles would
have a twin in train. The split is a file: its seed and fingerprint stand in it and travel with every figure.

After data.py; before features.py and train.py.
"""

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data import Dataset
from training.errors import DataError

SHARES: Mapping[str, float] = {"train": 0.65, "select": 0.07, "calibrate": 0.08, "test": 0.20}
NO_TEST: Mapping[str, float] = {"train": 0.85, "select": 0.07, "calibrate": 0.08}  # tested on listings made elsewhere
FORMAT_VERSION = 1
# English as shops write it, and Korean; words that only say the colour of the same product.
_COLOURS = frozenset(  # a text, split: ninety quoted words read worse
    """
    aqua beige black blue bronze brown burgundy camel champagne charcoal coffee copper coral cream cyan dark
    fluorescent fuchsia gold golden gray green grey gunmetal indigo ivory khaki lavender light lime magenta
    maroon mauve melange metallic mint multi multicolour multicolor mushroom mustard navy nude off olive orange
    peach pink plum purple red rose rust sea silver skin steel tan taupe teal turquoise violet white wine yellow
    검정 검정색 골드 그레이 그린 남색 네이비 노랑 노란색 레드 민트 베이지 보라 보라색 브라운 블랙 블루 빨강
    빨간색 실버 아이보리 옐로우 와인 차콜 초록 초록색 카키 퍼플 핑크 화이트 회색 흰색
    """.split()  # noqa: SIM905
)


def group_key(title: str) -> str:
    """The title without what tells colour variants apart: NFKC, casefolded, letters and digits, no colour words."""
    folded = unicodedata.normalize("NFKC", title).casefold()
    words = "".join(character if character.isalnum() else " " for character in folded).split()
    kept = [word for word in words if word not in _COLOURS]
    return "".join(kept or words)  # a title of nothing but colours stays itself


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows of a data set belong to which part.

    Args:
        parts: ids by part name, in the data set's order.
        dataset_digest: of the data set it was made for; it fits no other.
    """

    name: str
    seed: int
    dataset_digest: str
    parts: Mapping[str, tuple[str, ...]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 hex of everything in the split."""
        return hashlib.sha256(self._canonical().encode()).hexdigest()

    def rows(self, part: str, dataset: Dataset) -> npt.NDArray[np.int64]:
        """Row numbers of a part, ascending; none for a part that this split does not have.

        Raises:
            DataError: the split was made for another data set.
        """
        if dataset.digest != self.dataset_digest:
            raise DataError(f"the split {self.name} was made for other listings than {dataset.name}: make it again")
        ids = set(self.parts.get(part, ()))
        return np.array([number for number, row in enumerate(dataset.rows) if row.id in ids], np.int64)

    def write(self, path: Path) -> None:
        """Writes the frozen file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps({**json.loads(self._canonical()), "fingerprint": self.fingerprint}, indent=1))
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Reads a frozen file.

        Raises:
            DataError: not a split, of another format, or changed since it was written.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            parts = {part: tuple(ids) for part, ids in data["parts"].items()}
            split = cls(data["name"], data["seed"], data["dataset_digest"], parts)
            version, written = data["format_version"], data["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not a split file: {error!r}") from error
        if version != FORMAT_VERSION or split.fingerprint != written:
            raise DataError(f"{path} has changed since it was written, or is of another format: make it again")
        return split

    def _canonical(self) -> str:
        parts = {part: list(ids) for part, ids in self.parts.items()}
        facts = {"format_version": FORMAT_VERSION, "name": self.name, "seed": self.seed}
        return json.dumps({**facts, "dataset_digest": self.dataset_digest, "parts": parts}, sort_keys=True)


def make_split(dataset: Dataset, seed: int, shares: Mapping[str, float] = SHARES) -> Split:
    """Deals whole groups to the parts, path by path, so that each path's rows follow the shares as far as they can.

    Groups stand in a random order within their path, and paths in a random order; each goes to the part that is
    furthest below its share so far, whatever the group's own size: were the size counted, large groups (many variants
    of one product, easy) would fall to train and single products to the small parts. The first groups of a path go to
    train, until train has a row of it.

    Args:
        shares: by part, summing to 1; "train" is one of them.
    """
    generator = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for number, row in enumerate(dataset.rows):
        members.setdefault(row.group or f"\0{row.id}", []).append(number)
    groups = sorted(members)
    path_order = generator.permutation(len(dataset.taxonomy))
    first_path = np.array([path_order[dataset.targets[members[group][0]]] for group in groups])
    in_train: set[int] = set()
    filled, dealt = dict.fromkeys(shares, 0), 0
    part_of_row: dict[int, str] = {}
    for place in np.lexsort((generator.random(len(groups)), first_path)):
        rows = members[groups[place]]
        targets = {int(dataset.targets[row]) for row in rows}
        needed = not targets <= in_train
        part = "train" if needed else max(shares, key=lambda name: shares[name] * dealt - filled[name])
        if part == "train":
            in_train |= targets
        filled[part] += len(rows)
        dealt += len(rows)
        part_of_row.update(dict.fromkeys(rows, part))
    parts = {
        part: tuple(row.id for number, row in enumerate(dataset.rows) if part_of_row[number] == part) for part in shares
    }
    return Split(dataset.name, seed, dataset.digest, parts)


def frozen_split(dataset: Dataset, folder: Path, seed: int, shares: Mapping[str, float] = SHARES) -> Split:
    """The split of this data set and seed: read if it was made before, else made and written."""
    # Shares of one's own have a file of their own: the usual one must not stand in for them.
    own = (
        "" if shares in (SHARES, NO_TEST) else "".join(f"-{part}{share:.4f}" for part, share in sorted(shares.items()))
    )
    path = folder / f"{dataset.name}-{seed}-{dataset.digest[:12]}{own}.split.json"
    if path.exists():
        split = Split.load(path)
        if split.dataset_digest != dataset.digest or set(split.parts) != set(shares):
            raise DataError(f"{path} was made for other listings or parts: remove it to make it again")
        return split
    split = make_split(dataset, seed, shares)
    split.write(path)
    return split


def describe(split: Split, dataset: Dataset) -> str:
    """One line: rows per part and how many paths no test row stands for."""
    sizes = ", ".join(f"{part} {len(split.parts[part]):,}" for part in SHARES if part in split.parts)
    line = f"split {split.fingerprint[:12]} (seed {split.seed}): {sizes}"
    if "test" not in split.parts:
        return line
    present = Counter(dataset.targets.tolist())
    untested = len(present) - len(set(dataset.targets[split.rows("test", dataset)].tolist()))
    return f"{line}; {untested} of {len(present)} paths have no test row"
