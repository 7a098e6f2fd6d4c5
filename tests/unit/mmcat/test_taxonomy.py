"""The taxonomy: the real trees have the counts that were measured, and whatever is not a tree is refused by line."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmcat.errors import TaxonomyError
from mmcat.taxonomy import STOP, Node, Taxonomy
from tests.support.tiny import tiny_taxonomy


@pytest.fixture(scope="session")
def kakao(test_data: Path) -> Taxonomy:
    return Taxonomy.load(test_data / "taxonomy" / "kakao.tsv")


def test_kakao_has_the_measured_paths_and_prefix_nodes(kakao: Taxonomy) -> None:
    assert Counter(map(len, kakao.paths)) == {2: 537, 3: 3196, 4: 482}
    assert [len(nodes) for nodes in kakao.nodes] == [57, 556, 3290, 482]
    assert [len(keys) for keys in kakao.classes] == [57, 552 + 1, 3189 + 1, 403 + 1]  # + stop


def test_a_node_of_kakao_may_be_a_stop_and_a_parent(kakao: Taxonomy) -> None:
    stops = {path for path in kakao.paths if len(path) == 2}
    parents = {path[:2] for path in kakao.paths if len(path) > 2}
    assert len(stops & parents) == 472


def test_ids_of_kakao_stand_under_several_parents(kakao: Taxonomy) -> None:
    several = []
    for level in (2, 3, 4):
        parents: dict[str, set[tuple[str, ...]]] = {}
        for path in kakao.nodes[level - 1]:
            parents.setdefault(path[-1].id, set()).add(tuple(node.id for node in path[:-1]))
        several.append(sum(len(found) > 1 for found in parents.values()))
    assert several == [4, 72, 13]


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("shopify", {1: 26, 2: 211, 3: 1467, 4: 3724}),
        ("shopify_ko", {1: 26, 2: 211, 3: 1467, 4: 3724}),
        ("google", {1: 21, 2: 192, 3: 1349, 4: 2203}),
    ],
)
def test_other_trees_load_with_their_interior_nodes_as_places_to_stop(
    test_data: Path, name: str, lengths: dict[int, int]
) -> None:
    taxonomy = Taxonomy.load(test_data / "taxonomy" / f"{name}.tsv")
    assert Counter(map(len, taxonomy.paths)) == lengths
    assert [len(nodes) for nodes in taxonomy.nodes] == list(lengths.values())


def test_a_shopify_id_names_every_node_above_it(test_data: Path) -> None:
    taxonomy = Taxonomy.load(test_data / "taxonomy" / "shopify.tsv")
    path = taxonomy.paths[taxonomy.index(["ap", "ap-2", "ap-2-1"])]
    assert [node.name for node in path] == ["Animals & Pet Supplies", "Pet Supplies", "Bird Supplies"]


@pytest.mark.parametrize("name", ["kakao", "shopify_ko", "google"])
def test_a_written_tree_loads_as_the_same_tree(test_data: Path, tmp_path: Path, name: str) -> None:
    taxonomy = Taxonomy.load(test_data / "taxonomy" / f"{name}.tsv")
    taxonomy.write(tmp_path / "taxonomy.tsv")
    again = Taxonomy.load(tmp_path / "taxonomy.tsv")
    assert again == taxonomy
    assert again.paths == taxonomy.paths
    assert np.array_equal(again.path_classes, taxonomy.path_classes)


def test_the_digest_is_stable_across_versions() -> None:
    # Bundles and results carry it: a change of the canonical form breaks them.
    assert tiny_taxonomy().digest == "2a4fbd7dfcb3981d447986d38c7cabf5b24c95a02f11dbcdea77b23fd95cdaae"


def test_labels_stop_once_and_are_ignored_below() -> None:
    taxonomy = Taxonomy.from_names([["a"], ["a", "b", ""], ["c", "b", "d", "e"]])
    assert taxonomy.classes == (("a", "c"), (STOP, "b"), (STOP, "d"), (STOP, "e"))
    assert taxonomy.path_classes.tolist() == [[0, 0, -1, -1], [0, 1, 0, -1], [1, 1, 1, 1]]
    assert taxonomy.path_nodes.tolist() == [[0, -1, -1, -1], [0, 0, -1, -1], [1, 1, 0, 0]]
    assert taxonomy.index(["a", "b"]) == 1
    with pytest.raises(TaxonomyError, match="no path b > a"):
        taxonomy.index(["b", "a"])


def test_a_path_is_found_by_all_its_ids_and_only_by_them() -> None:
    taxonomy = tiny_taxonomy()
    for row, path in enumerate(taxonomy.paths):
        assert taxonomy.index([node.id for node in path]) == row
    for wrong in ([], ["fashion"], ["toys", "shoes"]):
        with pytest.raises(TaxonomyError):
            taxonomy.index(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown header"),
        ("a\tb\n", "unknown header"),
        ("level1\tlevel2\tlevel3\tlevel4\n", "no paths"),
        ("level1\tlevel2\tlevel3\tlevel4\na\tb\n", "line 2: 2 columns"),
        ("level1\tlevel2\tlevel3\tlevel4\na\t\tb\t\n", "line 2: a level is missing"),
        ("level1\tlevel2\tlevel3\tlevel4\na\t\t\t\na\t\t\t\n", "stands twice"),
        ("b_id\tm_id\ts_id\td_id\tb\tm\ts\td\n1\t-1\t-1\t-1\tx\ty\t\t\n", "line 2: a level is missing"),
        ("b_id\tm_id\ts_id\td_id\tb\tm\ts\td\n1\t2\t-1\t-1\tx\ty\t\t\n1\t3\t-1\t-1\tz\ty\t\t\n", "two names"),
        ("id\tlevel1\tlevel2\tlevel3\tlevel4\tdeeper\nap-1\tx\t\t\t\t0\n", "2 parts"),
    ],
)
def test_what_is_not_a_tree_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.tsv"
    file.write_text(text)
    with pytest.raises(TaxonomyError, match=message):
        Taxonomy.load(file)


def test_a_file_that_cannot_be_read_is_a_taxonomy_error(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match="cannot read"):
        Taxonomy.load(tmp_path / "absent.tsv")
    (tmp_path / "binary.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaxonomyError, match="cannot read"):
        Taxonomy.load(tmp_path / "binary.tsv")


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    tiny_taxonomy().write(tmp_path / "a.tsv")
    text = (tmp_path / "a.tsv").read_text()
    (tmp_path / "b.tsv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert Taxonomy.load(tmp_path / "b.tsv") == tiny_taxonomy()


@pytest.mark.parametrize("node", [Node(1, "a\tb", "x"), Node(1, "", "x"), Node(1, "a", "x\n"), Node(2, "a", "x")])
def test_a_node_that_a_line_cannot_hold_is_refused(node: Node) -> None:
    with pytest.raises(TaxonomyError):
        Taxonomy([(node,)])
