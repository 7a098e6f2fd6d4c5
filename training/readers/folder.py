"""Real listings from a folder (docs/data-format.md): a table, photos in an archive, in a folder, or at addresses.

Bad rows are left out, counted and listed. Photos are not opened here, only looked for; those at addresses are fetched
into the cache, some thousand rows at a time. Gives a Dataset; nothing of the number of rows is held.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mmcat.errors import TaxonomyError
from mmcat.taxonomy import LEVELS, Taxonomy
from training.data import Dataset, Row, Skipped
from training.errors import DataError
from training.progress import Progress, Quiet
from training.readers.bad_rows import MAX_BAD_SHARE, BadCellError, all_bad, check_lengths, refuse_too_many
from training.readers.fetch import PhotoFiles
from training.readers.photos import Photos
from training.readers.tables import Table, open_table, table_path
from training.rows import Draft
from training.splits import group_key

REQUIRED = ("product_id", "title", "level1")
_LEVEL_COLUMNS = [f"level{level}" for level in range(1, LEVELS + 1)]
_FIELDS = ("brand", "maker", "model")
COLUMNS = (*REQUIRED, *_LEVEL_COLUMNS[1:], *_FIELDS, "image", "image_url")
_TURN = 2_000  # rows whose photos are fetched together


def read_folder(
    folder: str | Path,
    title_column: str = "title",
    *,
    cache: Path | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    allow_private: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Reads a data folder; blocks for a minute per million rows, and on the network for photos at addresses.

    Args:
        title_column: what the model reads; groups always come from the column `title`, so that splits stay the same.
        cache: folder for the rows and the fetched photos; None: rows go into an unnamed temporary file.
        max_bad_share: of rows; more bad ones stop the run.
        allow_private: whether photos may be fetched from addresses that are not public.

    Raises:
        DataError: no such file or column, or too many bad rows; the message says file, line and column.
    """
    root = Path(folder)
    table = open_table(table_path(root), (*COLUMNS, title_column))
    _check_columns(table, title_column, cache)
    given = given_taxonomy(root)
    fetched = PhotoFiles(cache / "photos") if cache is not None and "image_url" in table.header else None
    photos = Photos(root, fetched, allow_private=allow_private)
    source = _Source(table, title_column, given, photos, progress or Quiet())
    draft = Draft(cache, given)
    try:
        for line, row, where in source.rows():
            draft.add(row, photo=where, line=line)
        name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-") or "folder"
        rows, taxonomy, repeated = draft.finish(name, photos.open)
    except BaseException:
        draft.discard()
        raise
    skipped = all_bad(source.skipped, repeated, "product_id")
    refuse_too_many(table.path, skipped, len(rows), max_bad_share)
    if taxonomy is None:
        raise DataError(f"{table.path}: no listings")
    note = (
        f"{len(rows)} listings of the folder {root.resolve().name}, column {title_column}; the licence is its owner's"
    )
    return Dataset(name, taxonomy, rows, note, skipped, lost_photos=source.lost_photos)


def given_taxonomy(root: Path) -> Taxonomy | None:
    """The whole tree, where the folder has one.

    Raises:
        DataError: `taxonomy.tsv` cannot be used.
    """
    path = root / "taxonomy.tsv"
    try:
        return Taxonomy.load(path) if path.exists() else None
    except TaxonomyError as error:
        raise DataError(str(error)) from error


def _check_columns(table: Table, title_column: str, cache: Path | None) -> None:
    for column in (*REQUIRED, title_column):
        if column not in table.header:
            raise DataError(f"{table.path}, line 1: no column {column!r} (see docs/data-format.md)")
    twice = [column for column in COLUMNS if list(table.header).count(column) > 1]
    if twice:
        raise DataError(f"{table.path}, line 1: the column {twice[0]!r} stands twice")
    if "image_url" in table.header and cache is None:
        raise DataError(f"{table.path} names photos by address (image_url): name a cache folder to fetch them into")


@dataclass
class _Source:
    """The rows of one table on their way; collects what is left out.

    Args:
        skipped: bad rows.
        lost_photos: rows that stay, without the photo that their address did not give.
    """

    table: Table
    title_column: str
    taxonomy: Taxonomy | None
    photos: Photos
    progress: Progress
    skipped: list[Skipped] = field(default_factory=list)
    lost_photos: list[Skipped] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[int, Row, str | None]]:
        """Good rows with their line and where their photo is."""
        with_addresses = "image_url" in self.table.header
        while turn := list(islice(self.table.rows, _TURN)):
            if with_addresses:
                column = list(self.table.header).index("image_url")
                self.photos.fetch(cells[column].strip() for _, cells in turn if len(cells) > column)
                self.progress.say(f"photos fetched up to line {turn[-1][0]:,}, {len(self.lost_photos):,} lost before")
            for line, cells in turn:
                try:
                    yield line, *self._row(line, cells)
                except BadCellError as bad:
                    self.skipped.append(Skipped(line, bad.column, bad.reason))

    def _row(self, line: int, values: Sequence[str]) -> tuple[Row, str | None]:
        if len(values) != len(self.table.header):
            raise BadCellError("(all)", f"{len(values)} cells where the header has {len(self.table.header)}")
        cells = dict(zip(self.table.header, values, strict=True))
        product_id, title = cells["product_id"].strip(), cells[self.title_column].strip()
        brand, maker, model = (cells.get(name, "").strip() for name in _FIELDS)
        texts = {self.title_column: title, "brand": brand, "maker": maker, "model": model}
        check_lengths(product_id, texts, "product_id")
        path = self._path(cells)
        address = cells.get("image_url", "").strip()
        where = self.photos.find(cells.get("image", "").strip(), product_id, address)
        why_not = self.photos.why_not(address) if where is None else ""
        if not title and where is None:
            raise BadCellError(self.title_column, "neither title nor photo" + (f" ({why_not})" if why_not else ""))
        if why_not:
            self.lost_photos.append(Skipped(line, "image_url", why_not))
        return Row(product_id, title, path, group_key(cells["title"]), None, brand, maker, model), where

    def _path(self, cells: Mapping[str, str]) -> tuple[str, ...]:
        levels = [cells.get(column, "").strip() for column in _LEVEL_COLUMNS]
        path = tuple(level for level in levels if level)
        if not path or list(path) != levels[: len(path)]:
            column = _LEVEL_COLUMNS[levels.index("")]
            raise BadCellError(column, "empty above a level that is there, or no level at all")
        if self.taxonomy is not None:
            try:
                self.taxonomy.index(path)
            except TaxonomyError as error:
                raise BadCellError(f"level{len(path)}", f"{error} (taxonomy.tsv)") from error
        return path
