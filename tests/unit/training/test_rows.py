"""Rows as columns: what goes in comes out, repeated ids leave no trace, nothing grows with the number of rows."""

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcat.taxonomy import Taxonomy
from training import rows as module
from training.data import Dataset, Row
from training.errors import DataError
from training.rows import Draft

PATHS = [("a",), ("a", "x"), ("b", "y", "z", "w")]


def row(number: int, **changes: str) -> Row:
    return Row(f"p{number}", f"제목 {number}", PATHS[number % 3], f"g{number % 5}", None, **changes)


def drafted(folder: Path | None, rows: list[Row], taxonomy: Taxonomy | None = None) -> Draft:
    draft = Draft(folder, taxonomy)
    for line, one in enumerate(rows, start=2):
        draft.add(one, photo=one.id, line=line)
    return draft


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kept", [True, False])
def test_rows_come_back_by_number_by_slice_and_one_after_the_other(tmp_path: Path, kept: bool) -> None:
    given = [row(number, brand="삼성", maker=f"m{number}", model='27"') for number in range(11)]
    draft = drafted(tmp_path if kept else None, given)
    found, taxonomy, repeated = draft.finish("shop", str.encode)
    assert not repeated
    assert taxonomy == Taxonomy.from_names(PATHS)
    bare = [Row(r.id, r.title, r.path, r.group, None, r.brand, r.maker, r.model) for r in found]
    assert bare == given
    assert [found[place].id for place in (0, 3, 4, 10, -1)] == ["p0", "p3", "p4", "p10", "p10"]
    assert [one.id for one in found[3:9:2]] == ["p3", "p5", "p7"]
    photo = found[7].photo
    assert photo is not None
    assert photo() == b"p7"
    with pytest.raises(IndexError):
        found[11]
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == kept
    assert all(name.startswith("rows-shop-") for name in names)


@pytest.mark.usefixtures("small_blocks")
@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.booleans())
def test_repeated_ids_leave_no_trace(numbers: list[int], with_taxonomy: bool) -> None:
    # The path of a repeated id stands nowhere else: it must not become a category.
    seen: set[int] = set()
    rows, kept = [], []
    for place, number in enumerate(numbers):
        path = PATHS[number % 3] if number not in seen else ("only", str(place))
        rows.append(Row(f"p{number}", "t", path, ""))
        if number not in seen:
            kept.append(rows[-1])
        seen.add(number)
    whole = Taxonomy.from_names(dict.fromkeys(one.path for one in rows)) if with_taxonomy else None
    found, taxonomy, repeated = drafted(None, rows, whole).finish("", str.encode)
    assert [(one.id, one.path) for one in found] == [(one.id, one.path) for one in kept]
    assert taxonomy == (whole or Taxonomy.from_names(dict.fromkeys(one.path for one in kept)))
    assert len(repeated) == len(rows) - len(kept)
    assert found.numbers("line").tolist() == [
        2 + place for place, number in enumerate(numbers) if number not in numbers[:place]
    ]


def test_the_same_rows_have_one_file_and_other_rows_another(tmp_path: Path) -> None:
    for rows in ([row(1)], [row(1)], [row(2)]):
        drafted(tmp_path, rows).finish("shop", str.encode)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_draft_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    drafted(tmp_path, [row(1)]).discard()
    assert not list(tmp_path.iterdir())


def test_a_path_that_the_taxonomy_does_not_have_is_named() -> None:
    with pytest.raises(DataError, match="p1: no path a > x in this taxonomy"):
        drafted(None, [row(0), row(1)], Taxonomy.from_names([("a",)]))


def test_rows_at_hand_become_the_same_kind_of_dataset() -> None:
    given = [Row("p1", "a", ("a",), "", lambda: b"photo"), Row("p2", "b", (), "g")]
    data = Dataset("made", Taxonomy.from_names(PATHS), given)
    first, second = data.rows
    assert first.photo is not None
    assert first.photo() == b"photo"
    assert (second.photo, second.path) == (None, ())
    assert data.targets.tolist() == [0, -1]
    assert data.labelled.tolist() == [True, False]
    with pytest.raises(DataError, match="1 product ids stand twice, 'p1' first"):
        Dataset("made", Taxonomy.from_names(PATHS), [given[0], given[0]])
    with pytest.raises(DataError, match="no listings"):
        Dataset("made", Taxonomy.from_names(PATHS), [])


def test_no_python_object_is_held_for_a_row() -> None:
    draft = drafted(None, [row(number) for number in range(3_000)])
    found, taxonomy, _ = draft.finish("", str.encode)
    assert taxonomy is not None
    data = Dataset("made", taxonomy, found)
    del draft
    assert len(data.digest) == 64
    gc.collect()
    mine = [one for one in gc.get_objects() if type(one) is Row]
    assert not mine
    assert data.targets.dtype == np.int64
