"""What an answer rests on: shares that add up, nothing for what is not there, encoders that run once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcat import bundle
from mmcat.categorizer import Categorizer
from mmcat.engines.base import Batch, logits
from mmcat.engines.eager import EagerEngine
from mmcat.evidence import COALITIONS, log_probabilities, shapley
from mmcat.listing import Evidence, Listing
from mmcat.paths import path_probabilities
from tests.support.tiny import TITLES, make_tiny_bundle
from tests.unit.mmcat.test_categorizer import LISTINGS, _same

nats = st.floats(-50, 0, allow_nan=False)


@given(st.lists(st.tuples(nats, nats, nats, nats), min_size=1, max_size=5))
def test_shapley_values_add_up_to_what_both_say_more_than_none(rows: list[tuple[float, ...]]) -> None:
    both, text, image, none = np.array(rows).T
    of_text, of_image = shapley(dict(zip(COALITIONS, (both, text, image, none), strict=True)))
    assert np.allclose(of_text + of_image, both - none, atol=1e-9)


@given(nats, nats, nats, nats)
def test_who_adds_nothing_gets_nothing_and_equals_get_the_same(
    both: float, one: float, other: float, none: float
) -> None:
    def values(*reached: float) -> list[float]:
        arrays = (np.array([value]) for value in reached)
        return [float(value[0]) for value in shapley(dict(zip(COALITIONS, arrays, strict=True)))]

    assert values(both, both, none, none) == pytest.approx([both - none, 0.0])
    assert values(both, one, one, none) == pytest.approx([(both - none) / 2] * 2)
    assert values(both, one, other, none) == pytest.approx(values(both, other, one, none)[::-1])


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_shares_are_shares(text: float, image: float) -> None:
    shares = Evidence(text, image).shares()
    assert sum(shares.values()) == pytest.approx(1.0 if text or image else 0.0)
    assert all(0 <= share <= 1 for share in shares.values())
    assert (shares["text"] > shares["image"]) <= (text > image or max(text, image) <= 0)


def test_the_log_probability_of_a_path_is_exact_even_where_it_rounds_to_none() -> None:
    scores, temperatures = np.array([[0.0, -3.0, 1.0], [0.0, -2_000.0, -5.0]]), np.array([2.0, 1.0])
    found = log_probabilities(scores, temperatures, np.array([1, 1]))
    assert found[0] == pytest.approx(np.log(path_probabilities(scores, temperatures)[0, 1]))
    assert found[1] == pytest.approx(-2_000.0, abs=0.01)


@pytest.fixture(scope="module")
def explaining(tiny_bundle: Path) -> Categorizer:
    return Categorizer.load(tiny_bundle, device="cpu", precision="fp32", evidence=True)


def test_evidence_changes_no_answer(categorizer: Categorizer, explaining: Categorizer) -> None:
    for plain, told in zip(categorizer.categorize(LISTINGS), explaining.categorize(LISTINGS), strict=True):
        assert _same(plain, told)
        assert plain.evidence is None
        assert told.evidence is not None


def test_a_modality_that_is_not_there_has_no_share(explaining: Categorizer) -> None:
    found = {result.listing_id: result.evidence for result in explaining.categorize(LISTINGS)}
    assert all(found[f"text-{n}"].image == 0.0 for n in range(3))  # type: ignore[union-attr]  # told above
    assert all(found[f"photo-{n}"].text == 0.0 for n in range(3))  # type: ignore[union-attr]
    assert found["nothing"] == Evidence(0.0, 0.0)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_model_of_one_modality_rests_on_it_alone(tmp_path: Path, modality: str) -> None:
    folder = make_tiny_bundle(tmp_path / "b", modality=modality)  # type: ignore[arg-type]  # by name
    results = Categorizer.load(folder, device="cpu", evidence=True).categorize(LISTINGS[:6])
    for result in results:
        assert result.evidence is not None
        assert result.evidence.shares()[modality] == 1.0


def test_the_encoders_run_once_for_all_coalitions(tiny_bundle: Path, categorizer: Categorizer) -> None:
    loaded = bundle.load(tiny_bundle)
    runs = []
    for encoder in (loaded.model.text_encoder, loaded.model.image_encoder):
        assert encoder is not None
        encoder.register_forward_hook(lambda module, *_: runs.append(type(module).__name__))
    assert loaded.tokenizer is not None
    ids, mask = loaded.tokenizer.encode(list(TITLES[:2]))
    pixels = np.stack([categorizer.prepare(listing).pixels for listing in LISTINGS[:2]])  # type: ignore[misc]  # used
    ones, none = np.ones(2, bool), np.zeros(2, bool)
    engine = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    found = engine.fuse(engine.encode(Batch.of(ids, mask, pixels, ones, ones)), COALITIONS)
    assert sorted(runs) == ["ImageEncoder", "TextEncoder"]
    alone = [
        Batch.of(ids, mask, pixels, ones, ones),
        Batch.of(ids, mask, None, ones, none),
        Batch.of(ids, mask, pixels, none, ones),
    ]
    for shown, batch in zip(found[:3], alone, strict=True):
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(shown, logits(engine, batch), strict=True))


def test_what_is_withheld_is_as_if_the_listing_did_not_have_it(
    explaining: Categorizer, categorizer: Categorizer
) -> None:
    def log_likely(listing: Listing) -> float:
        result = categorizer.categorize([listing], top_k=12)[0]
        paths = [(result.path, result.probability), *((one.path, one.probability) for one in result.alternatives)]
        return float(np.log({tuple(node.id for node in path): chance for path, chance in paths}[answer]))

    listing = LISTINGS[0]
    told = explaining.categorize([listing])[0]
    answer = tuple(node.id for node in told.path)
    both, text = log_likely(listing), log_likely(Listing("title", listing.title))
    image, none = log_likely(Listing("photo", image=listing.image)), log_likely(Listing("nothing"))
    assert told.evidence is not None
    assert told.evidence.text == pytest.approx((text - none + both - image) / 2, abs=1e-3)
    assert told.evidence.image == pytest.approx((image - none + both - text) / 2, abs=1e-3)
