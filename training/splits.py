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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from training.data import Dataset
from training.errors import DataError
from training.rows import group_members

SHARES: Mapping[str, float] = {"train": 0.65, "select": 0.07, "calibrate": 0.08, "test": 0.20}
NO_TEST: Mapping[str, float] = {"train": 0.85, "select": 0.07, "calibrate": 0.08}  # tested on listings made elsewhere
FORMAT_VERSION = 1
_WRITTEN = 10_000  # ids a turn, where the file is hashed or written
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


class Ids(Sequence[str]):
    """Product ids in Arrow's memory: a tenth of what as many Python strings take."""

    def __init__(self, ids: Any) -> None:
        self.column = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([pa.array(ids, pa.string())])

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        found = self.column[place]
        given: str | list[str] = found.to_pylist() if isinstance(place, slice) else found.as_py()
        return given

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ids) and bool(self.column.equals(other.column))

    def __hash__(self) -> int:
        return hash(len(self))


@dataclass(frozen=True)
class Split:
    """Which rows of a data set belong to which part; rows whose truth is not known belong to none.

    Args:
        parts: ids by part name, in the data set's order.
        dataset_digest: of the data set it was made for; it fits no other.
    """

    name: str
    seed: int
    dataset_digest: str
    parts: Mapping[str, Ids]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex of everything in the split."""
        digest = hashlib.sha256()
        for piece in self._canonical():
            digest.update(piece.encode())
        return digest.hexdigest()

    def rows(self, part: str, dataset: Dataset) -> npt.NDArray[np.int64]:
        """Row numbers of a part, ascending; none for a part that this split does not have.

        Raises:
            DataError: the split was made for another data set.
        """
        if dataset.digest != self.dataset_digest:
            raise DataError(f"the split {self.name} was made for other listings than {dataset.name}: make it again")
        if part not in self.parts:
            return np.zeros(0, np.int64)
        inside = pc.is_in(dataset.rows.column("id"), value_set=self.parts[part].column)
        return np.flatnonzero(np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in inside.chunks]))

    def write(self, path: Path) -> None:
        """Writes the frozen file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with beside.open("w", encoding="utf-8") as file:
            file.write(f'{{"fingerprint": "{self.fingerprint}", ')
            pieces = self._canonical()
            file.write(next(pieces).removeprefix("{"))
            file.writelines(pieces)
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Reads a frozen file.

        Raises:
            DataError: not a split, of another format, or changed since it was written.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            parts = {part: Ids(ids) for part, ids in data["parts"].items()}
            split = cls(data["name"], data["seed"], data["dataset_digest"], parts)
            version, written = data["format_version"], data["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise DataError(f"{path} is not a split file: {error!r}") from error
        if version != FORMAT_VERSION or split.fingerprint != written:
            raise DataError(f"{path} has changed since it was written, or is of another format: make it again")
        return split

    def _canonical(self) -> Iterator[str]:
        """The split as JSON with sorted keys, in pieces."""
        facts = {"dataset_digest": self.dataset_digest, "format_version": FORMAT_VERSION, "name": self.name}
        yield json.dumps(facts)[:-1] + ', "parts": {'
        for place, part in enumerate(sorted(self.parts)):
            yield (", " if place else "") + json.dumps(part) + ": ["
            ids = self.parts[part]
            for start in range(0, len(ids), _WRITTEN):
                yield (", " if start else "") + json.dumps(ids[start : start + _WRITTEN])[1:-1]
            yield "]"
        yield f'}}, "seed": {json.dumps(self.seed)}}}'


def make_split(dataset: Dataset, seed: int, shares: Mapping[str, float] = SHARES) -> Split:
    """Deals whole groups to the parts, path by path, so that each path's rows follow the shares as far as they can.

    Groups stand in a random order within their path, and paths in a random order; each goes to the part that is
    furthest below its share so far, whatever the group's own size: were the size counted, large groups (many variants
    of one product, easy) would fall to train and single products to the small parts. The first groups of a path go to
    train, until train has a row of it.

    Args:
        shares: by part, summing to 1; "train" is one of them.

    Raises:
        DataError: no listing's truth is known.
    """
    generator = np.random.default_rng(seed)
    labelled = np.flatnonzero(dataset.labelled)
    if not len(labelled):
        raise DataError(f"{dataset.name}: no listing has a category, so there is nothing to train or measure on")
    ids = dataset.rows.column("id").take(pa.array(labelled))
    targets = dataset.targets[labelled]
    group_of, groups = group_members(dataset.rows.column("group").take(pa.array(labelled)), ids)
    members = np.argsort(group_of, kind="stable")  # rows group by group, in their order
    begins = np.searchsorted(group_of[members], np.arange(groups + 1))
    path_order = generator.permutation(len(dataset.taxonomy))
    first_path = path_order[targets[members[begins[:-1]]]]
    order = np.lexsort((generator.random(groups), first_path))
    part_of_group = _deal(order, members, begins, targets, shares)
    names = list(shares)
    parts = {part: Ids(ids.filter(pa.array(part_of_group[group_of] == names.index(part)))) for part in names}
    return Split(dataset.name, seed, dataset.digest, parts)


def _deal(
    order: npt.NDArray[np.int64],
    members: npt.NDArray[np.int64],
    begins: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    shares: Mapping[str, float],
) -> npt.NDArray[np.int8]:
    """Part of each group, as its place in `shares`; groups are dealt in `order`."""
    names = list(shares)
    in_train: set[int] = set()
    filled, dealt = dict.fromkeys(names, 0), 0
    part_of_group = np.zeros(len(order), np.int8)
    for group in order:
        rows = members[begins[group] : begins[group + 1]]
        paths = set(targets[rows].tolist())
        needed = not paths <= in_train
        part = "train" if needed else max(names, key=lambda name: shares[name] * dealt - filled[name])
        if part == "train":
            in_train |= paths
        filled[part] += len(rows)
        dealt += len(rows)
        part_of_group[group] = names.index(part)
    return part_of_group


def split_file(dataset: Dataset, folder: Path, seed: int, shares: Mapping[str, float] = SHARES) -> Path:
    """Where the frozen split of this data set and seed is kept; shares of one's own have a file of their own."""
    own = "" if shares == SHARES else "".join(f"-{part}{share:.4f}" for part, share in sorted(shares.items()))
    return folder / f"{dataset.name}-{seed}-{dataset.digest[:12]}{own}.split.json"


def frozen_split(dataset: Dataset, folder: Path, seed: int, shares: Mapping[str, float] = SHARES) -> Split:
    """The split of this data set and seed: read if it was made before, else made and written."""
    path = split_file(dataset, folder, seed, shares)
    if path.exists():
        split = Split.load(path)
        if split.dataset_digest != dataset.digest or set(split.parts) != set(shares):
            raise DataError(f"{path} was made for other listings or parts: remove it to make it again")
        return split
    split = make_split(dataset, seed, shares)
    split.write(path)
    return split


def share_of_groups(dataset: Dataset, rows: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    """Those of the rows whose group falls into the share by its digest: a smaller share lies inside every larger one.

    Args:
        share: above 0, up to 1, of the groups; of the rows it is about as much.
    """
    taken = pa.array(rows)
    groups, ids = (dataset.rows.column(name).take(taken).to_pylist() for name in ("group", "id"))
    names = (group or f"\0{id_}" for group, id_ in zip(groups, ids, strict=True))
    below = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) < share * 2**64 for name in names]
    return rows[np.array(below, np.bool_)]


def describe(split: Split, dataset: Dataset) -> str:
    """One line: rows per part and how many paths no test row stands for."""
    sizes = ", ".join(f"{part} {len(split.parts[part]):,}" for part in SHARES if part in split.parts)
    line = f"split {split.fingerprint[:12]} (seed {split.seed}): {sizes}"
    if "test" not in split.parts:
        return line
    present = Counter(dataset.targets[dataset.labelled].tolist())
    untested = len(present) - len(set(dataset.targets[split.rows("test", dataset)].tolist()))
    return f"{line}; {untested} of {len(present)} paths have no test row"
