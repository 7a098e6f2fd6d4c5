"""What variants of one product tell of the labels."""

import tracemalloc

from mmcat.taxonomy import Taxonomy
from training.data import Dataset, Row
from training.label_noise import label_note


def note(*rows: tuple[str, str]) -> str:
    made = [Row(f"p{number}", "x", (path,), group) for number, (group, path) in enumerate(rows)]
    return label_note(Dataset("few", Taxonomy.from_names([["a"], ["b"]]), made))


def test_variants_in_other_paths_are_counted_and_single_listings_are_not() -> None:
    said = note(("shoe", "a"), ("shoe", "b"), ("shoe", "a"), ("bag", "a"), ("bag", "a"), ("hat", "b"))
    assert said.startswith("of 5 listings with a variant of the same title, 3 (60.0%)")


def test_a_group_costs_a_few_numbers_and_no_objects_of_its_own() -> None:
    count = 100_000
    rows = (Row(f"p{number}", "x", ("a" if number % 4 else "b",), f"group {number // 2}") for number in range(count))
    data = Dataset("many", Taxonomy.from_names([["a"], ["b"]]), list(rows))
    label_note(data)  # what is imported once is imported
    tracemalloc.start()
    said = label_note(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said.startswith("of 100,000 listings with a variant of the same title, 50,000 (50.0%)")
    assert peak < 100 * count


def test_without_variants_nothing_can_be_seen() -> None:
    assert "cannot be seen" in note(("", "a"), ("", "b"), ("hat", "b"))
