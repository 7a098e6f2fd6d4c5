"""What was fetched and encoded before is not fetched and encoded again: the pipeline, a real host, a real model."""

import asyncio
import io
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consumer.feature_store import FILE
from consumer.fetch import PhotoFetcher
from consumer.fetch.addresses import AddressPolicy
from consumer.fetch.bodies import SMALL_BYTES
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.records import Incoming, Origin
from mmcat.categorizer import Categorizer
from mmcat.listing import Listing, Prepared
from tests.support.scripted_host import Script, ScriptedHost, answer
from tests.support.tiny import TITLES, make_tiny_bundle
from tests.support.waiting import eventually
from tests.unit.consumer.test_pipeline import Broker

EVERY_PORT = tuple(range(1, 65_536))  # which one is not known before the host runs
TOLERANCE = 1e-4  # of a probability


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((120, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


class PhotoHost(PhotoFetcher):
    """The real fetcher, and a real host in its loop that answers 304 to who knows the ETag of a photo.

    Args:
        photos: by path; the ETag is its number.
    """

    def __init__(self, photos: dict[str, int]) -> None:
        super().__init__(AddressPolicy(("127.0.0.1",), (), EVERY_PORT))
        self.photos = photos
        self.host = ScriptedHost({path: self._script(path) for path in photos})
        self.bodies = 0
        self.gate: asyncio.Event | None = None

    def _script(self, path: str) -> Script:
        async def script(writer: asyncio.StreamWriter) -> None:
            number, request = self.photos[path], self.host.requests[-1]
            if self.gate is not None:
                await self.gate.wait()
            if f'If-None-Match: "{number}"'.encode() in request:
                await answer(304)(writer)
            else:
                self.bodies += 1
                await answer(200, photo(number), ETag=f'"{number}"')(writer)

        return script

    async def start(self) -> None:
        await super().start()
        self.loop = asyncio.get_running_loop()
        await self.host.__aenter__()

    async def close(self) -> None:
        await self.host.__aexit__(None, None, None)
        await super().close()


@dataclass
class Bench:
    """A pipeline on the bench, with the disk store."""

    pipeline: Pipeline
    broker: Broker
    host: PhotoHost
    metrics: Metrics
    lease: Lease = field(default_factory=lambda: Lease(("in", 0)))
    offset: int = 0

    def answers(self, *events: tuple[str, str, str]) -> dict[str, dict[str, Any]]:
        """The results of (product, title, path of the photo), all submitted at once."""
        return self.collect(self.submit(*events))

    def submit(self, *events: tuple[str, str, str]) -> list[str]:
        records = []
        for product, title, path in events:
            value = json.dumps({"product_id": product, "title": title, "image_url": f"http://127.0.0.1{path}"}).encode()
            value = value.replace(b"127.0.0.1", f"127.0.0.1:{self.host.host.port}".encode())
            self.lease.start(self.offset)
            records.append((Incoming(Origin("in", 0, self.offset, 1000), product.encode(), value, []), self.lease))
            self.offset += 1
        self.pipeline.submit(records)
        return [product for product, _, _ in events]

    def collect(self, products: Sequence[str]) -> dict[str, dict[str, Any]]:
        assert self.pipeline.budget.wait_empty(30)
        assert self.pipeline.budget.bytes == 0
        values = [json.loads(one.value or b"{}") for one in self.broker.sent if one.topic == "products.categorized"]
        self.broker.sent.clear()
        found = {value["product_id"]: value for value in values}
        assert set(found) == set(products)
        return found

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(scope="module")
def categorizer(tmp_path_factory: pytest.TempPathFactory) -> Categorizer:
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    return Categorizer.load(bundle, device="cpu", precision="fp32")


@pytest.fixture
def photos() -> dict[str, int]:
    """Paths of the host, and which photo is there now."""
    return {"/a": 1, "/b": 2, "/same": 1}


@contextmanager
def bench(categorizer: Categorizer, photos: dict[str, int], folder: Path | None, **batch: int) -> Iterator[Bench]:
    kept = {} if folder is None else {"feature_cache.store": "disk", "feature_cache.folder": folder}
    batches = {f"batch.{name}": value for name, value in {"max_age_ms": 5, **batch}.items()}
    settings, _ = load(environment={}, overrides={"photo.deadline_s": 60, **batches, **kept})
    deaths: list[BaseException] = []
    broker, host, metrics = Broker(), PhotoHost(photos), Metrics()
    pipeline = Pipeline(
        settings, categorizer, host, broker, metrics, on_failed=lambda _: None, on_death=deaths.append
    )  # fmt: skip
    pipeline.start()
    try:
        yield Bench(pipeline, broker, host, metrics)
        assert not deaths
    finally:
        pipeline.stop()


EVENTS = [("p1", TITLES[0], "/a"), ("p2", TITLES[1], "/b")]


def equal(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """But for what belongs to the record and to the moment; the port is another, so the hash of the address is too."""
    exact = ("product_id", "image", "model", "safe_level", "decision", "reused", "rank")
    return (
        all(ours[name] == theirs[name] for name in exact)
        and [node["id"] for node in ours["path"]] == [node["id"] for node in theirs["path"]]
        and abs(ours["probability"] - theirs["probability"]) < TOLERANCE
    )


def test_an_unchanged_photo_is_neither_sent_nor_decoded_nor_encoded_and_answered_alike(
    categorizer: Categorizer, photos: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(categorizer, photos, tmp_path) as cold:
        first = cold.answers(*EVENTS)
        assert cold.host.bodies == 2
        monkeypatch.setattr("mmcat.preparation.decode", None)
        monkeypatch.setattr(categorizer._engine.model.text_encoder, "forward", None)  # type: ignore[attr-defined]
        again = cold.answers(*EVENTS)
        assert cold.host.bodies == 2
        assert cold.count("mmcat_photo_unchanged_total") == 2
        assert cold.count("mmcat_feature_cache_lookups_total", kind="title", outcome="hit") == 2
        assert {name: one["input_hash"] for name, one in first.items()} == {
            name: one["input_hash"] for name, one in again.items()
        }
        assert all(equal(first[name], again[name]) for name in first)


def test_a_photo_that_changed_under_its_address_is_seen(
    categorizer: Categorizer, photos: dict[str, int], tmp_path: Path
) -> None:
    with bench(categorizer, photos, tmp_path) as warm:
        before = warm.answers(*EVENTS)
        photos["/a"] = 3
        changed = warm.answers(*EVENTS)
        assert warm.host.bodies == 3
        again = warm.answers(*EVENTS)
        assert warm.host.bodies == 3
    with bench(categorizer, photos, None) as fresh:
        plain = fresh.answers(*EVENTS)
    assert before["p1"]["probability"] != changed["p1"]["probability"]
    assert abs(changed["p1"]["probability"] - plain["p1"]["probability"]) < 2e-3  # half precision
    assert equal(changed["p1"], again["p1"])


def test_a_known_photo_at_another_address_is_fetched_and_not_encoded(
    categorizer: Categorizer, photos: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(categorizer, photos, tmp_path) as warm:
        first = warm.answers(("p1", TITLES[0], "/a"))
        monkeypatch.setattr("mmcat.preparation.decode", None)
        other = warm.answers(("p1", TITLES[0], "/same"))
        assert warm.host.bodies == 2
        assert equal(first["p1"], other["p1"])


def test_where_the_vectors_are_gone_the_photo_is_fetched_without_condition(
    categorizer: Categorizer, photos: dict[str, int], tmp_path: Path
) -> None:
    with bench(categorizer, photos, tmp_path) as cold:
        first = cold.answers(*EVENTS)
        database = sqlite3.connect(tmp_path / FILE)
        with database:
            gone = database.execute("DELETE FROM vectors WHERE length(value) > 1000").rowcount
        database.close()
        assert gone == 2
        again = cold.answers(*EVENTS)
        assert cold.host.bodies == 4
        assert not any(b"If-None-Match" in request for request in cold.host.host.requests)
        assert all(equal(first[name], again[name]) for name in first)


def test_a_store_that_breaks_costs_work_and_no_answer(
    categorizer: Categorizer, photos: dict[str, int], tmp_path: Path
) -> None:
    with bench(categorizer, photos, tmp_path) as broken:
        first = broken.answers(*EVENTS)
        database = sqlite3.connect(tmp_path / FILE)
        with database:
            database.execute("DROP TABLE kept")
        database.close()
        again = broken.answers(*EVENTS)
        assert all(equal(first[name], again[name]) for name in first)
        assert broken.host.bodies == 4
        assert broken.count("mmcat_feature_cache_failures_total") > 0


def test_listings_with_one_address_share_one_fetch_and_one_encoding(
    categorizer: Categorizer, photos: dict[str, int]
) -> None:
    with bench(categorizer, photos, None, max_listings=6, max_age_ms=10_000) as plain:
        plain.host.gate = asyncio.Event()
        products = plain.submit(*((f"p{number}", TITLES[0], "/a") for number in range(6)))
        plain.host.loop.call_soon_threadsafe(plain.host.gate.set)
        found = plain.collect(products)
        assert (plain.host.bodies, len(plain.host.host.asked)) == (1, 1)
        assert len({one["probability"] for one in found.values()}) == 1
        assert {one["image"] for one in found.values()} == {"used"}
        assert [plain.count("mmcat_shared_work_total", work=work) for work in ("fetch", "photo", "title")] == [5, 5, 5]


def test_a_small_body_is_within_what_its_listing_counts_for(
    categorizer: Categorizer, photos: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    may, prepare = threading.Event(), categorizer.prepare

    def wait(listing: Listing) -> Prepared:
        assert may.wait(60)
        return prepare(listing)

    monkeypatch.setattr(categorizer, "prepare", wait)
    with bench(categorizer, photos, None) as plain:
        plain.host.gate = asyncio.Event()
        before = plain.pipeline.budget.bytes
        products = plain.submit(*((f"p{number}", TITLES[0], "/a") for number in range(6)))
        waiting = plain.pipeline.budget.bytes  # each has room for a photo
        assert waiting > before
        plain.host.loop.call_soon_threadsafe(plain.host.gate.set)
        eventually(lambda: plain.count("mmcat_stage_seconds_count", stage="fetch") == 6, "all are fetched")
        assert len(photo(1)) <= SMALL_BYTES
        assert plain.pipeline.budget.bytes == waiting
        may.set()
        plain.collect(products)
