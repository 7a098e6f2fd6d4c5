"""Bad rows: named by line, column and reason, left out, counted; too many stop the run.

More than a share of bad rows means that the file is something else than we think. Before every reader.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from training.data import Skipped
from training.errors import DataError
from training.rows import Repeated

MAX_BAD_SHARE = 0.01
MAX_ID, MAX_TEXT = 128, 1_000  # characters; the limits of an event, so that every row can be sent as one
_SHOWN = 5  # bad rows told in an error


class BadCellError(Exception):
    """A row that cannot be used, by the column that shows it."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column, reason)
        self.column, self.reason = column, reason


def check_lengths(product_id: str, texts: Mapping[str, str], id_column: str) -> None:
    """Raises BadCellError for an id or a text that no event could carry; `texts` by their columns."""
    if not 1 <= len(product_id) <= MAX_ID:
        raise BadCellError(id_column, f"{len(product_id)} characters, not 1 to {MAX_ID}")
    for column, text in texts.items():
        if len(text) > MAX_TEXT:
            raise BadCellError(column, f"{len(text)} characters, at most {MAX_TEXT}")


def all_bad(
    skipped: Sequence[Skipped], repeated: Sequence[Repeated], column: str, file_of: Callable[[int], str] | None = None
) -> list[Skipped]:
    """What was skipped while reading and the repeated ids that were found afterwards, by line.

    Args:
        column: of the ids.
        file_of: names the file of a line, for data in several.
    """
    files = (f"{file_of(one.line)}: " if file_of else "" for one in repeated)
    twice = [
        Skipped(one.line, column, f"{file}{one.id!r} stands twice") for file, one in zip(files, repeated, strict=True)
    ]
    return sorted([*skipped, *twice], key=lambda bad: bad.line)


def refuse_too_many(source: Path, skipped: Sequence[Skipped], good: int, max_bad_share: float) -> None:
    """Raises DataError where more than `max_bad_share` of the rows are bad; names the first."""
    if not skipped or len(skipped) <= max_bad_share * (good + len(skipped)):
        return
    shown = "; ".join(f"line {bad.line}, column {bad.column}: {bad.reason}" for bad in skipped[:_SHOWN])
    raise DataError(
        f"{source}: {len(skipped)} of {good + len(skipped)} rows are bad, more than {max_bad_share:.1%}: {shown}"
    )
