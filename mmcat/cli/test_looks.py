"""What `evaluate` and `compare` do before they look at the test part of a split: say so, and write it down."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmcat.cli.bundles import FEATURES, home
from mmcat.cli.texts import say

if TYPE_CHECKING:
    from training.data import Dataset
    from training.splits import Split

__all__ = ["note_test_look"]


def note_test_look(
    dataset: "Dataset",
    split: "Split",
    *,
    recipe: Mapping[str, Any],
    model: str,
    purpose: str,
    shares: Mapping[str, float] | None = None,
) -> None:
    """Says so and adds a line to the split's ledger; a part that is looked at again and again is no test any more.

    Args:
        shares: of the split's parts; None: the usual ones.
    """
    from training.ledger import note_test_look as note
    from training.splits import SHARES, split_file

    where = split_file(dataset, home() / FEATURES, split.seed, shares or SHARES)
    note(where, split_fingerprint=split.fingerprint, recipe=recipe, model=model, purpose=purpose)
    by = recipe.get("name", "an unknown recipe")
    say(f"looking at the test part of {dataset.name} (split {split.fingerprint[:12]}, {by}): {model}, to {purpose}")
