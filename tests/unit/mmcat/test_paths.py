"""Decoding at the size of the real tree, and the cases a formula hides."""

import numpy as np
import pytest

from mmcat.paths import PathIndex, log_softmax, path_log_scores
from mmcat.taxonomy import Taxonomy
from tests.support.tiny import tiny_taxonomy


def test_stop_is_part_of_the_score_and_nothing_below_it_is() -> None:
    taxonomy = Taxonomy.from_names([["a"], ["a", "b"]])
    levels = [np.array([[-1.0]]), np.array([[-2.0, -4.0]]), np.array([[-8.0]]), np.array([[-16.0]])]
    assert path_log_scores(levels, taxonomy.path_classes).tolist() == [[-3.0, -13.0]]


def test_four_argmaxes_that_make_no_path_decode_to_the_best_one_that_exists() -> None:
    taxonomy = tiny_taxonomy()
    index = PathIndex(taxonomy)
    wish = ["toys", "shoes", "sneakers", "women"]  # there are no shoes under toys
    logits = [np.full((1, len(keys)), -2.0) for keys in taxonomy.classes]
    for level, key in enumerate(wish):
        logits[level][0, taxonomy.classes[level].index(key)] = 3.0
    answer = taxonomy.paths[index.decode(index.scores(logits)).rows[0, 0]]
    assert [node.id for node in answer] == ["fashion", "shoes", "sneakers", "women"]


def test_a_flat_head_scores_its_paths_directly() -> None:
    index = PathIndex(tiny_taxonomy())
    logits = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    scores = index.scores([logits])
    assert np.allclose(np.exp(scores).sum(axis=1), 1)
    assert (index.decode(scores).rows[:, 0] == logits.argmax(axis=1)).all()


def test_ties_go_to_the_lower_row_whatever_top_k() -> None:
    index = PathIndex(Taxonomy.from_names([["a"], ["b"], ["c"], ["d"]]))
    scores = np.array([[0.0, 1.0, 1.0, 1.0]])
    assert [index.decode(scores, top_k=k).rows[0].tolist() for k in (1, 2, 4)] == [[1], [1, 2], [1, 2, 3, 0]]
    assert index.decode(scores, top_k=99).rows.shape == (1, 4)


def test_huge_logits_stay_finite() -> None:
    log_probs = log_softmax(np.array([[1e30, -1e30, 0.0]], np.float32))
    assert np.isfinite(log_probs).all()
    index = PathIndex(Taxonomy.from_names([["a"], ["b"], ["c"]]))
    logits = [np.array([[1e6, -1e6, 0.0]]), np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1))]
    assert np.isfinite(index.decode(index.scores(logits), 0.05).probabilities).all()


def test_an_empty_batch_decodes_to_nothing() -> None:
    taxonomy = tiny_taxonomy()
    index = PathIndex(taxonomy)
    decoded = index.decode(np.zeros((0, len(taxonomy))), top_k=3)
    assert decoded.rows.shape == (0, 3)


@pytest.fixture(scope="module")
def kakao(request: pytest.FixtureRequest) -> Taxonomy:
    return Taxonomy.load(request.getfixturevalue("test_data") / "taxonomy" / "kakao.tsv")


def test_marginals_of_the_real_tree_equal_sums_over_its_paths(kakao: Taxonomy) -> None:
    index, random = PathIndex(kakao), np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(len(kakao)), size=3)
    for level, marginals in enumerate(index.node_marginals(probabilities)):
        expected = np.zeros_like(marginals)
        for row, node in enumerate(kakao.path_nodes[:, level]):
            if node >= 0:
                expected[:, node] += probabilities[:, row]
        assert np.allclose(marginals, expected, atol=1e-12)


def test_an_untrained_model_of_the_real_tree_still_answers_only_existing_paths(kakao: Taxonomy) -> None:
    index, random = PathIndex(kakao), np.random.default_rng(1)
    logits = [random.normal(size=(64, len(keys))).astype(np.float32) for keys in kakao.classes]
    decoded = index.decode(index.scores(logits), top_k=5)
    assert ((decoded.rows >= 0) & (decoded.rows < len(kakao))).all()
    assert (np.diff(decoded.probabilities, axis=1) <= 0).all()
