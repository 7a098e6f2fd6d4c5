"""Any tree survives being written and read, and its labels name each path exactly."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcat.errors import TaxonomyError
from mmcat.taxonomy import LEVELS, STOP, Taxonomy

cells = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=6).map(str.strip).filter(bool)
rows = st.lists(st.lists(cells, min_size=1, max_size=LEVELS), min_size=1, max_size=20, unique_by=tuple)


@settings(deadline=None)  # a shared machine's clock proves nothing here
@given(rows)
def test_a_tree_survives_its_file(names: list[list[str]]) -> None:
    taxonomy = Taxonomy.from_names(names)
    with tempfile.TemporaryDirectory() as folder:
        taxonomy.write(Path(folder) / "t.tsv")
        again = Taxonomy.load(Path(folder) / "t.tsv")
    assert again.paths == taxonomy.paths
    assert again.digest == taxonomy.digest


@settings(deadline=None)
@given(rows)
def test_labels_and_paths_say_the_same(names: list[list[str]]) -> None:
    taxonomy = Taxonomy.from_names(names)
    assert len({tuple(row) for row in taxonomy.path_classes.tolist()}) == len(taxonomy)
    for path, labels in zip(taxonomy.paths, taxonomy.path_classes, strict=True):
        keys = [taxonomy.classes[level][label] for level, label in enumerate(labels) if label >= 0]
        assert keys == [node.id for node in path] + [STOP] * (len(path) < LEVELS)
        assert taxonomy.paths[taxonomy.index([node.id for node in path])] is path
    for level in range(LEVELS):
        assert np.unique(taxonomy.path_nodes[:, level][taxonomy.path_nodes[:, level] >= 0]).tolist() == list(
            range(len(taxonomy.nodes[level]))
        )


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_tree_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.tsv"
        file.write_text("level1\tlevel2\tlevel3\tlevel4\n" + text, encoding="utf-8", errors="surrogatepass", newline="")
        with contextlib.suppress(TaxonomyError):
            assert len(Taxonomy.load(file)) > 0
