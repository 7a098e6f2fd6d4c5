"""The table of benchmark results: every row is there, and a new figure changes its own row only."""

import pytest

from tests.benchmarks.results import RESULTS, ROWS, Row, interval, rewritten


@pytest.mark.parametrize("name", list(ROWS))
def test_a_new_figure_changes_its_own_row_only(name: str) -> None:
    before = RESULTS.read_text("utf-8")
    after = rewritten(before, ROWS[name], "0.61 (0.60 to 0.62)")
    changed = [one for one, other in zip(after.splitlines(), before.splitlines(), strict=True) if one != other]
    assert len(changed) == 1
    assert changed[0].endswith("| 0.61 (0.60 to 0.62) |")


def test_a_row_that_is_not_in_the_table_is_told_of() -> None:
    with pytest.raises(ValueError, match="no row for: speed of light"):
        rewritten("| claim |\n", Row("speed of light", (), lambda _found: ""), "1")


def test_both_shapes_of_an_interval_read_alike() -> None:
    assert interval({"median": 0.5, "low": 0.4, "high": 0.6}) == interval({"ratio": 0.5, "interval": [0.4, 0.6]})
