"""What is wrong with a folder of listings, or with chunk files, before hours are spent on them.

    read ─> bad rows, repeated ids, lost photos ─> photos (some, or all) ─> paths and levels

An error is what a training run would refuse; a warning costs quality; a note is good to know. After the readers;
changes nothing but the cache of rows and fetched photos.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmcat.errors import PhotoError
from mmcat.photos import decode
from mmcat.taxonomy import LEVELS
from mmcat.taxonomy import Path as TaxonomyPath
from training.data import Dataset, Skipped
from training.errors import DataError
from training.progress import Progress, Quiet, chunks
from training.readers.bad_rows import MAX_BAD_SHARE
from training.readers.read import chunk_files, read_listings
from training.rows import group_members

Numbers = npt.NDArray[np.int64]
SAMPLE = 500  # photos: a defect of 1 % is found with a chance of 99 %
_SHOWN = 10  # examples of a finding
_PX = 32  # decoding is what is tried, not the size


class Severity(StrEnum):
    ERROR = "error"  # a training run would be refused
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the data.

    Args:
        code: stable, for programs.
        count: of rows, photos, paths: whatever `text` speaks of.
        examples: the first few, each by its line, id or path.
    """

    severity: Severity
    code: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """All findings about one source, the gravest first."""

    source: str
    listings: int
    paths: int
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether a training run on it would be refused."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)


def check_data(
    path: Path,
    title_column: str = "title",
    *,
    cache: Path | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    all_photos: bool = False,
    allow_private: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """Reads the data as training would and looks at it; blocks for a second per 200 photos looked at.

    Args:
        all_photos: look at every photo and not at a sample.
    """
    progress = progress or Quiet()
    try:
        data = read_listings(
            path,
            title_column,
            cache=None if chunk_files(path) else cache,  # their 100 GB of vectors are not asked for
            max_bad_share=1.0,
            allow_private=allow_private,
            progress=progress,
        )
    except DataError as error:
        return Checked(str(path), 0, 0, (Finding(Severity.ERROR, "data.unreadable", 1, str(error)),))
    found = [*_of_rows(data, max_bad_share), *_of_photos(data, all_photos, progress), *_of_paths(data)]
    order = list(Severity)
    found.sort(key=lambda finding: order.index(finding.severity))
    return Checked(str(path), len(data), len(data.taxonomy), tuple(found))


def _of_rows(data: Dataset, max_bad_share: float) -> Iterator[Finding]:
    skipped, total = data.skipped, len(data) + len(data.skipped)
    if len(skipped) > max_bad_share * total:
        text = f"{len(skipped)} of {total} rows are bad, more than {max_bad_share:.1%}: training refuses them"
        yield Finding(Severity.ERROR, "rows.too_many_bad", len(skipped), text, _lines(skipped))
    repeated = [bad for bad in skipped if bad.reason.endswith("stands twice")]
    if repeated:
        yield _left_out("rows.repeated_id", "rows repeat an id and are left out", repeated)
    for column, count in Counter(bad.column for bad in skipped if bad not in repeated).most_common():
        some = [bad for bad in skipped if bad.column == column and bad not in repeated]
        yield _left_out(f"rows.bad.{column}", f"rows are bad in the column {column} and are left out", some[:count])
    if data.lost_photos:
        text = f"{len(data.lost_photos)} photos could not be fetched; their listings are trained on by title"
        yield Finding(Severity.WARNING, "photos.not_fetched", len(data.lost_photos), text, _lines(data.lost_photos))
    unknown = int((~data.labelled).sum())
    if unknown == len(data):
        yield Finding(Severity.ERROR, "rows.no_category", unknown, "no listing has a category: nothing to train on")
    elif unknown:
        text = f"{unknown} listings have no category: they are for prediction only"
        yield Finding(Severity.NOTE, "rows.no_category", unknown, text)


def _left_out(code: str, text: str, bad: Sequence[Skipped]) -> Finding:
    return Finding(Severity.WARNING, code, len(bad), f"{len(bad)} {text}", _lines(bad))


def _lines(bad: Sequence[Skipped]) -> tuple[str, ...]:
    return tuple(f"line {one.line}, column {one.column}: {one.reason}" for one in bad[:_SHOWN])


def _of_photos(data: Dataset, all_photos: bool, progress: Progress) -> Iterator[Finding]:
    with_photo = np.flatnonzero(data.rows.with_photo)
    if len(with_photo) < len(data):
        count = len(data) - len(with_photo)
        yield Finding(Severity.NOTE, "photos.none", count, f"{count} of {len(data)} listings have no photo")
    if not len(with_photo):
        return
    step = 1 if all_photos else max(1, len(with_photo) // SAMPLE)
    looked = with_photo[::step]
    broken: list[str] = []
    hashes = np.zeros((len(looked), 2), np.uint64)  # of the bytes; 0 where they could not be read
    done = 0
    for rows in chunks(looked.tolist(), 64, progress, "photos"):
        for at in rows:
            hashes[done] = _look(data, at, broken)
            done += 1
    of = f"{len(looked)} photos" + ("" if step == 1 else f" looked at ({len(with_photo)} in all; --all looks at each)")
    if broken:
        text = f"{len(broken)} of {of} cannot be read or decoded; their listings are trained on by title"
        yield Finding(Severity.WARNING, "photos.broken", len(broken), text, tuple(broken[:_SHOWN]))
    yield from _of_equal_photos(data, looked, hashes, of)


def _look(data: Dataset, at: int, broken: list[str]) -> tuple[int, int]:
    row, content = data.rows[at], None
    try:
        content = row.photo() if row.photo is not None else b""
        decode(content, _PX)
    except PhotoError as error:
        broken.append(f"{row.id}: {error}")
    if content is None:
        return 0, 0
    digest = hashlib.sha256(content).digest()
    return int.from_bytes(digest[:8]) | 1, int.from_bytes(digest[8:16])


def _of_equal_photos(data: Dataset, looked: Numbers, hashes: npt.NDArray[np.uint64], of: str) -> Iterator[Finding]:
    """Listings whose photos are equal byte for byte and whose paths are not: noise, or a placeholder."""
    read = (hashes[:, 0] != 0) & data.labelled[looked]
    _, photo_of, counts = np.unique(hashes[read], axis=0, return_inverse=True, return_counts=True)
    rows, photo_of = looked[read], photo_of.reshape(-1)
    targets = data.targets[rows]
    pairs = np.unique(np.stack([photo_of, targets], axis=1), axis=0)
    paths = np.bincount(pairs[:, 0], minlength=len(counts))
    torn = np.flatnonzero(paths > 1)
    if not len(torn):
        return
    examples = []
    for photo in torn[np.argsort(-counts[torn], kind="stable")][:_SHOWN]:
        own = photo_of == photo
        one_a_path = rows[own][np.unique(targets[own], return_index=True)[1]]
        some = [data.rows[int(row)] for row in one_a_path[:3]]
        examples.append("; ".join(f"{row.id}: {' > '.join(row.path)}" for row in some))
    count = int(counts[torn].sum())
    text = f"{count} listings share their photo with a listing of another path ({len(torn)} photos, of {of})"
    yield Finding(Severity.WARNING, "labels.equal_photos_differ", count, text, tuple(examples))


def _of_paths(data: Dataset) -> Iterator[Finding]:
    labelled = np.flatnonzero(data.labelled)
    if not len(labelled):
        return
    targets = data.targets[labelled]
    group_of, groups = group_members(data.rows.column("group"), data.rows.column("id"))
    pairs = np.unique(targets * groups + group_of[labelled])
    groups_of = np.bincount(pairs // groups, minlength=len(data.taxonomy))
    rows_of = np.bincount(targets, minlength=len(data.taxonomy))
    single = np.flatnonzero(groups_of == 1)
    if len(single):
        filled = int((rows_of > 0).sum())
        text = f"{len(single)} of {filled} paths have one group of listings only: no test row stands for them"
        examples = tuple(_name(data.taxonomy.paths[row]) for row in single[:_SHOWN])
        yield Finding(Severity.WARNING, "paths.one_group", len(single), text, examples)
    empty = int((rows_of == 0).sum())
    if empty:
        yield Finding(Severity.NOTE, "paths.empty", empty, f"{empty} paths of the taxonomy have no listing")
    for level in range(LEVELS):
        yield from _of_level(data, level, rows_of)


def _name(path: TaxonomyPath) -> str:
    return " > ".join(node.name for node in path)


def _of_level(data: Dataset, level: int, rows_of: Numbers) -> Iterator[Finding]:
    nodes = data.taxonomy.path_nodes[:, level]
    has = nodes >= 0
    counts = np.bincount(nodes[has], weights=rows_of[has], minlength=len(data.taxonomy.nodes[level])).astype(np.int64)
    filled = counts[counts > 0]
    if not len(filled):
        return
    largest, share = _name(data.taxonomy.nodes[level][int(counts.argmax())]), filled.max() / rows_of.sum()
    text = (
        f"level {level + 1}: {len(filled)} categories; the largest ({largest}) has {filled.max():,} listings "
        f"({share:.1%}), the smallest {filled.min():,}"
    )
    yield Finding(Severity.NOTE, f"levels.skew.{level + 1}", len(filled), text)
