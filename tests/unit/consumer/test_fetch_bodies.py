"""Large photos are held within a bound, from before they are read until they are decoded, on a real photo host."""

import asyncio
import json
import random
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery import Delivery
from consumer.fetch import LargeBodies, PhotoFetcher
from consumer.fetch.addresses import AddressPolicy
from consumer.fetch.client import FetchLimits
from consumer.fetch.hosts import HostLimits
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.records import Incoming, Origin
from consumer.work import Work
from mmcat.listing import ImageStatus, Listing, Prepared
from tests.support.scripted_host import ScriptedHost, answer
from tests.support.stub_model import StubModel
from tests.support.waiting import eventually
from tests.unit.consumer.test_pipeline import Broker

LOOPBACK = "127.0.0.0/8"
MIB = 2**20


class Holders:
    """Tasks that take room, and keep it until they are let go."""

    def __init__(self, bodies: LargeBodies) -> None:
        self._bodies = bodies
        self.held: dict[int, int] = {}
        self._may: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self, *sizes: int) -> None:
        for size in sizes:
            self._may.append(asyncio.Event())
            self.tasks.append(asyncio.create_task(self._hold(len(self.tasks), size)))

    async def _hold(self, number: int, size: int) -> None:
        room = await self._bodies.room(size)
        self.held[number] = room.size_bytes
        try:
            await self._may[number].wait()
        finally:  # the task keeps the traceback of its cancellation, and with it what this frame holds
            del self.held[number], room

    async def let_go(self, number: int) -> None:
        self._may[number].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@given(
    st.lists(st.tuples(st.integers(1, 150), st.booleans()), min_size=1, max_size=30), st.randoms(use_true_random=False)
)
def test_never_is_more_taken_than_there_is_and_all_who_wait_get_in(
    asked: list[tuple[int, bool]], luck: random.Random
) -> None:
    """Some give up while they wait, or when they have just got in; what is larger than all of it is let in alone."""

    async def scenario() -> None:
        bodies = LargeBodies(100)
        holders = Holders(bodies)
        holders.begin(*(size for size, _ in asked))
        for turns in range(2):
            for number, (_, patient) in enumerate(asked):
                if not patient and number % 2 == turns:
                    holders.tasks[number].cancel()
            await asyncio.sleep(0)
        await holders.settle()
        waiting = {number for number, (_, patient) in enumerate(asked) if patient}
        while waiting:
            assert holders.held, "nobody gets in"
            assert bodies.bytes == sum(holders.held.values())
            assert bodies.bytes <= 100 or len(holders.held) == 1
            gone = luck.choice(sorted(holders.held))
            waiting.discard(gone)
            await holders.let_go(gone)
        assert bodies.bytes == 0

    asyncio.run(scenario())


def test_who_comes_first_is_not_passed_by() -> None:
    async def scenario() -> None:
        holders = Holders(LargeBodies(100))
        holders.begin(60, 80, 10)
        await holders.settle()
        assert list(holders.held) == [0], "the small one would have fitted"
        await holders.let_go(0)
        assert list(holders.held) == [1, 2]
        await holders.let_go(1)

    asyncio.run(scenario())


def test_large_photos_wait_for_each_other_unread_and_small_ones_for_nobody() -> None:
    release, photo = asyncio.Event(), b"\xff\xd8" + b"photo" * 10_000
    half = b"HTTP/1.1 200 X\r\nContent-Length: 600000\r\n\r\n" + b"x" * 300_000

    async def large(writer: asyncio.StreamWriter) -> None:
        writer.write(half)
        await writer.drain()
        await release.wait()
        writer.write(b"x" * 300_000)
        await writer.drain()

    async def whole(fetcher: PhotoFetcher, url: str, until: float) -> int:
        return len((await fetcher.fetch(url, until)).body or b"")

    async def scenario() -> None:
        async with ScriptedHost({"/small": answer(200, photo), "/large": large}) as server:
            policy, bodies = AddressPolicy(allow=[LOOPBACK], ports=[server.port]), LargeBodies(700_000)
            async with PhotoFetcher(policy, FetchLimits(silence_s=600), bodies=bodies) as fetcher:
                until = time.monotonic() + 600
                urls = [server.url(f"/large?{number}") for number in range(2)]
                held = [asyncio.create_task(whole(fetcher, url, until)) for url in urls]
                while server.open_now < 2 or not bodies.bytes:
                    await asyncio.sleep(0.01)
                for _ in range(20):
                    assert (await fetcher.fetch(server.url("/small", "localhost"), until)).body == photo
                assert bodies.bytes == 600_000
                assert not any(task.done() for task in held)
                release.set()
                assert await asyncio.gather(*held) == [600_000] * 2
                while bodies.bytes:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_host_is_not_blamed_for_the_time_in_which_we_let_it_wait() -> None:
    async def scenario() -> None:
        async with ScriptedHost({"/large": answer(200, b"x" * 400_000), "/small": answer(200, b"x")}) as server:
            policy, bodies = AddressPolicy(allow=[LOOPBACK], ports=[server.port]), LargeBodies(400_000)
            strict = HostLimits(failures_to_open=1, set_aside_s=3_600)
            async with PhotoFetcher(policy, FetchLimits(silence_s=600), strict, bodies=bodies) as fetcher:
                everything = await bodies.room(400_000)
                late = await fetcher.fetch(server.url("/large"), time.monotonic() + 0.7)
                assert late.detail == "not there in time"
                assert (await fetcher.fetch(server.url("/small"), time.monotonic() + 60)).body == b"x"
                del everything
                assert len((await fetcher.fetch(server.url("/large"), time.monotonic() + 60)).body or b"") == 400_000

    asyncio.run(scenario())


class _SlowDecoder(StubModel):
    """Decodes when it may; remembers how much there was each time."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.began = threading.Event()

    def prepare(self, listing: Listing) -> Prepared:
        self.began.set()
        assert self.may.wait(60)
        return super().prepare(listing)


@pytest.fixture
def host() -> Iterator[str]:
    """A host whose photos are of 4 MiB, and cost this process nothing but once."""
    photo = b"\xff\xd8" + bytes(4 * MIB)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if "told" in self.path:
                self.send_header("Content-Length", str(len(photo)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(photo)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Nothing to say."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 100

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("announced", ["told", "untold"])
def test_many_large_photos_and_a_slow_decoder_stay_within_the_bound(host: str, announced: str) -> None:
    """30 photos of 4 MiB, of which at most 12 MiB may be held: read, and waiting for a decoder."""
    overrides = {"photo.deadline_s": 60, "photo.per_host": 40, "photo.silence_timeout_s": 60, "photo.allow": [LOOPBACK]}
    ports = {"photo.ports": [int(host.rpartition(":")[2])]}
    bounds = {"limits.in_flight_bytes": 24 * MIB, "review.audit_share": 0}
    chosen, _ = load(environment={}, overrides={**bounds, **overrides, **ports})
    bodies, model, broker, metrics = LargeBodies(chosen.limits.large_photo_bytes), _SlowDecoder(), Broker(), Metrics()
    deaths: list[BaseException] = []
    fetcher = PhotoFetcher.from_settings(chosen.photo, bodies)
    pipeline = Pipeline(
        chosen,
        model,
        fetcher,
        cast(Delivery[Work], broker),
        metrics,
        on_failed=lambda _: None,
        on_death=deaths.append,
        bodies=bodies,
    )
    pipeline.start()
    lease, tasted = Lease(("in", 0)), 0
    tracemalloc.start()
    try:
        for number in range(30):
            url = f"{host}/{announced}/{number}.jpg"
            value = json.dumps({"product_id": f"p{number}", "title": "x", "image_url": url}).encode()
            lease.start(number)
            pipeline.submit([(Incoming(Origin("in", 0, number, 0), None, value, []), lease)])
        assert model.began.wait(60)
        eventually(lambda: bodies.bytes > 6 * MIB, "as much is read as may be")
        assert pipeline.budget.bytes >= bodies.bytes + 30 * MIB // 4, "all is counted"
        model.may.set()
        while not pipeline.budget.wait_empty(0.01):
            tasted = max(tasted, bodies.bytes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pipeline.stop()
    assert not deaths
    assert [json.loads(one.value or b"")["image"] for one in broker.sent] == [ImageStatus.USED] * 30
    assert tasted <= 12 * MIB
    # The bound, one photo put together from its pieces, and of each other what its connection has buffered.
    assert peak < (12 + 8 + 30 * 0.75) * MIB
    assert pipeline.budget.bytes == 0
