"""Work not done twice in the library: equal photos and titles of a batch, and what a store keeps from before."""

import hashlib
import io
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmcat import bundle
from mmcat.categorizer import Categorizer
from mmcat.engines.base import Batch, Encoded
from mmcat.engines.cpu import CpuEngine
from mmcat.engines.eager import EagerEngine
from mmcat.features import Features, fingerprints
from mmcat.listing import ImageStatus, Listing, Prepared, Result
from mmcat.photos import decode
from mmcat.shared_decoding import SharedDecoding
from tests.support.tiny import TITLES, make_tiny_bundle

EXACT = 1e-4  # of a probability: what an answer may owe to its batch-mates; seen are 2e-5
HALF = 2e-3  # of a probability: what half precision may change; seen are 4e-4

FAMILY: dict[str, dict[str, Any]] = {
    "pooled": {},
    "tokens and cells": {"keys": "sequence", "grid": 2, "image_layers": "layer3+layer4", "text_pooling": "layers"},
    "text": {"modality": "text"},
    "image": {"modality": "image"},
}


def photo(seed: int, quality: int = 75) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((120, 90)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


PHOTOS = [photo(seed) for seed in range(4)]
IMAGES = [None, *PHOTOS[:3], b"GIF89a"]
Kind = tuple[str, int]
KINDS = st.tuples(st.sampled_from(["", *TITLES[:4]]), st.integers(0, len(IMAGES) - 1))


class Memory:
    """A store in memory, which may forget at any moment."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.asked: list[tuple[str, bool]] = []

    def get(self, kind: str, keys: Sequence[bytes]) -> list[bytes | None]:
        found = [self.kept.get(key) for key in keys]
        self.asked += [(kind, value is not None) for value in found]
        return found

    def put(self, items: Mapping[bytes, bytes]) -> None:
        self.kept.update(items)


class Counting:
    """An engine that says how much it was given to encode."""

    def __init__(self, engine: EagerEngine | CpuEngine) -> None:
        self._engine = engine
        self.name, self.precision, self.numerics, self.fuse = (
            engine.name,
            engine.precision,
            engine.numerics,
            engine.fuse,
        )
        self.encoded: list[tuple[int, int]] = []

    def encode(self, batch: Batch) -> Encoded:
        titles = 0 if batch.ids is None else len(batch.ids)
        self.encoded.append((titles, 0 if batch.pixels is None else len(batch.pixels)))
        return self._engine.encode(batch)


MADE = [
    *(("pooled", "eager"), ("pooled", "cpu"), ("tokens and cells", "eager"), ("tokens and cells", "cpu")),
    *(("text", "eager"), ("image", "cpu")),
]
Made = tuple[Categorizer, Counting]


@pytest.fixture(scope="module", params=MADE, ids=" ".join)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every member of the family on both engines."""
    name, engine = request.param
    loaded = bundle.load(make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "bundle", **FAMILY[name]))
    runs: EagerEngine | CpuEngine
    if engine == "cpu":
        runs = CpuEngine.load(loaded.weights, loaded.preprocessing, threads=2)
    else:
        runs = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    counting = Counting(runs)
    return Categorizer(loaded, counting, evidence=True), counting


def likely(result: Result) -> dict[tuple[str, ...], float]:
    nodes = [(result.path, result.probability), *((one.path, one.probability) for one in result.alternatives)]
    return {tuple(node.id for node in path): probability for path, probability in nodes}


def differ(ours: Sequence[Result], theirs: Sequence[Result]) -> float:
    """The largest difference of a path's probability; all paths are asked for."""
    worst = 0.0
    for one, other in zip(ours, theirs, strict=True):
        assert (one.listing_id, one.image) == (other.listing_id, other.image)
        mine, its = likely(one), likely(other)
        assert mine.keys() == its.keys()
        worst = max([worst, *(abs(mine[path] - its[path]) for path in mine)])
    return worst


def of(kinds: Sequence[Kind]) -> list[Listing]:
    return [Listing(str(number), title, IMAGES[image]) for number, (title, image) in enumerate(kinds)]


def answer(categorizer: Categorizer, listings: Sequence[Listing]) -> list[Result]:
    return categorizer.categorize(listings, top_k=12)


@given(kinds=st.lists(KINDS, min_size=1, max_size=12))
@settings(max_examples=8, deadline=None)
def test_equal_photos_and_titles_are_encoded_once_and_answered_as_if_alone(made: Made, kinds: list[Kind]) -> None:
    categorizer, engine = made
    categorizer.keep_features(None)
    listings = of(kinds)
    engine.encoded.clear()
    together = answer(categorizer, listings)
    config = categorizer._config
    titles = {one.title for one in listings if one.title} if config.reads_text else set()
    photos = {one.image for one in listings if one.image in PHOTOS} if config.reads_image else set()
    assert engine.encoded == [(len(titles), len(photos))]
    alone = [answer(categorizer, [listing])[0] for listing in listings]
    assert differ(together, alone) < EXACT


@given(
    first=st.lists(KINDS, min_size=1, max_size=6),
    second=st.lists(KINDS, min_size=1, max_size=6),
    forgets=st.lists(st.integers(0, 20), max_size=6),
)
@settings(max_examples=8, deadline=None)
def test_an_answer_does_not_depend_on_what_the_store_holds(
    made: Made, first: list[Kind], second: list[Kind], forgets: list[int]
) -> None:
    categorizer, _ = made
    one, other = of(first), of(second)
    store = Memory()
    categorizer.keep_features(store)
    answer(categorizer, one)
    for place in forgets:
        if place < len(store.kept):
            del store.kept[list(store.kept)[place]]
    warm = answer(categorizer, other)
    categorizer.keep_features(Memory())
    assert differ(warm, answer(categorizer, other)) < EXACT
    categorizer.keep_features(None)
    assert differ(warm, answer(categorizer, other)) < HALF


def test_what_is_kept_is_neither_decoded_nor_encoded_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    categorizer, engine = made
    categorizer.keep_features(Memory())
    listings = [Listing(str(number), TITLES[number], PHOTOS[number]) for number in range(4)]
    answer(categorizer, listings)
    engine.encoded.clear()
    monkeypatch.setattr("mmcat.preparation.decode", None)
    again = answer(categorizer, listings)
    assert engine.encoded == [(0, 0)]
    assert {result.image for result in again} == {
        ImageStatus.USED if categorizer._config.reads_image else ImageStatus.ABSENT
    }


def test_a_warm_up_runs_the_encoders_whatever_is_kept(made: Made) -> None:
    categorizer, engine = made
    categorizer.keep_features(Memory())
    categorizer.warm_up()
    engine.encoded.clear()
    categorizer.warm_up()
    assert engine.encoded == [(int(categorizer._config.reads_text), int(categorizer._config.reads_image))]


# ── Keys and values ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fingerprint_is_of_the_encoder_and_not_of_the_fusion(tiny_bundle: Path, tmp_path: Path) -> None:
    loaded = bundle.load(tiny_bundle)
    before = fingerprints(loaded, "eager-cpu", "fp32")
    assert before == fingerprints(bundle.load(tiny_bundle), "eager-cpu", "fp32")
    for parameter in loaded.model.members.parameters():
        parameter.data.add_(1)
    assert fingerprints(replace(loaded, fingerprint="0" * 64), "eager-cpu", "fp32") == before
    preprocessing = loaded.preprocessing
    for changed in (replace(preprocessing, fit="crop"), replace(preprocessing, scaled_decode=True)):
        other = replace(loaded, preprocessing=changed)
        assert fingerprints(other, "eager-cpu", "fp32")["image"] != before["image"]
        assert fingerprints(other, "eager-cpu", "fp32")["text"] == before["text"]
    for engine, precision in (("openvino-cpu", "fp32"), ("eager-cpu", "bf16")):
        assert not set(fingerprints(loaded, engine, precision).values()) & set(before.values())
    assert loaded.model.image_encoder is not None
    next(loaded.model.image_encoder.parameters()).data.view(-1)[0] += 1e-6
    assert fingerprints(loaded, "eager-cpu", "fp32")["image"] != before["image"]


@pytest.mark.parametrize("damaged", [b"", b"x", b"\0" * 63, b"\0" * (64 * 2 * 2)])
def test_a_value_of_another_shape_is_not_there(damaged: bytes) -> None:
    store = Memory()
    features = Features(store, {"image": b"i", "text": b"t"}, 1, 64, 32)
    features.keep({}, {b"d" * 32: np.ones((1, 64), np.float16)})
    [found] = features.photos([b"d" * 32])
    assert found is not None
    assert found.vectors.tolist() == [[1.0] * 64]
    store.kept = dict.fromkeys(store.kept, damaged)
    assert features.photos([b"d" * 32]) == [None]


def test_what_half_precision_cannot_hold_is_not_kept() -> None:
    store = Memory()
    features = Features(store, {"image": b"i", "text": b"t"}, 1, 2, 2)
    features.keep({"a": np.array([[1, np.inf]], np.float16)}, {b"d": np.array([[np.nan, 1]], np.float16)})
    assert not store.kept


def test_vectors_beyond_half_precision_are_answered_all_the_same(tiny_bundle: Path) -> None:
    loaded = bundle.load(tiny_bundle)
    pooled = loaded.model.image_encoder
    assert pooled is not None
    pooled.trunk.layer4[2].bn3.bias.data.fill_(1e6)
    categorizer = Categorizer(loaded, EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32"))
    listings = [Listing("a", "puma", PHOTOS[0])]
    plain = answer(categorizer, listings)
    store = Memory()
    categorizer.keep_features(store)
    assert differ(plain, answer(categorizer, listings)) < HALF
    assert len(store.kept) == 1  # the title


# ── Decoding once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_photo_in_use_is_decoded_once_and_forgotten_with_its_last_listing(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = bundle.load(tiny_bundle)
    decoding = SharedDecoding(loaded.preprocessing)
    decoded, gate = [], threading.Event()

    def noted(data: bytes, *rest: Any, **named: Any) -> Any:
        decoded.append(data)
        assert gate.wait(60)
        return decode(data, *rest, **named)

    monkeypatch.setattr("mmcat.preparation.decode", noted)
    digest = hashlib.sha256(PHOTOS[0]).digest()
    listing = Listing("a", image=PHOTOS[0])
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(decoding.photo, listing, digest) for _ in range(8)]
        gate.set()
        found = [one.result() for one in waiting]
    assert len(decoded) == 1
    assert len({id(pixels) for pixels, _ in found}) == 1
    broken = Listing("b", image=b"GIF89a")
    assert decoding.photo(broken, b"b") == (None, ImageStatus.UNDECODABLE)
    del found, waiting
    decoding.photo(listing, digest)
    assert decoded.count(PHOTOS[0]) == 2


def test_pixels_without_a_digest_are_each_their_own(categorizer: Categorizer) -> None:
    prepared = [categorizer.prepare(Listing(str(n), "puma", PHOTOS[n % 2])) for n in range(4)]
    nameless = [Prepared(one.listing_id, one.text, one.pixels, one.image) for one in prepared]
    assert differ(
        categorizer.categorize_prepared(prepared, 12), categorizer.categorize_prepared(nameless, 12)
    ) < EXACT  # fmt: skip
