"""What a data set itself tells of wrong labels, in one sentence for the model card.

Listings whose titles differ in colour words alone are variants of one product; where such listings carry different
paths, at least one is wrong or the tree leaves it open. A hint, not a rate: single listings contradict nobody.
After data.py; before export.py. `mmcat evaluate` lists labels one by one (figures/suspects.py).
"""

import numpy as np

from training.data import Dataset
from training.rows import group_members


def label_note(dataset: Dataset) -> str:
    """How many listings are contradicted by another of their group."""
    group_of, groups = group_members(dataset.rows.column("group"), dataset.rows.column("id"))
    sizes = np.bincount(group_of, minlength=groups)
    if not (shared := int(sizes[sizes > 1].sum())):
        return "errors cannot be seen, as no two listings are variants of one product"
    path_of = np.empty(groups, np.int64)
    path_of[group_of] = dataset.targets  # of any of its rows: where they disagree, one of them is not of that path
    torn = np.zeros(groups, np.bool_)
    torn[group_of[path_of[group_of] != dataset.targets]] = True
    contradicted = int(sizes[torn].sum())
    return (
        f"of {shared:,} listings with a variant of the same title, {contradicted:,} ({contradicted / shared:.1%}) stand"
        " in another path than one of their variants: no model can be right on all of them"
    )
