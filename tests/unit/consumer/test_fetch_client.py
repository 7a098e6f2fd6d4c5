"""PhotoFetcher against a real server on 127.0.0.1 that misbehaves in every way we know of."""

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from consumer.errors import ConfigError
from consumer.fetch import Fetched, PhotoFetcher
from consumer.fetch.addresses import AddressPolicy
from consumer.fetch.client import FetchLimits, retry_after_s
from consumer.fetch.hosts import HostLimits, Lookup
from consumer.settings import PhotoSettings
from mmcat.listing import ImageStatus
from tests.support.scripted_host import Script, ScriptedHost, answer

LOOPBACK = "127.0.0.0/8"
PHOTO = b"\xff\xd8" + b"photo" * 10_000
LIMIT = 200_000


def fetch_all(
    scripts: dict[str, Script],
    *paths: str,
    allow: tuple[str, ...] = (LOOPBACK,),
    seconds: float = 5.0,
    host: str = "127.0.0.1",
    lookup: Lookup = lambda _: ["127.0.0.1"],
    limits: FetchLimits | None = None,
    host_limits: HostLimits | None = None,
    inspect: Callable[[ScriptedHost], None] = lambda _: None,
) -> list[Fetched]:
    """Fetch each path in turn from a host of these scripts."""

    async def scenario() -> list[Fetched]:
        async with ScriptedHost(scripts) as server:
            policy = AddressPolicy(allow=allow, ports=[server.port, 443])
            async with PhotoFetcher(
                policy, limits or FetchLimits(max_bytes=LIMIT), host_limits, lookup=lookup
            ) as fetcher:
                fetched = [
                    await fetcher.fetch(path if "://" in path else server.url(path, host), time.monotonic() + seconds)
                    for path in paths
                ]
            inspect(server)
            return fetched

    return asyncio.run(scenario())


def fetch_one(script: Script, **options: object) -> Fetched:
    return fetch_all({"/photo": script}, "/photo", **options)[0]  # type: ignore[arg-type]  # passed through as given


def redirect(location: str, status: int = 302) -> Script:
    return answer(status, Location=location)


def written(*pieces: bytes, pause_s: float = 0.0, forever: bool = False) -> Script:
    """Write raw pieces, and keep writing the last one if `forever`."""

    async def script(writer: object) -> None:
        assert isinstance(writer, asyncio.StreamWriter)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        while forever:
            writer.write(pieces[-1])
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.close()

    return script


async def hang(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def test_photo_comes_back_whole() -> None:
    fetched = fetch_one(answer(200, PHOTO, Content_Type="text/html"))  # the type is not believed
    assert fetched == Fetched(ImageStatus.USED, PHOTO, False, "")


def test_connection_is_used_again() -> None:
    connections: list[int] = []
    fetch_all(
        {"/photo": answer(200, PHOTO)}, *["/photo"] * 5, inspect=lambda host: connections.append(host.connections)
    )
    assert connections == [1]


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(404, True), (429, True), (500, True), (502, True), (503, True), (408, True), (410, False), (403, False),
     (401, False), (400, False), (204, False), (206, False), (304, False), (300, False), (418, False)],
)  # fmt: skip
def test_status_is_classified(status: int, retryable: bool) -> None:
    fetched = fetch_one(answer(status))
    assert (fetched.status, fetched.body, fetched.retryable) == (ImageStatus.UNAVAILABLE, None, retryable)
    assert str(status) in fetched.detail


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), (" 7 ", 7), ("Thu, 01 Jan 1970 00:16:50 GMT", 10), ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("", 0),
     ("soon", 0), ("-5", 0), ("1.5", 0), ("9" * 5_000, 999_999_999), ("Thu, 99 Foo 99999 00:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_nothing(header: str, seconds: float) -> None:
    assert retry_after_s(header, 1_000.0) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_is_told_apart_that_asks_for_time_and_one_that_has_no_such_photo(status: int) -> None:
    busy = fetch_one(answer(status, Retry_After="90"))
    assert (busy.retry_after_s, busy.not_found) == (90, False)
    absent = fetch_one(answer(404))
    assert (absent.retry_after_s, absent.not_found) == (0, True)


def test_empty_body_is_unavailable_and_may_come_later() -> None:
    fetched = fetch_one(answer(200))
    assert (fetched.status, fetched.retryable) == (ImageStatus.UNAVAILABLE, True)


def test_body_that_breaks_off_is_unavailable() -> None:
    fetched = fetch_one(written(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\nshort"))
    assert (fetched.status, fetched.retryable) == (ImageStatus.UNAVAILABLE, True)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x16\x03\x01garbage\r\n\r\n",
        b"HTTP/1.1 abc X\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: -5\r\n\r\nbody",
        b"HTTP/1.1 200 X\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nbodyb",
        b"HTTP/1.1 200 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nbodyb",
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 X\r\n: empty\r\n\r\n",
        b"HTTP/1.1 302 X\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_nonsense_never_raises(raw: bytes) -> None:
    assert fetch_one(written(raw)).status in (ImageStatus.UNAVAILABLE, ImageStatus.REFUSED)


def test_announced_length_over_the_limit_is_refused_before_the_body() -> None:
    fetched = fetch_one(written(b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n", b"x", pause_s=3600))
    assert (fetched.status, fetched.retryable) == (ImageStatus.REFUSED, False)


def test_endless_body_is_refused_at_the_limit_and_never_held() -> None:
    head = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n"
    tracemalloc.start()
    try:
        fetched = fetch_one(written(head, b"x" * 50_000, forever=True))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fetched.status is ImageStatus.REFUSED
    assert peak < 20 * LIMIT


def test_endless_chunks_are_refused_at_the_limit() -> None:
    chunk = b"c350\r\n" + b"x" * 50_000 + b"\r\n"
    fetched = fetch_one(written(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, forever=True))
    assert fetched.status is ImageStatus.REFUSED


def test_body_longer_than_announced_never_reaches_the_next_answer() -> None:
    """A lying Content-Length: nothing past it is a photo, and the connection is not used again."""
    connections: list[int] = []
    lie = written(b"HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nphoto" + b"x" * LIMIT, pause_s=3600)
    fetched = fetch_all(
        {"/lie": lie, "/photo": answer(200, PHOTO)},
        "/lie",
        "/photo",
        inspect=lambda host: connections.append(host.connections),
    )
    assert fetched[0].body in (b"photo", None)
    assert fetched[1].body == PHOTO
    assert connections == [2]


def test_body_of_exactly_the_limit_goes_through_and_one_byte_more_does_not() -> None:
    assert fetch_one(answer(200, b"x" * LIMIT)).status is ImageStatus.USED
    assert fetch_one(answer(200, b"x" * (LIMIT + 1))).status is ImageStatus.REFUSED


def test_compressed_photo_is_inflated() -> None:
    for encoding, body in (("gzip", gzip.compress(PHOTO)), ("deflate", zlib.compress(PHOTO))):
        assert fetch_one(answer(200, body, Content_Encoding=encoding)).body == PHOTO


def test_gzip_bomb_is_refused_at_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 50 * 2**20)
    assert len(bomb) < LIMIT
    tracemalloc.start()
    try:
        fetched = fetch_one(answer(200, bomb, Content_Encoding="gzip"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fetched.status is ImageStatus.REFUSED
    assert peak < 20 * LIMIT


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip"])
def test_encoding_that_cannot_be_undone_is_unavailable(encoding: str) -> None:
    assert fetch_one(answer(200, PHOTO, Content_Encoding=encoding)).status is ImageStatus.UNAVAILABLE


@pytest.mark.parametrize(
    "script",
    [
        hang,
        written(b"HTTP/1.1 200 X\r\n", b"X-Slow: 1\r\n", pause_s=0.05, forever=True),
        written(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n", b"x", pause_s=0.05, forever=True),
        written(b"H", b"T", b"T", b"P", pause_s=3600),
        written(b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.01, forever=True),
    ],
    ids=["silent", "headers by drops", "body by drops", "status line by drops", "continue for ever"],
)
def test_slow_host_is_left_at_the_deadline(script: Script) -> None:
    started = time.monotonic()
    fetched = fetch_one(script, seconds=0.7)
    assert 0.2 < time.monotonic() - started < 2.0
    assert (fetched.status, fetched.retryable) == (ImageStatus.UNAVAILABLE, True)


def test_silence_is_cut_before_the_deadline() -> None:
    started = time.monotonic()
    fetched = fetch_one(hang, seconds=30, limits=FetchLimits(silence_s=0.3))
    assert time.monotonic() - started < 5
    assert fetched.status is ImageStatus.UNAVAILABLE


def test_deadline_already_passed_asks_nobody() -> None:
    asked: list[str] = []
    fetched = fetch_all(
        {"/photo": answer(200, PHOTO)}, "/photo", seconds=-1, inspect=lambda host: asked.extend(host.asked)
    )
    assert fetched[0].status is ImageStatus.UNAVAILABLE
    assert asked == []


def test_headers_without_end_are_cut() -> None:
    fetched = fetch_one(written(b"HTTP/1.1 200 X\r\n", b"X-More: 1\r\n" * 1000, forever=True))
    assert fetched.status is ImageStatus.UNAVAILABLE


def test_three_redirects_are_followed_and_a_fourth_is_refused() -> None:
    scripts = {f"/{hop}": redirect(f"/{hop + 1}") for hop in range(4)} | {"/4": answer(200, PHOTO)}
    four, three = fetch_all(scripts, "/0", "/1")
    assert four.status is ImageStatus.REFUSED
    assert three.body == PHOTO


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/photo",
        "//169.254.169.254/latest/meta-data",
        "http://0x0a000001/",
        "http://[::1]/",
        "http://localhost.example:22/",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1/",
        "http://inside.example/",
    ],
)
def test_redirect_to_a_refused_address_is_refused(location: str) -> None:
    def lookup(name: str) -> list[str]:
        return ["10.0.0.1" if name == "inside.example" else "127.0.0.1"]

    fetched = fetch_one(redirect(location), lookup=lookup)
    assert (fetched.status, fetched.retryable) == (ImageStatus.REFUSED, False)


def test_redirect_to_another_admitted_host_is_followed() -> None:
    async def scenario() -> Fetched:
        async with ScriptedHost({"/photo": answer(200, PHOTO)}) as second, ScriptedHost() as first:
            first.scripts["/photo"] = redirect(second.url("/photo", "second.example"))
            policy = AddressPolicy(allow=[LOOPBACK], ports=[first.port, second.port])
            async with PhotoFetcher(policy, lookup=lambda _: ["127.0.0.1"]) as fetcher:
                return await fetcher.fetch(first.url("/photo"), time.monotonic() + 5)

    assert asyncio.run(scenario()).body == PHOTO


def test_refused_address_is_never_connected_to_and_goes_through_when_allowed() -> None:
    connections: list[int] = []
    for host in ("127.0.0.1", "2130706433", "0x7f.1", "name.example"):
        scripts = {"/photo": answer(200, PHOTO)}
        refused = fetch_all(scripts, "/photo", host=host, allow=(), inspect=lambda h: connections.append(h.connections))
        admitted = fetch_all(scripts, "/photo", host=host, allow=(LOOPBACK,))
        assert (refused[0].status, admitted[0].status) == (ImageStatus.REFUSED, ImageStatus.USED), host
    assert connections == [0] * 4


def test_name_that_changes_its_mind_after_the_check_gains_nothing() -> None:
    """Rebinding: the first answer is harmless, every later one leads inside. Nothing listens on the harmless one."""
    answers: list[str] = []

    def rebinding(_: str) -> list[str]:
        answers.append("127.0.0.2" if not answers else "127.0.0.1")
        return answers[-1:]

    connections: list[int] = []
    fetched = fetch_all(
        {"/photo": answer(200, PHOTO)},
        *["/photo"] * 3,
        host="rebind.example",
        allow=("127.0.0.2/32",),
        lookup=rebinding,
        host_limits=HostLimits(resolution_s=0.0, negative_s=0.0),  # every use asks the resolver again
        inspect=lambda host: connections.append(host.connections),
    )
    assert {one.status for one in fetched} <= {ImageStatus.REFUSED, ImageStatus.UNAVAILABLE}
    assert fetched[-1].status is ImageStatus.REFUSED
    assert connections == [0]
    assert len(answers) >= 3


def test_of_mixed_answers_only_the_admitted_one_is_connected_to() -> None:
    fetched = fetch_one(
        answer(200, PHOTO), host="mixed.example", lookup=lambda _: ["10.0.0.1", "::1", "127.0.0.1", "169.254.169.254"]
    )
    assert fetched.body == PHOTO


def test_unknown_name_is_unavailable_and_may_come_later() -> None:
    def nowhere(_: str) -> list[str]:
        raise OSError("no such host")

    fetched = fetch_one(answer(200, PHOTO), host="nowhere.example", lookup=nowhere)
    assert (fetched.status, fetched.retryable) == (ImageStatus.UNAVAILABLE, True)


def test_closed_port_is_unavailable_and_may_come_later() -> None:
    fetched = fetch_all({}, "http://127.0.0.1:443/photo")[0]
    assert (fetched.status, fetched.retryable) == (ImageStatus.UNAVAILABLE, True)


def test_cookies_credentials_and_proxies_never_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    requests: list[bytes] = []
    fetched = fetch_all(
        {"/photo": answer(200, PHOTO, Set_Cookie="id=1")},
        "/photo",
        "/photo",
        inspect=lambda host: requests.extend(host.requests),
    )
    assert [one.status for one in fetched] == [ImageStatus.USED] * 2
    for request in requests:
        assert b"cookie" not in request.lower()
        assert b"authorization" not in request.lower()
        assert b"referer" not in request.lower()


def test_query_is_sent_as_written_and_never_told() -> None:
    requests: list[bytes] = []
    path = "/photo?token=s%2Fecret&x=%EC%82%AC"
    fetched = fetch_all({"/photo": answer(500)}, path, inspect=lambda host: requests.extend(host.requests))
    assert requests[0].startswith(f"GET {path} HTTP/1.1".encode())
    assert "token" not in json.dumps(fetched[0].detail)


def test_cancellation_is_the_one_thing_raised() -> None:
    async def scenario() -> None:
        async with ScriptedHost({"/photo": hang}) as server:
            policy = AddressPolicy(allow=[LOOPBACK], ports=[server.port])
            async with PhotoFetcher(policy) as fetcher:
                fetch = asyncio.create_task(fetcher.fetch(server.url("/photo"), time.monotonic() + 60))
                while not server.asked:
                    await asyncio.sleep(0.001)
                fetch.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await fetch

    asyncio.run(scenario())


def test_closing_ends_fetches_under_way() -> None:
    async def scenario() -> Fetched:
        async with ScriptedHost({"/photo": hang}) as server:
            fetcher = PhotoFetcher(AddressPolicy(allow=[LOOPBACK], ports=[server.port]))
            await fetcher.start()
            fetch = asyncio.create_task(fetcher.fetch(server.url("/photo"), time.monotonic() + 60))
            while not server.asked:
                await asyncio.sleep(0.001)
            await fetcher.close()
            return await fetch

    assert asyncio.run(scenario()).status is ImageStatus.UNAVAILABLE


def test_hung_hosts_do_not_hold_the_others() -> None:
    """30 hosts hang, 10 answer: these go on while all of those hang (what it costs them is a benchmark)."""

    async def scenario() -> None:
        async with ScriptedHost({"/photo": answer(200, PHOTO), "/hang": hang}) as server:
            policy = AddressPolicy(allow=[LOOPBACK], ports=[server.port])
            limits = FetchLimits(concurrency=128, silence_s=300)
            until = time.monotonic() + 60
            async with PhotoFetcher(policy, limits, lookup=lambda _: ["127.0.0.1"]) as fetcher:
                hung = [server.url(f"/hang?{i}", f"hung{i % 30}.example") for i in range(600)]
                stuck = [asyncio.create_task(fetcher.fetch(url, until)) for url in hung]
                for _ in range(20):
                    good = [server.url("/photo", f"good{host}.example") for host in range(10)]
                    found = await asyncio.gather(*(fetcher.fetch(url, until) for url in good))
                    assert {one.status for one in found} == {ImageStatus.USED}
                assert server.most_open <= 30 * 2 + 10  # a host that never answered holds two connections
                for task in stuck:
                    task.cancel()
                await asyncio.gather(*stuck, return_exceptions=True)

    asyncio.run(scenario())


def test_hosts_that_hang_after_they_answered_well_leave_the_others_their_connections() -> None:
    """A host that is known to be good may hold all its slots; many that hang at once must not hold all there is."""

    async def scenario() -> None:
        async with ScriptedHost({"/photo": answer(200, PHOTO), "/hang": hang}) as server:
            photo, policy = PhotoSettings(), AddressPolicy(allow=[LOOPBACK], ports=[server.port])
            limits = FetchLimits(connect_s=600, silence_s=600, concurrency=photo.concurrency)
            each = HostLimits(per_host=photo.per_host)
            async with PhotoFetcher(policy, limits, each, lookup=lambda _: ["127.0.0.1"]) as fetcher:

                async def fetch(host: int, path: str) -> Fetched:
                    return await fetcher.fetch(server.url(path, f"host{host}.example"), time.monotonic() + 600)

                for host in range(1, 13):
                    for _ in range(photo.per_host):
                        assert (await fetch(host, "/photo")).status is ImageStatus.USED
                hung = [
                    asyncio.create_task(fetch(host, f"/hang?{n}"))
                    for host in range(1, 13)
                    for n in range(photo.per_host)
                ]
                while server.open_now < len(hung):
                    await asyncio.sleep(0.01)
                for host in range(13, 21):
                    assert (await fetch(host, "/photo")).status is ImageStatus.USED
                assert not any(task.done() for task in hung)
                for task in hung:
                    task.cancel()
                await asyncio.gather(*hung, return_exceptions=True)

    asyncio.run(scenario())


def test_settings_reach_policy_and_limits() -> None:
    async def scenario() -> list[Fetched]:
        async with ScriptedHost({"/photo": answer(200, PHOTO)}) as server:
            tight = PhotoSettings(max_bytes=1024, allow=(LOOPBACK,), ports=(server.port,))
            found = []
            for photo in (tight, tight.model_copy(update={"max_bytes": LIMIT}), PhotoSettings(ports=(server.port,))):
                async with PhotoFetcher.from_settings(photo) as fetcher:
                    found.append(await fetcher.fetch(server.url("/photo"), time.monotonic() + 5))
            return found

    too_large, good, inside = asyncio.run(scenario())
    assert "limit 1024" in too_large.detail
    assert good.body == PHOTO
    assert "loopback" in inside.detail


def test_wrong_entry_of_the_settings_is_named_at_start() -> None:
    with pytest.raises(ConfigError, match=r"'10\.0\.0\.0/99' is neither"):
        PhotoFetcher.from_settings(PhotoSettings(allow=("10.0.0.0/99",)))
