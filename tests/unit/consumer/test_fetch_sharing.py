"""Fetches that are equal are one, and a photo that has not changed is not sent again: against a real server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from consumer.fetch import Fetched, PhotoFetcher, Validators
from consumer.fetch.addresses import AddressPolicy
from consumer.fetch.client import FetchLimits
from consumer.fetch.egress import HostHeaders
from consumer.fetch.hosts import HostLimits
from mmcat.listing import ImageStatus
from tests.support.scripted_host import Script, ScriptedHost, answer

PHOTO = b"\xff\xd8" + b"photo" * 1_000
ETAG = '"one"'


def on_host(
    scripts: dict[str, Script], scenario: Callable[[ScriptedHost, PhotoFetcher], Awaitable[None]], **options: object
) -> None:
    """Run a scenario against a host of these scripts."""

    async def run() -> None:
        async with ScriptedHost(scripts) as server:
            policy = AddressPolicy(allow=["127.0.0.0/8"], ports=[server.port])
            async with PhotoFetcher(policy, FetchLimits(), **options) as fetcher:  # type: ignore[arg-type]  # by name
                await scenario(server, fetcher)

    asyncio.run(run())


class Gate:
    """A script that waits until it is opened, then answers."""

    def __init__(self, status: int = 200) -> None:
        self.open = asyncio.Event()
        self._answer = answer(status, PHOTO)

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        await self.open.wait()
        await self._answer(writer)


async def asked(server: ScriptedHost, times: int = 1) -> None:
    while len(server.asked) < times:
        await asyncio.sleep(0.001)


def begin(fetcher: PhotoFetcher, url: str, seconds: float = 60) -> asyncio.Task[Fetched]:
    return asyncio.create_task(fetcher.fetch(url, time.monotonic() + seconds))


@pytest.mark.parametrize("status", [200, 503, 404])
def test_equal_fetches_in_flight_are_one_and_share_what_comes_of_it(status: int) -> None:
    gate = Gate(status)

    async def scenario(server: ScriptedHost, fetcher: PhotoFetcher) -> None:
        waiters = [begin(fetcher, server.url("/photo")) for _ in range(20)]
        other = begin(fetcher, server.url("/photo?other"))
        await asked(server, 2)
        gate.open.set()
        found = await asyncio.gather(*waiters)
        assert sorted(server.asked) == ["/photo", "/photo?other"]
        assert {one.status for one in found} == {ImageStatus.USED if status == 200 else ImageStatus.UNAVAILABLE}
        assert [one.shared for one in found].count(False) == 1  # the body is counted once
        assert len({id(one.body) for one in found}) == 1
        assert not (await other).shared
        assert not (await fetcher.fetch(server.url("/photo"), time.monotonic() + 60)).shared
        assert len(server.asked) == 3  # nothing is kept for later

    on_host({"/photo": gate}, scenario)


def test_a_cancelled_waiter_harms_nobody_and_the_last_ends_the_fetch() -> None:
    gate = Gate()

    async def scenario(server: ScriptedHost, fetcher: PhotoFetcher) -> None:
        first, second = begin(fetcher, server.url("/photo")), begin(fetcher, server.url("/photo"))
        await asked(server)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        gate.open.set()
        assert (await second).body == PHOTO
        assert len(server.asked) == 1
        gate.open.clear()
        alone = begin(fetcher, server.url("/photo"))
        await asked(server, 2)
        alone.cancel()
        after = begin(fetcher, server.url("/photo"))  # joins nothing that is being cancelled
        await asked(server, 3)
        gate.open.set()
        assert (await after).body == PHOTO

    on_host({"/photo": gate}, scenario)


def test_each_waiter_has_its_own_deadline() -> None:
    gate = Gate()

    async def scenario(server: ScriptedHost, fetcher: PhotoFetcher) -> None:
        patient = begin(fetcher, server.url("/photo"))
        await asked(server)
        hasty = await fetcher.fetch(server.url("/photo"), time.monotonic())
        assert (hasty.status, hasty.detail) == (ImageStatus.UNAVAILABLE, "not there in time")
        gate.open.set()
        assert (await patient).body == PHOTO
        assert len(server.asked) == 1

    on_host({"/photo": gate}, scenario)


def test_a_shared_fetch_takes_one_slot_of_its_host() -> None:
    gate = Gate()

    async def scenario(server: ScriptedHost, fetcher: PhotoFetcher) -> None:
        waiters = [begin(fetcher, server.url("/photo")) for _ in range(8)]
        await asked(server)
        quick = await fetcher.fetch(server.url("/quick"), time.monotonic() + 60)
        assert quick.status is ImageStatus.USED
        gate.open.set()
        await asyncio.gather(*waiters)

    on_host({"/photo": gate, "/quick": answer(200, PHOTO)}, scenario, host_limits=HostLimits(per_host=2))


def conditional(etag: str = ETAG, **headers: str) -> Callable[[ScriptedHost], Script]:
    """304 where the last request names the ETag, else the photo with it."""

    def on(server: ScriptedHost) -> Script:
        async def script(writer: asyncio.StreamWriter) -> None:
            unchanged = f"If-None-Match: {etag}".encode() in server.requests[-1]
            await (answer(304) if unchanged else answer(200, PHOTO, ETag=etag, **headers))(writer)

        return script

    return on


def test_an_unchanged_photo_is_not_sent_again_and_the_operators_headers_go_along() -> None:
    async def run() -> None:
        async with ScriptedHost() as server:
            server.scripts = {"/photo": conditional()(server)}
            policy = AddressPolicy(allow=["127.0.0.0/8"], ports=[server.port])
            headers = HostHeaders([f"http://127.0.0.1:{server.port} X-Token: secret"])
            async with PhotoFetcher(policy, headers=headers) as fetcher:
                first = await fetcher.fetch(server.url("/photo"), time.monotonic() + 60)
                assert (first.body, first.unchanged) == (PHOTO, False)
                assert first.validators is not None
                again = await fetcher.fetch(server.url("/photo"), time.monotonic() + 60, first.validators)
                assert (again.status, again.body, again.unchanged) == (ImageStatus.USED, None, True)
                assert all(b"X-Token: secret" in request for request in server.requests)
                other = await fetcher.fetch(server.url("/photo?other"), time.monotonic() + 60, first.validators)
                assert other.body == PHOTO  # a condition belongs to its address

    asyncio.run(run())


def test_after_a_redirect_the_condition_goes_to_the_address_that_answered_and_to_no_other() -> None:
    async def run() -> None:
        async with ScriptedHost() as server:
            server.scripts = {
                "/old": answer(302, Location="/photo"),
                "/photo": conditional()(server),
                "/elsewhere": conditional()(server),
            }
            policy = AddressPolicy(allow=["127.0.0.0/8"], ports=[server.port])
            async with PhotoFetcher(policy) as fetcher:
                first = await fetcher.fetch(server.url("/old"), time.monotonic() + 60)
                again = await fetcher.fetch(server.url("/old"), time.monotonic() + 60, first.validators)
                assert again.unchanged
                assert [b"If-None-Match" in request for request in server.requests] == [False, False, False, True]
                server.scripts["/old"] = answer(302, Location="/elsewhere")
                moved = await fetcher.fetch(server.url("/old"), time.monotonic() + 60, first.validators)
                assert moved.body == PHOTO
                assert b"If-None-Match" not in server.requests[-1]

    asyncio.run(run())


def test_the_rules_of_addresses_hold_for_conditional_requests() -> None:
    async def scenario(server: ScriptedHost, fetcher: PhotoFetcher) -> None:
        known = Validators("0" * 32, ETAG, "")
        refused = await fetcher.fetch("http://10.0.0.1/photo", time.monotonic() + 60, known)
        assert refused.status is ImageStatus.REFUSED
        unasked = await fetcher.fetch(server.url("/photo"), time.monotonic() + 60)
        assert (unasked.status, unasked.unchanged) == (ImageStatus.UNAVAILABLE, False)  # 304 without a condition

    on_host({"/photo": answer(304)}, scenario)


NOW = 1_750_000_000


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({"ETag": '"a"'}, {"If-None-Match": '"a"'}),
        ({"etag": 'W/"a"', "Last-Modified": formatdate(NOW, usegmt=True)}, {"If-None-Match": 'W/"a"'}),
        ({"ETag": "a"}, None),
        ({"ETag": '"a\r\nX: y"'}, None),
        ({"ETag": '"' + "a" * 300 + '"'}, None),
        ({"ETag": '"a"', "Cache-Control": "private, No-Store"}, None),
        ({"Last-Modified": formatdate(NOW, usegmt=True)}, None),  # without a date nobody knows how old it is
        ({"Last-Modified": formatdate(NOW, usegmt=True), "Date": formatdate(NOW, usegmt=True)}, None),
        (
            {"Last-Modified": formatdate(NOW, usegmt=True), "Date": formatdate(NOW + 1, usegmt=True)},
            {"If-Modified-Since": formatdate(NOW, usegmt=True)},
        ),
        ({"Last-Modified": "yesterday", "Date": formatdate(NOW, usegmt=True)}, None),
        ({}, None),
    ],
)
def test_which_validators_are_relied_on(headers: dict[str, str], condition: dict[str, str] | None) -> None:
    found = Validators.of("http://a/b", CIMultiDict(headers))
    assert (found and found.headers_for("http://a/b")) == condition
    if found is not None:
        assert found.headers_for("http://a/c") == {}
        assert Validators.from_json(found.to_json()) == found


JSON = st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner, max_size=4))


@given(JSON | st.tuples(st.text(), st.text(), st.text()).map(list))
def test_whatever_is_read_back_cannot_forge_a_header(data: object) -> None:
    try:
        known = Validators.from_json(data)
    except ValueError:
        return
    assert all("\r" not in value and "\n" not in value for value in (known.etag, known.last_modified))
