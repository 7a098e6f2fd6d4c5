"""The table of benchmark results: every row is there, and a new figure changes its own row only."""

from dataclasses import asdict

import pytest

from mmcat.cli.benchmarks.intervals import ratio
from tests.benchmarks import results
from tests.benchmarks.gpu_service import covered
from tests.benchmarks.results import RESULTS, ROWS, Row, compiled, interval, rewritten


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


def test_kernels_that_overlap_count_once() -> None:
    assert covered([(5.0, 7.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 5.0
    assert covered([]) == 0.0


def test_a_ratio_stands_with_its_interval() -> None:
    found = ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert interval(asdict(found)) == "0.50 (0.50 to 0.50)"
    assert str(found) == "0.50, 95 % interval 0.50 to 0.50, 3 pairs"


def test_rows_for_a_gpu_are_left_out_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that fails would cost `make bench` its success."""
    before = RESULTS.read_text("utf-8")
    rows = [name for name, row in ROWS.items() if row.on_gpu]
    monkeypatch.setattr(results, "has_gpu", lambda: False)
    monkeypatch.setattr("sys.argv", ["results", *rows])
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it was run"))
    assert results.main() == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: left out, no CUDA device" for name in rows]
    assert RESULTS.read_text("utf-8") == before


def test_the_compiled_engine_is_told_of_at_its_best_batch() -> None:
    batches = {
        batch: {"listings_per_s": {"compiled": {"median": rate}}, "share": {"compiled": rate / 20_000}}
        for batch, rate in (("128", 9_000.0), ("512", 12_000.0), ("1024", 11_000.0))
    }
    assert compiled({"device": "H100", "batches": batches}) == "12,000 listings/s on H100, 60% of the roofline"
