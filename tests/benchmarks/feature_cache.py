"""How much quicker a backfill is on warm feature caches than on cold ones, the origin of the photos answering 304.

    python -m tests.benchmarks.feature_cache [--listings 32] [--pairs 7] [--engine cpu|eager] [--small] [--json]

The same listings go through the real pipeline: photos of 600 × 600 from a host in a process of its own, over HTTP, with
ETags; real decoding; a model of the research code's shape (ResNet50 at 224 px, BERT-base, titles of 30 tokens, 6
blocks) with random weights; the disk store. Only the broker is not there: outcomes are acknowledged at once. All photos
and titles differ. `off` keeps nothing, `cold` begins with an empty store, `warm` with what `cold` wrote. They take
turns; ratios are medians over pairs with a 95 % bootstrap interval. `--small` is for seeing that it runs.
"""

import argparse
import asyncio
import io
import json
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from PIL import Image

from consumer.fetch import PhotoFetcher
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.records import Incoming, Origin
from mmcat.bundle import LoadedBundle
from mmcat.calibration import Calibration
from mmcat.categorizer import Categorizer
from mmcat.cli.benchmarks.intervals import median, ratio
from mmcat.engines.base import Engine
from mmcat.engines.cpu import CpuEngine
from mmcat.engines.eager import EagerEngine
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.taxonomy import Node, Taxonomy
from mmcat.weights import Weights
from tests.benchmarks.engine import BERT, SMALL_BERT
from tests.support.at_once import AtOnce
from tests.support.tiny import tiny_tokenizer

TOKENS, PHOTO_PX = 30, 600
ARMS = ("off", "cold", "warm")


def main() -> None:
    parser = argparse.ArgumentParser(description="A backfill on warm feature caches against cold ones.")
    parser.add_argument("--listings", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--engine", choices=("cpu", "eager"), default="cpu")
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play:
        asyncio.run(play(given.listings))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))  # stdout is for figures
    if given.small:
        given.listings, given.pairs = 8, 2
    command = [sys.executable, "-m", "tests.benchmarks.feature_cache", "--play", "--listings", str(given.listings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        port = int(host.stdout.readline())
        try:
            found = measure(model(given.engine, given.small), port, given.listings, given.pairs)
        finally:
            host.terminate()
    if given.json:
        print(json.dumps(found, default=asdict))
        return
    for name, rate in found["listings_per_s"].items():
        print(f"{name:<5} {rate:>8.1f} listings/s")
    for name in ("warm_over_cold", "cold_over_off"):
        print(f"{name.replace('_', ' ')}: {found[name]}")
    print(f"{found['kept_bytes_per_listing']:.0f} bytes kept for a listing")


async def play(photos: int) -> None:
    """Be the photo host: tell the port, then answer until killed; 304 to who knows the ETag."""
    bodies = [_photo(number) for number in range(photos)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                number = int(request.split(b" ", 2)[1].strip(b"/"))
                head, body = b"200 OK", bodies[number]
                if b'If-None-Match: "%d"' % number in request:
                    head, body = b"304 Not Modified", b""
                writer.write(
                    b'HTTP/1.1 %s\r\nETag: "%d"\r\nContent-Length: %d\r\n\r\n%s' % (head, number, len(body), body)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def _photo(number: int) -> bytes:
    """Soft colours with grain, about 60 kB: what a shop's photo costs to fetch and to decode."""
    dice = np.random.default_rng(number)
    soft = Image.fromarray(dice.integers(0, 256, (8, 8, 3), np.uint8)).resize((PHOTO_PX, PHOTO_PX))
    noisy = np.asarray(soft) + dice.normal(0, 8, (PHOTO_PX, PHOTO_PX, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def model(engine: str, small: bool) -> Categorizer:
    """Random weights in the research code's shape."""
    torch.manual_seed(0)
    taxonomy = seed_taxonomy()
    bert, px = (SMALL_BERT, 64) if small else (BERT, 224)
    config = ModelConfig(tuple(map(len, taxonomy.classes)), text_encoder=bert, text_pooling="cls", px=px)
    network = CategoryModel(config).eval().requires_grad_(False)
    preprocessing = Preprocessing(px=px, max_tokens=TOKENS)
    runs: Engine
    if engine == "cpu":
        runs = CpuEngine.load(Weights.of(network), preprocessing, torch.get_num_threads())
    else:
        runs = EagerEngine(network, preprocessing, "cpu", "fp32")
    tokenizer = tiny_tokenizer()
    tokenizer = type(tokenizer)(tokenizer._inner, TOKENS)
    loaded = LoadedBundle(
        "seed-shaped",
        0,
        "f" * 64,
        Weights.of(network),
        tokenizer,
        taxonomy,
        preprocessing,
        Calibration({"both": 1.0}, {"both": 0.9}),
        "",
        "",
        {},
        None,
    )
    return Categorizer(loaded, runs)


def seed_taxonomy() -> Taxonomy:
    """57, 552, 3,190 and 404 nodes on the four levels."""

    def path(small: int, sub: int | None) -> tuple[Node, ...]:
        middle = small % 552
        nodes = [Node(1, f"b{middle % 57}", "b"), Node(2, f"m{middle}", "m"), Node(3, f"s{small}", "s")]
        return (*nodes, *([] if sub is None else [Node(4, f"d{sub}", "d")]))

    return Taxonomy([path(small, small if small < 404 else None) for small in range(3_190)])


def measure(categorizer: Categorizer, port: int, listings: int, pairs: int) -> dict[str, Any]:
    """Rates and ratios."""
    took: dict[str, list[float]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory(prefix="mmcat-features-") as folder:
        run(categorizer, port, listings, Path(folder, "warm"))
        kept = sum(file.stat().st_size for file in Path(folder, "warm").iterdir())
        run(categorizer, port, listings, None)
        for turn in range(pairs):
            for name in ARMS if turn % 2 == 0 else ARMS[::-1]:
                where = {"off": None, "cold": Path(folder, f"cold-{turn}"), "warm": Path(folder, "warm")}[name]
                took[name].append(run(categorizer, port, listings, where))
    return {
        "listings_per_s": {name: listings / median(seconds).median for name, seconds in took.items()},
        "warm_over_cold": ratio(took["cold"], took["warm"]),
        "cold_over_off": ratio(took["off"], took["cold"]),
        "kept_bytes_per_listing": kept / listings,
    }


def run(categorizer: Categorizer, port: int, listings: int, folder: Path | None) -> float:
    """Seconds until all listings have their outcomes."""
    overrides: dict[str, Any] = {"photo.allow": ["127.0.0.0/8"], "photo.ports": [port], "photo.deadline_s": 60}
    if folder is not None:
        overrides |= {"feature_cache.store": "disk", "feature_cache.folder": folder}
    settings, _ = load(environment={}, overrides=overrides)
    deaths: list[BaseException] = []
    pipeline = Pipeline(
        settings, categorizer, PhotoFetcher.from_settings(settings.photo), AtOnce(), Metrics(),
        on_failed=lambda _: None, on_death=deaths.append, attempt=1,
    )  # fmt: skip
    pipeline.start()
    lease = Lease(("in", 0))
    records = [(_record(number, port), lease) for number in range(listings)]
    for number in range(listings):
        lease.start(number)
    started = time.perf_counter()
    pipeline.submit(records)
    assert pipeline.budget.wait_empty(600), "not done after ten minutes"
    took = time.perf_counter() - started
    pipeline.stop()
    assert not deaths, deaths
    return took


def _record(number: int, port: int) -> Incoming:
    words = " ".join(str((number + 1) * (place + 7) % 89) for place in range(TOKENS))
    event = {"product_id": f"p{number}", "title": words, "image_url": f"http://127.0.0.1:{port}/{number}"}
    value = json.dumps(event).encode()
    return Incoming(Origin("in", 0, number, 1_750_000_000_000), event["product_id"].encode(), value, [])


if __name__ == "__main__":
    main()
