"""What variants of one product tell of the labels."""

from mmcat.taxonomy import Taxonomy
from training.data import Dataset, Row
from training.label_noise import label_note


def note(*rows: tuple[str, str]) -> str:
    made = [Row(f"p{number}", "x", (path,), group) for number, (group, path) in enumerate(rows)]
    return label_note(Dataset("few", Taxonomy.from_names([["a"], ["b"]]), made))


def test_variants_in_other_paths_are_counted_and_single_listings_are_not() -> None:
    said = note(("shoe", "a"), ("shoe", "b"), ("shoe", "a"), ("bag", "a"), ("bag", "a"), ("hat", "b"))
    assert said.startswith("of 5 listings with a variant of the same title, 3 (60.0%)")


def test_without_variants_nothing_can_be_seen() -> None:
    assert "cannot be seen" in note(("", "a"), ("", "b"), ("hat", "b"))
