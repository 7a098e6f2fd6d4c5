"""The library as its users meet it: a pure function of each listing, whatever stands beside it in the batch."""

import io
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import mmcat
from mmcat import bundle
from mmcat.categorizer import Categorizer
from mmcat.engines.base import WHOLE, Batch, Encoded, logits
from mmcat.engines.eager import EagerEngine
from mmcat.errors import ModelError
from mmcat.listing import Candidate, Decision, ImageStatus, Listing, Prepared, Result
from tests.support.tiny import PX, TITLES, make_tiny_bundle


def _photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((120, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


LISTINGS = [
    *(Listing(f"both-{n}", title, _photo(n)) for n, title in enumerate(TITLES)),
    *(Listing(f"text-{n}", title) for n, title in enumerate(TITLES)),
    *(Listing(f"photo-{n}", image=_photo(n)) for n in range(4)),
    Listing("nothing"),
    Listing("late", "puma men", image_status=ImageStatus.PENDING),
    Listing("broken", "puma men", b"GIF89a"),
    Listing("long", "puma " * 200),
]


def _ids(candidate: Result | Candidate) -> tuple[str, ...]:
    return tuple(node.id for node in candidate.path)


def _same(a: Result, b: Result, tolerance: float = 1e-4) -> bool:
    return (
        _ids(a) == _ids(b)
        and abs(a.probability - b.probability) < tolerance
        and all(abs(x.probability - y.probability) < tolerance for x, y in zip(a.path, b.path, strict=True))
        and (a.safe_level, a.decision, a.image, a.listing_id) == (b.safe_level, b.decision, b.image, b.listing_id)
    )


def test_every_listing_gets_one_result_in_order(categorizer: Categorizer) -> None:
    results = categorizer.categorize(LISTINGS * 2)
    assert [result.listing_id for result in results] == [listing.id for listing in LISTINGS * 2]
    for result in results:
        path = categorizer.taxonomy.paths[categorizer.taxonomy.index([node.id for node in result.path])]
        assert [(n.level, n.name) for n in result.path] == [(n.level, n.name) for n in path]
        assert 0 < result.probability <= result.path[-1].probability <= result.path[0].probability <= 1
        assert (result.decision is Decision.REVIEW) == (result.safe_level == 0) == (result.reason == "uncertain")
        assert result.safe_level <= len(result.path)
        likely = [result.probability, *(other.probability for other in result.alternatives)]
        assert likely == sorted(likely, reverse=True)
        assert len({tuple(n.id for n in p) for p in [result.path, *(o.path for o in result.alternatives)]}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": "sequence", "grid": 2},
        {"keys": "sequence", "grid": 2, "image_layers": "layer3+layer4", "text_pooling": "layers"},
        {"keys": "sequence"},
        {"classes": (12,)},
    ],
    ids=["grid", "grid of two stages", "one cell", "flat"],
)
def test_every_member_of_the_family_answers_a_listing_alone_as_among_others(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    categorizer = Categorizer.load(make_tiny_bundle(tmp_path / "bundle", **changes), device="cpu", precision="fp32")
    together = categorizer.categorize(LISTINGS)
    assert len({result.path for result in together}) > 3
    for listing, result in zip(LISTINGS, together, strict=True):
        assert _same(categorizer.categorize([listing])[0], result)


def test_answers_differ_and_both_decisions_occur(categorizer: Categorizer) -> None:
    results = categorizer.categorize(LISTINGS)
    assert len({result.path for result in results}) > 3
    assert {result.decision for result in results} == set(Decision)


def test_the_status_of_the_photo_comes_back(categorizer: Categorizer) -> None:
    status = {result.listing_id: result.image for result in categorizer.categorize(LISTINGS)}
    assert status["both-0"] is status["photo-0"] is ImageStatus.USED
    assert status["text-0"] is status["nothing"] is ImageStatus.ABSENT
    assert status["late"] is ImageStatus.PENDING
    assert status["broken"] is ImageStatus.UNDECODABLE


def test_an_answer_does_not_depend_on_its_batch_mates(categorizer: Categorizer) -> None:
    together = categorizer.categorize(LISTINGS)
    reversed_ = categorizer.categorize(LISTINGS[::-1])[::-1]
    for listing, result, other in zip(LISTINGS, together, reversed_, strict=True):
        assert _same(result, categorizer.categorize([listing])[0])
        assert _same(result, other)


def test_preparing_in_many_threads_gives_what_one_thread_gives(categorizer: Categorizer) -> None:
    with ThreadPoolExecutor(8) as pool:
        prepared = list(pool.map(categorizer.prepare, LISTINGS * 5))
    for one, listing in zip(prepared, LISTINGS * 5, strict=True):
        alone = categorizer.prepare(listing)
        assert (one.text, one.image) == (alone.text, alone.image)
        assert (one.pixels is None) == (alone.pixels is None)
        if one.pixels is not None and alone.pixels is not None:
            assert np.array_equal(one.pixels, alone.pixels)


@pytest.mark.parametrize(("modality", "fusion"), [("text", "cross"), ("image", "cross"), ("both", "concat")])
def test_every_member_of_the_family_is_served(tmp_path: Path, modality: str, fusion: str) -> None:
    folder = make_tiny_bundle(tmp_path / "b", modality=modality, fusion=fusion)  # type: ignore[arg-type]  # by name
    categorizer = Categorizer.load(folder, device="cpu")
    categorizer.warm_up()
    results = categorizer.categorize(LISTINGS)
    assert len(results) == len(LISTINGS)
    assert all(_same(results[n], categorizer.categorize([LISTINGS[n]])[0]) for n in (0, 10, 20, 24))
    by_id = {result.listing_id: result for result in results}
    if modality == "text":
        assert {result.image for result in results} == {ImageStatus.ABSENT}
        assert by_id["both-0"].path == by_id["text-0"].path
    if modality == "image":
        assert by_id["text-0"].path == by_id["nothing"].path
        assert by_id["both-1"].path == by_id["photo-1"].path


def test_bf16_agrees_with_fp32(categorizer: Categorizer, tiny_bundle: Path) -> None:
    half = Categorizer.load(tiny_bundle, device="cpu", precision="bf16")
    assert (half.info.precision, categorizer.info.precision) == ("bf16", "fp32")
    pairs = list(zip(categorizer.categorize(LISTINGS, 12), half.categorize(LISTINGS, 12), strict=True))
    for exact, rough in pairs:
        likely = {_ids(exact): exact.probability}
        likely |= {_ids(other): other.probability for other in exact.alternatives}
        assert abs(likely[_ids(rough)] - rough.probability) < 0.05
        assert exact.probability - likely[_ids(rough)] < 0.05  # where the answers differ, it was a close call
    assert sum(_ids(exact) == _ids(rough) for exact, rough in pairs) >= 0.9 * len(pairs)


def test_the_engine_equals_the_plain_model(categorizer: Categorizer, tiny_bundle: Path) -> None:
    import torch

    loaded = bundle.load(tiny_bundle)
    assert loaded.tokenizer is not None
    ids, mask = loaded.tokenizer.encode(list(TITLES[:2]))
    pixels = np.stack([categorizer.prepare(listing).pixels for listing in LISTINGS[:2]])  # type: ignore[misc]  # used
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normal = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        expected = loaded.model(torch.from_numpy(ids), torch.from_numpy(mask), normal)
    ones = np.ones(2, bool)
    engine = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    for ours, theirs in zip(logits(engine, Batch.of(ids, mask, pixels, ones, ones)), expected, strict=True):
        assert ours.dtype == np.float32
        assert np.allclose(ours, theirs.numpy(), atol=1e-4)


def test_model_info_names_what_answered(categorizer: Categorizer, tiny_bundle: Path) -> None:
    info = categorizer.info
    assert (info.name, info.engine, info.precision) == ("tiny", "eager-cpu", "fp32")
    assert info.fingerprint == bundle.fingerprint(tiny_bundle)
    assert info.taxonomy_digest == categorizer.taxonomy.digest


def test_no_listings_no_results(categorizer: Categorizer) -> None:
    assert categorizer.categorize([]) == categorizer.categorize_prepared([]) == []


@pytest.mark.parametrize("top_k", [1, 2, 12, 50])
def test_top_k_counts_the_answer(categorizer: Categorizer, top_k: int) -> None:
    result = categorizer.categorize(LISTINGS[:1], top_k=top_k)[0]
    assert len(result.alternatives) == min(top_k, 12) - 1
    assert _same(result, categorizer.categorize(LISTINGS[:1], top_k=3)[0])


def test_thresholds_and_temperatures_of_the_modality_decide(categorizer: Categorizer, tiny_bundle: Path) -> None:
    loaded = bundle.load(tiny_bundle)
    engine = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    one = replace(loaded.calibration, temperatures={"both": 1.5, "text": 1.5})
    other = Categorizer(replace(loaded, calibration=one), engine)
    titles = [listing for listing in LISTINGS if listing.id.startswith("text-")]
    for warm, cool in zip(categorizer.categorize(titles), other.categorize(titles), strict=True):
        assert warm.path[0].id == cool.path[0].id
        assert warm.probability < cool.probability  # "text" is fitted at 2.0 there


class _Broken:
    """An engine that answers with what it was told to."""

    name, precision, numerics = "broken", "fp32", "fp32"

    def __init__(self, answer: list[npt.NDArray[np.float32]]) -> None:
        self._logits = answer

    def encode(self, batch: Batch) -> Encoded:
        return Encoded(None, None, None, batch.has_text, batch.has_image)

    def fuse(self, encoded: Encoded, shown: Sequence[tuple[bool, bool]] = WHOLE) -> list[list[npt.NDArray[Any]]]:
        return [self._logits] * len(shown)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_engine_that_gives_no_whole_answer_is_an_error(tiny_bundle: Path, rows: int, value: float) -> None:
    loaded = bundle.load(tiny_bundle)
    answer = [np.full((rows, len(keys)), value, np.float32) for keys in loaded.taxonomy.classes]
    with pytest.raises(ModelError, match="no finite scores for a batch of 2"):
        Categorizer(loaded, _Broken(answer)).categorize([Listing("a"), Listing("b")])
    with pytest.raises(ModelError, match="no finite scores for a batch of 2"):
        Categorizer(loaded, _Broken(answer), evidence=True).categorize([Listing("a"), Listing("b")])


@pytest.mark.parametrize("shape", [(PX, PX), (PX + 1, PX, 3), (PX, PX, 4)])
def test_pixels_of_another_model_are_refused(categorizer: Categorizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="this model takes"):
        categorizer.categorize_prepared([Prepared("a", "", np.zeros(shape, np.uint8), ImageStatus.USED)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "'tpu'"),
        ({"device": "meta"}, "'meta' is not supported"),
        ({"device": "cuda:99"}, "'cuda:99' is not there"),
        ({"engine": "warp"}, "engine 'warp'"),
        ({"precision": "int4"}, "precision 'int4'"),
        ({"threads": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(tiny_bundle: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Categorizer.load(tiny_bundle, **options)  # type: ignore[arg-type]  # options by name
    with pytest.raises(ModelError, match="top_k"):
        Categorizer.load(tiny_bundle).categorize([Listing("a")], top_k=0)


def test_the_package_gives_its_names_without_loading_torch_until_then() -> None:
    assert set(mmcat.__all__) <= set(dir(mmcat))
    assert all(getattr(mmcat, name).__name__ == name for name in mmcat.__all__)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = mmcat.nothing_here
    script = (
        "import sys, mmcat; assert not {'torch', 'numpy'} & set(sys.modules);"
        "mmcat.Listing, mmcat.Taxonomy, mmcat.BundleError; assert 'torch' not in sys.modules;"
        "from mmcat import preparation, photos, text, paths, calibration; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
