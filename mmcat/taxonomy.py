"""The category tree: which paths exist, and how a path becomes four class labels.

A node is the whole way from the root to it (a prefix), because one id may stand under several parents, and a node may
be a place to stop and a parent at once (in Kakao's tree 472 of 556 second-level nodes are both). So each existing path
is one row, row order is label order, and "stop here" is a class of the levels 2 to 4.

After listing.py; before paths.py, which scores rows, and bundle.py, which stores them. No torch.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

import numpy as np
import numpy.typing as npt

from mmcat.errors import TaxonomyError

LEVELS = 4
STOP = ""  # the class key of "the path ends above this level"; an id is never empty

_OURS = ["path_id", *(f"level{level}_{part}" for level in range(1, LEVELS + 1) for part in ("id", "name"))]
_KAKAO = ["b_id", "m_id", "s_id", "d_id", "b", "m", "s", "d"]
_NAMES = [f"level{level}" for level in range(1, LEVELS + 1)]


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a path: its level (1..4), the id it has there, the name people read."""

    level: int
    id: str
    name: str


Path = tuple[Node, ...]  # 1 to 4 nodes, levels 1, 2, … without a gap


class Taxonomy:
    """All existing paths, in label order.

    Attributes:
        paths: the rows.
        digest: SHA-256 hex of the canonical TSV; equal trees have equal digests.
        classes: per level the class keys (distinct ids by first appearance); levels 2 to 4 begin with STOP.
        path_classes: int64 [P, 4], the class of each path per level: STOP at the first level after its end, -1 below.
        nodes: per level the prefix nodes, as the path to each, by first appearance.
        path_nodes: int64 [P, 4], the prefix node of each path per level; -1 below its end.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        _check(self.paths)
        self.digest = hashlib.sha256(self._tsv().encode()).hexdigest()
        self.classes, self.path_classes = _classes(self.paths)
        self.nodes, self.path_nodes = _prefix_nodes(self.paths)
        self._row_of_ids = {tuple(node.id for node in path): row for row, path in enumerate(self.paths)}

    @classmethod
    def load(cls, path: str | FilePath) -> "Taxonomy":
        """Reads a TSV (UTF-8, tabs, no quoting); the header says which kind.

        Known: our own (`path_id, level1_id, level1_name, …`), Kakao's (`b_id … d`, absent is -1), Shopify's
        (`id, level1 … level4`: an id such as ap-1-2 holds its parents' ids), Google's (`level1 … level4`: names only).

        Raises:
            TaxonomyError: unreadable, unknown header, or a row that is not a path; the message names the line.
        """
        try:
            text = FilePath(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise TaxonomyError(f"cannot read the taxonomy {path}: {error}") from error
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        header = lines[0].split("\t")
        row_to_path = _reader_for(header, str(path))
        paths = []
        for number, line in enumerate(lines[1:], start=2):
            if not line.strip():
                continue
            values = line.split("\t")
            if len(values) != len(header):
                raise TaxonomyError(f"{path}, line {number}: {len(values)} columns where the header has {len(header)}")
            try:
                paths.append(row_to_path(dict(zip(header, values, strict=True))))
            except TaxonomyError as error:
                raise TaxonomyError(f"{path}, line {number}: {error}") from error
        return cls(paths)

    @classmethod
    def from_names(cls, rows: Iterable[Sequence[str]]) -> "Taxonomy":
        """Builds the tree from rows of level names, empty or missing below the stop; ids are the names."""
        return cls(_path(row, row) for row in rows)

    def write(self, path: str | FilePath) -> None:
        """Writes the canonical TSV; `load` gives an equal tree back."""
        FilePath(path).write_bytes(self._tsv().encode())

    def index(self, ids: Sequence[str]) -> int:
        """The row of the path with these ids (main to stop level).

        Raises:
            TaxonomyError: there is no such path.
        """
        try:
            return self._row_of_ids[tuple(ids)]
        except KeyError:
            raise TaxonomyError(f"no path {' > '.join(ids) or '(empty)'} in this taxonomy") from None

    def __len__(self) -> int:
        return len(self.paths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taxonomy) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Taxonomy({len(self.paths)} paths, {self.digest[:12]})"

    def _tsv(self) -> str:
        lines = ["\t".join(_OURS)]
        for path in self.paths:
            cells = [cell for node in path for cell in (node.id, node.name)]
            lines.append("\t".join([">".join(node.id for node in path), *cells, *[""] * (2 * (LEVELS - len(path)))]))
        return "\n".join(lines) + "\n"


def _reader_for(header: list[str], source: str) -> Callable[[dict[str, str]], Path]:
    if header == _OURS:
        ids, names = _OURS[1::2], _OURS[2::2]
        return lambda row: _path([row[column] for column in ids], [row[column] for column in names])
    if header == _KAKAO:
        return lambda row: _path(
            ["" if row[column] == "-1" else row[column] for column in _KAKAO[:LEVELS]],
            [row[column] for column in _KAKAO[LEVELS:]],
        )
    if header[: LEVELS + 1] == ["id", *_NAMES]:
        return _shopify_path
    if header[:LEVELS] == _NAMES:
        return lambda row: _path([row[column] for column in _NAMES], [row[column] for column in _NAMES])
    raise TaxonomyError(
        f"{source}: unknown header {header[:9]}; use {', '.join(_OURS[:3])}, … or level1 to level4 (see docs)"
    )


def _shopify_path(row: dict[str, str]) -> Path:
    parts = row["id"].split("-")
    names = [row[column] for column in _NAMES]
    ids = ["-".join(parts[:level]) for level in range(1, len(parts) + 1)]
    if len(ids) != sum(map(bool, names)):
        raise TaxonomyError(f"id {row['id']} has {len(ids)} parts but the row has {sum(map(bool, names))} names")
    return _path(ids, names)


def _path(ids: Sequence[str], names: Sequence[str]) -> Path:
    """Joins ids and names level by level; empty cells stand below the stop only."""
    ids, names = _without_tail(ids), _without_tail(names)
    if len(ids) != len(names) or not all(ids) or not all(names):
        raise TaxonomyError(f"a level is missing in the middle or has no name: ids {ids}, names {names}")
    return tuple(Node(level, id_, name) for level, (id_, name) in enumerate(zip(ids, names, strict=True), start=1))


def _without_tail(cells: Sequence[str]) -> list[str]:
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _check(paths: tuple[Path, ...]) -> None:
    """Every path is whole and stands once, and a prefix has one name."""
    if not paths:
        raise TaxonomyError("the taxonomy has no paths")
    names: dict[tuple[str, ...], str] = {}
    seen: set[tuple[str, ...]] = set()
    for path in paths:
        ids = tuple(node.id for node in path)
        if not 1 <= len(path) <= LEVELS or [node.level for node in path] != list(range(1, len(path) + 1)):
            raise TaxonomyError(f"path {' > '.join(ids)} does not run from level 1 to at most {LEVELS}")
        if ids in seen:
            raise TaxonomyError(f"path {' > '.join(ids)} stands twice")
        seen.add(ids)
        for node in path:
            if not node.id or not node.name or set("\t\r\n") & set(node.id + node.name):
                raise TaxonomyError(f"path {' > '.join(ids)}: an id or name is empty or holds a tab or line break")
            if names.setdefault(ids[: node.level], node.name) != node.name:
                raise TaxonomyError(f"node {' > '.join(ids[: node.level])} has two names")


def _classes(paths: tuple[Path, ...]) -> tuple[tuple[tuple[str, ...], ...], npt.NDArray[np.int64]]:
    """The level classes and each path's row of them (see Taxonomy)."""
    indices: list[dict[str, int]] = [{} if level == 1 else {STOP: 0} for level in range(1, LEVELS + 1)]
    rows = np.full((len(paths), LEVELS), -1, np.int64)
    for row, path in enumerate(paths):
        for node in path:
            rows[row, node.level - 1] = indices[node.level - 1].setdefault(node.id, len(indices[node.level - 1]))
        if len(path) < LEVELS:
            rows[row, len(path)] = indices[len(path)][STOP]
    rows.setflags(write=False)
    return tuple(tuple(index) for index in indices), rows


def _prefix_nodes(paths: tuple[Path, ...]) -> tuple[tuple[tuple[Path, ...], ...], npt.NDArray[np.int64]]:
    """The prefix nodes per level and each path's row of them (see Taxonomy)."""
    indices: list[dict[tuple[str, ...], int]] = [{} for _ in range(LEVELS)]
    nodes: list[list[Path]] = [[] for _ in range(LEVELS)]
    rows = np.full((len(paths), LEVELS), -1, np.int64)
    for row, path in enumerate(paths):
        for level in range(1, len(path) + 1):
            index = indices[level - 1]
            key = tuple(node.id for node in path[:level])
            if key not in index:
                index[key] = len(index)
                nodes[level - 1].append(path[:level])
            rows[row, level - 1] = index[key]
    rows.setflags(write=False)
    return tuple(map(tuple, nodes)), rows
