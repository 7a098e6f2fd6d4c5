"""Real listings from a folder (docs/data-format.md): `listings.tsv`, photos in `photos.zip` or `photos/`.

Bad rows are left out, counted and listed; more than a share of them stop the run, because then the file means something
else than we think. Photos are not opened here, only looked for.

Before data.py's users: gives a Dataset.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from mmcat.errors import TaxonomyError
from mmcat.taxonomy import LEVELS, Taxonomy
from training.data import Dataset, Row, Skipped
from training.errors import DataError
from training.splits import group_key

MAX_BAD_SHARE = 0.01
_SHOWN = 5  # bad rows told in an error
_LEVEL_COLUMNS = [f"level{level}" for level in range(1, LEVELS + 1)]
_MAX_ID, _MAX_TITLE = 128, 1_000  # the limits of an event, so that every row can be sent as one


def read_folder(folder: str | Path, title_column: str = "title", *, max_bad_share: float = MAX_BAD_SHARE) -> Dataset:
    """Reads a data folder.

    Args:
        title_column: what the model reads; groups always come from the column `title`, so that splits stay the same.
        max_bad_share: of rows; more bad ones stop the run.

    Raises:
        DataError: no such file or column, or too many bad rows; the message says file, line and column.
    """
    root = Path(folder)
    path = root / "listings.tsv"
    header, lines = _lines(path)
    for column in ("product_id", "title", "level1", title_column):
        if column not in header:
            raise DataError(f"{path}, line 1: no column {column!r} (see docs/data-format.md)")
    given = _given_taxonomy(root)
    photos = _Photos(root)
    rows: list[Row] = []
    names: list[tuple[str, ...]] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    for number, cells in lines:
        try:
            row = _row(dict(zip(header, cells, strict=False)), len(cells), header, title_column, photos)
            if row.id in seen:
                raise _BadCellError("product_id", f"{row.id!r} stands twice")
            if given is not None:
                _check_path(given, row.path)
        except _BadCellError as bad:
            skipped.append(Skipped(number, bad.column, bad.reason))
            continue
        seen.add(row.id)
        rows.append(row)
        names.append(row.path)
    _refuse_too_many(path, skipped, len(rows), max_bad_share)
    taxonomy = given or Taxonomy.from_names(dict.fromkeys(names))
    name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-") or "folder"
    note = (
        f"{len(rows)} listings of the folder {root.resolve().name}, column {title_column}; the licence is its owner's"
    )
    return Dataset(name, taxonomy, rows, note, skipped)


class _BadCellError(Exception):
    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column, reason)
        self.column, self.reason = column, reason


def _lines(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header, and (line number, cells) of each further line that is not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): see docs/data-format.md") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 ({error.reason}): save it as UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # not splitlines: titles may hold U+2028
    return lines[0].split("\t"), ((n, line.split("\t")) for n, line in enumerate(lines[1:], start=2) if line.strip())


def _given_taxonomy(root: Path) -> Taxonomy | None:
    path = root / "taxonomy.tsv"
    try:
        return Taxonomy.load(path) if path.exists() else None
    except TaxonomyError as error:
        raise DataError(str(error)) from error


def _row(cells: Mapping[str, str], count: int, header: Sequence[str], title_column: str, photos: "_Photos") -> Row:
    if count != len(header):
        raise _BadCellError("(all)", f"{count} cells where the header has {len(header)}")
    product_id, title = cells["product_id"].strip(), cells[title_column].strip()
    if not 1 <= len(product_id) <= _MAX_ID:
        raise _BadCellError("product_id", f"{len(product_id)} characters, not 1 to {_MAX_ID}")
    if len(title) > _MAX_TITLE:
        raise _BadCellError(title_column, f"{len(title)} characters, at most {_MAX_TITLE}")
    levels = [cells.get(column, "").strip() for column in _LEVEL_COLUMNS]
    path = tuple(level for level in levels if level)
    if not path or list(path) != levels[: len(path)]:
        raise _BadCellError(_LEVEL_COLUMNS[levels.index("")], "empty above a level that is there, or no level at all")
    photo = photos.find(cells.get("image", "").strip(), product_id)
    if not title and photo is None:
        raise _BadCellError(title_column, "neither title nor photo")
    texts = (cells.get(column, "").strip() for column in ("brand", "maker", "model"))
    return Row(product_id, title, path, group_key(cells["title"]), photo, *texts)


def _check_path(taxonomy: Taxonomy, path: tuple[str, ...]) -> None:
    try:
        taxonomy.index(path)
    except TaxonomyError as error:
        raise _BadCellError(f"level{len(path)}", f"{error} (taxonomy.tsv)") from error


def _refuse_too_many(path: Path, skipped: Sequence[Skipped], good: int, max_bad_share: float) -> None:
    if not skipped or len(skipped) <= max_bad_share * (good + len(skipped)):
        return
    shown = "; ".join(f"line {bad.line}, column {bad.column}: {bad.reason}" for bad in skipped[:_SHOWN])
    raise DataError(
        f"{path}: {len(skipped)} of {good + len(skipped)} rows are bad, more than {max_bad_share:.1%}: {shown}"
    )


@dataclass(frozen=True, slots=True)
class _ZipPhoto:
    """Reads one member of an archive that all rows share; a ZipFile is read by one thread at a time."""

    archive: zipfile.ZipFile
    lock: Lock
    member: str

    def __call__(self) -> bytes:
        with self.lock:
            return self.archive.read(self.member)


class _Photos:
    """Finds a row's photo: by the column `image`, else `<product_id>.jpg`, in `photos.zip` or in `photos/`."""

    def __init__(self, root: Path) -> None:
        self._open: Callable[[str], Callable[[], bytes]]
        archive_path, folder = root / "photos.zip", root / "photos"
        if archive_path.exists():
            try:
                archive = zipfile.ZipFile(archive_path)
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(f"{archive_path} is not a zip archive: {error}") from error
            # By the last part of the name: archives of a folder hold the folder's name too.
            self._members = {name.rpartition("/")[2]: name for name in archive.namelist() if not name.endswith("/")}
            self._open = partial(_ZipPhoto, archive, Lock())
        else:
            files = folder.iterdir() if folder.is_dir() else ()
            self._members = {file.name: str(file) for file in files if file.is_file()}
            self._open = lambda file: Path(file).read_bytes

    def find(self, image: str, product_id: str) -> Callable[[], bytes] | None:
        """None where the row names no photo and there is none under its id.

        Raises:
            _BadCellError: the row names a photo that is not there.
        """
        member = self._members.get(image or f"{product_id}.jpg")
        if member is None and image:
            raise _BadCellError("image", f"no photo {image!r}")
        return None if member is None else self._open(member)
