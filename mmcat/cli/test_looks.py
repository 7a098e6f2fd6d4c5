"""Where the program learns that the test part of a split is looked at: `evaluate` and `compare` call this first."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmcat.cli.texts import say

if TYPE_CHECKING:
    from training.data import Dataset
    from training.splits import Split

__all__ = ["note_test_look"]


def note_test_look(dataset: "Dataset", split: "Split", *, recipe: Mapping[str, Any], model: str, purpose: str) -> None:
    """Says so; a part that is looked at again and again is no test any more."""
    by = recipe.get("name", "an unknown recipe")
    say(f"looking at the test part of {dataset.name} (split {split.fingerprint[:12]}, {by}): {model}, to {purpose}")
