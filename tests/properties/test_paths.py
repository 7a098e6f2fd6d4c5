"""Whatever the scores: the decoded path exists, is the best by brute force, and its probabilities add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcat.paths import PathIndex, Scores, path_probabilities
from mmcat.taxonomy import LEVELS, Taxonomy

names = st.sampled_from(list("abcde"))
rows = st.lists(st.lists(names, min_size=1, max_size=LEVELS), min_size=1, max_size=25, unique_by=tuple)
taxonomies = rows.map(Taxonomy.from_names)


def _logits(taxonomy: Taxonomy, seed: int, batch: int, scale: float) -> list[Scores]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(batch, len(keys))) * scale for keys in taxonomy.classes]


def _slow_score(taxonomy: Taxonomy, logits: list[Scores], row: int, ids: tuple[str, ...]) -> float:
    """Σ log softmax of the path's class per level, the stop included, nothing below it."""
    score = 0.0
    for level in range(LEVELS):
        keys = taxonomy.classes[level]
        key = ids[level] if level < len(ids) else ""
        values = logits[level][row]
        top = values.max()
        score += float(values[keys.index(key)] - top - np.log(np.exp(values - top).sum()))
        if key == "":
            break
    return score


@settings(deadline=None)  # a shared machine's clock proves nothing here
@given(taxonomies, st.integers(0, 2**32 - 1), st.floats(0.1, 20), st.floats(0.2, 5), st.integers(1, 30))
def test_decode_equals_brute_force(taxonomy: Taxonomy, seed: int, scale: float, temperature: float, top_k: int) -> None:
    index, logits = PathIndex(taxonomy), _logits(taxonomy, seed, 3, scale)
    decoded = index.decode(index.scores(logits), temperature, top_k)
    for row in range(3):
        scores = np.array([_slow_score(taxonomy, logits, row, tuple(n.id for n in path)) for path in taxonomy.paths])
        weights = np.exp((scores - scores.max()) / temperature)
        probabilities = weights / weights.sum()
        best = sorted(range(len(taxonomy)), key=lambda path: -scores[path])[:top_k]
        assert np.allclose(scores[decoded.rows[row]], scores[best], atol=1e-9)
        assert len(set(decoded.rows[row].tolist())) == min(top_k, len(taxonomy))
        assert np.allclose(decoded.probabilities[row], probabilities[decoded.rows[row]], atol=1e-9)
        for place, answer in enumerate(decoded.rows[row]):
            path = taxonomy.paths[answer]
            for level in range(1, LEVELS + 1):
                through = [p[:level] == path[:level] and len(p) >= level for p in taxonomy.paths]
                expected = probabilities[through].sum() if level <= len(path) else 0.0
                assert decoded.marginals[row, place, level - 1] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(taxonomies, st.integers(0, 2**32 - 1), st.floats(0.1, 200), st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_marginals_never_rise(
    taxonomy: Taxonomy, seed: int, scale: float, temperature: float
) -> None:
    index = PathIndex(taxonomy)
    scores = index.scores(_logits(taxonomy, seed, 4, scale))
    probabilities = path_probabilities(scores, temperature)
    assert np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    for level, marginals in enumerate(index.node_marginals(probabilities)):
        assert marginals.shape == (4, len(taxonomy.nodes[level]))
    assert np.allclose(index.node_marginals(probabilities)[0].sum(axis=1), 1.0, atol=1e-12)
    marginals_4 = index.decode(scores, temperature).marginals[:, 0]
    assert (np.diff(marginals_4, axis=1) <= 0).all()
    assert (marginals_4 <= 1).all()


@settings(deadline=None)
@given(taxonomies, st.integers(0, 2**32 - 1), st.lists(st.floats(0.1, 10), min_size=4, max_size=4))
def test_a_row_is_decoded_as_if_it_were_alone(taxonomy: Taxonomy, seed: int, temperatures: list[float]) -> None:
    index = PathIndex(taxonomy)
    scores = index.scores(_logits(taxonomy, seed, 4, 3.0))
    together = index.decode(scores, np.array(temperatures), 3)
    for row in range(4):
        alone = index.decode(scores[row : row + 1], temperatures[row], 3)
        assert np.array_equal(together.rows[row], alone.rows[0])
        assert np.allclose(together.probabilities[row], alone.probabilities[0], atol=1e-12)
        assert np.allclose(together.marginals[row], alone.marginals[0], atol=1e-12)
