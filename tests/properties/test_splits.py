"""What every split promises, whatever the listings look like."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcat.taxonomy import Taxonomy
from training.data import Dataset, Row
from training.errors import DataError
from training.splits import SHARES, Split, group_key, make_split, share_of_groups

PATHS = [("a",), ("a", "x"), ("b", "x", "y"), ("b", "x"), ("c", "z", "y", "w")]
listings = st.lists(st.tuples(st.sampled_from(PATHS), st.integers(0, 40)), min_size=1, max_size=120)


def dataset(spec: list[tuple[tuple[str, ...], int]]) -> Dataset:
    taxonomy = Taxonomy.from_names(dict.fromkeys(path for path, _ in spec))
    rows = [Row(f"p{i}", f"title {group}", path, f"g{group}") for i, (path, group) in enumerate(spec)]
    return Dataset("made-up", taxonomy, rows)


def parts_of(split: Split) -> dict[str, str]:
    return {id_: part for part, ids in split.parts.items() for id_ in ids}


@settings(deadline=None, max_examples=50)
@given(listings, st.integers(0, 1_000))
def test_no_group_crosses_parts_and_every_row_has_one(spec: list[tuple[tuple[str, ...], int]], seed: int) -> None:
    data = dataset(spec)
    split = make_split(data, seed)
    part_of = parts_of(split)
    assert sum(map(len, split.parts.values())) == len(data) == len(part_of)
    parts_by_group: dict[str, set[str]] = {}
    for row in data.rows:
        parts_by_group.setdefault(row.group, set()).add(part_of[row.id])
    assert all(len(parts) == 1 for parts in parts_by_group.values())


@settings(deadline=None, max_examples=50)
@given(listings, st.integers(0, 1_000))
def test_every_path_is_in_train(spec: list[tuple[tuple[str, ...], int]], seed: int) -> None:
    data = dataset(spec)
    train = set(make_split(data, seed).parts["train"])
    assert {row.path for row in data.rows if row.id in train} == {row.path for row in data.rows}


@settings(deadline=None, max_examples=50)
@given(listings, st.integers(0, 1_000))
def test_the_same_seed_gives_the_same_split(spec: list[tuple[tuple[str, ...], int]], seed: int) -> None:
    assert make_split(dataset(spec), seed) == make_split(dataset(spec), seed)
    assert make_split(dataset(spec), seed).fingerprint == make_split(dataset(spec), seed).fingerprint


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000))
def test_the_shares_hold_where_groups_are_small(seed: int) -> None:
    data = dataset([(PATHS[i % len(PATHS)], i) for i in range(2_000)])
    split = make_split(data, seed)
    for part, share in SHARES.items():
        assert abs(len(split.parts[part]) / len(data) - share) < 0.01


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1_000))
def test_large_groups_are_dealt_like_small_ones(seed: int) -> None:
    # A group of eight after every eight single listings: each part has half of its rows in large groups.
    data = dataset([(PATHS[0], i if i % 16 < 8 else 10_000 + i // 16) for i in range(8_000)])
    split = make_split(data, seed)
    large = {row.id for row in data.rows if int(row.group[1:]) >= 10_000}
    for part in ("train", "test"):
        assert abs(len(large & set(split.parts[part])) / len(split.parts[part]) - 0.5) < 0.1


@given(st.text(max_size=60), st.sampled_from(["Black", "NAVY blue", "화이트", "(Red)", "off-white"]))
def test_a_colour_word_does_not_change_the_group(title: str, colour: str) -> None:
    plain = f"mug {title}"
    assert group_key(f"{colour} {plain}") == group_key(plain) == group_key(f"  {plain}!")


def test_digest_and_split_are_those_of_earlier_versions() -> None:
    """Split files are keyed by the digest and bundles record the fingerprint: a refactoring must not change them."""
    rows = [Row(f"p{i}", f"제목 {i}", PATHS[i * i % 5], "" if i % 7 == 0 else f"g{i % 61}ß한") for i in range(300)]
    data = Dataset("golden", Taxonomy.from_names(PATHS), rows)
    assert data.digest == "86e1b13afd3996783eb716b3eff060b4b9c69704fd93abf15eaf5342790a0ce8"
    split = make_split(data, seed=5)
    assert split.fingerprint == "2f21786c0bcb9f72092624ba57fc33701583e1884f3104db5418358d09eeaf5c"


@settings(deadline=None, max_examples=50)
@given(listings, st.sets(st.integers(0, 119)), st.integers(0, 100))
def test_rows_without_a_category_are_in_no_part(
    spec: list[tuple[tuple[str, ...], int]], unknown: set[int], seed: int
) -> None:
    taxonomy = Taxonomy.from_names(PATHS)
    rows = [Row(f"p{i}", "t", () if i in unknown else path, f"g{group}") for i, (path, group) in enumerate(spec)]
    data = Dataset("made-up", taxonomy, rows)
    if not data.labelled.any():
        with pytest.raises(DataError, match="no listing has a category"):
            make_split(data, seed)
        return
    split = make_split(data, seed)
    dealt = [split.rows(part, data).tolist() for part in split.parts]
    assert sorted(row for rows_of in dealt for row in rows_of) == np.flatnonzero(data.labelled).tolist()


@settings(deadline=None, max_examples=50)
@given(listings, st.integers(0, 100))
def test_a_split_reads_back_as_it_was_written(spec: list[tuple[tuple[str, ...], int]], seed: int) -> None:
    split = make_split(dataset(spec), seed)
    with tempfile.TemporaryDirectory() as folder:
        split.write(Path(folder) / "a.split.json")
        again = Split.load(Path(folder) / "a.split.json")
    assert again == split
    assert again.fingerprint == split.fingerprint


@settings(deadline=None, max_examples=50)
@given(listings, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_share_lies_inside_a_larger_one_and_cuts_no_group(
    spec: list[tuple[tuple[str, ...], int]], one: float, other: float
) -> None:
    data, rows = dataset(spec), np.arange(len(spec))
    less, more = (set(share_of_groups(data, rows, share).tolist()) for share in sorted((one, other)))
    assert less <= more
    groups = {data.rows[row].group for row in less}
    assert less == {row for row in rows.tolist() if data.rows[row].group in groups}
    assert share_of_groups(data, rows, 1.0).tolist() == rows.tolist()


def test_a_share_holds_about_as_many_groups() -> None:
    data = dataset([(PATHS[0], group) for group in range(4_000)])
    assert len(share_of_groups(data, np.arange(4_000), 0.25)) == pytest.approx(1_000, abs=100)
