"""The ledger: every look at the test part is a line, and the lines can be counted."""

from pathlib import Path

import pytest

from training.errors import DataError
from training.ledger import ledger_file, looks, note_test_look


def note(file: Path, model: str) -> None:
    note_test_look(file, split_fingerprint="f" * 64, recipe={"name": "small", "lr": 1}, model=model, purpose="a test")


def test_looks_are_appended_beside_the_split_file_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "shop-0-abc.split.json"
    assert looks(file) == []
    note(file, "cross")
    note(file, "text")
    assert ledger_file(file) == tmp_path / "shop-0-abc.split.json.ledger.jsonl"
    first, second = looks(file)
    assert (first.model, second.model, first.split, first.recipe, first.purpose) == (
        "cross", "text", "f" * 64, "small", "a test",
    )  # fmt: skip
    assert first.recipe_digest == second.recipe_digest
    assert first.date.endswith("+00:00")


def test_another_recipe_has_another_digest(tmp_path: Path) -> None:
    made = [
        note_test_look(
            tmp_path / "s", split_fingerprint="f", recipe={"name": "small", "lr": lr}, model="m", purpose="p"
        )
        for lr in (1, 2)
    ]
    assert made[0].recipe_digest != made[1].recipe_digest


def test_a_line_that_is_no_look_is_named(tmp_path: Path) -> None:
    file = tmp_path / "s"
    note(file, "cross")
    with ledger_file(file).open("a") as opened:
        opened.write('{"date": 1}\n')
    with pytest.raises(DataError, match="line 2: not a look"):
        looks(file)
