"""What a data set itself tells of wrong labels, in one sentence for the model card.

Listings whose titles differ in colour words alone are variants of one product; where such listings carry different
paths, at least one is wrong or the tree leaves it open. A hint, not a rate: single listings contradict nobody.
After data.py; before export.py. `mmcat evaluate` lists labels one by one (figures/suspects.py).
"""

from training.data import Dataset


def label_note(dataset: Dataset) -> str:
    """How many listings are contradicted by another of their group."""
    paths: dict[str, set[tuple[str, ...]]] = {}
    sizes: dict[str, int] = {}
    for row in dataset.rows:
        if row.group:
            paths.setdefault(row.group, set()).add(row.path)
            sizes[row.group] = sizes.get(row.group, 0) + 1
    shared = sum(size for size in sizes.values() if size > 1)
    if not shared:
        return "errors cannot be seen, as no two listings are variants of one product"
    contradicted = sum(size for group, size in sizes.items() if len(paths[group]) > 1)
    return (
        f"of {shared:,} listings with a variant of the same title, {contradicted:,} ({contradicted / shared:.1%}) stand"
        " in another path than one of their variants: no model can be right on all of them"
    )
