"""Headers of named photo hosts stay with their host; an egress proxy is asked only for what the rules admit."""

import asyncio
import time
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from consumer.errors import ConfigError
from consumer.fetch import Fetched, PhotoFetcher
from consumer.fetch.addresses import AddressPolicy
from consumer.fetch.egress import HostHeaders, Proxy
from consumer.fetch.hosts import HostLimits
from consumer.loading import load, shown
from consumer.settings import PhotoSettings, Settings
from mmcat.listing import ImageStatus
from tests.support.scripted_host import Script, ScriptedHost, answer
from tests.support.wire import Wire, wire

__all__ = ["wire"]

PHOTO = b"\xff\xd8photo"
LOOPBACK = "127.0.0.0/8"
SECRET = "hunter2"


def headers_sent(request: bytes) -> dict[str, str]:
    lines = request.decode().strip().splitlines()[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def redirected(then: Callable[[ScriptedHost, ScriptedHost], str]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Fetch from a first host that has a secret header set and redirects; returns what each of two hosts was sent."""

    async def scenario() -> None:
        async with ScriptedHost() as first, ScriptedHost() as second:
            first.scripts |= {"/photo": answer(302, Location=then(first, second)), "/own": answer(200, PHOTO)}
            second.scripts |= {
                "/photo": answer(200, PHOTO),
                "/back": answer(302, Location=first.url("/own", "first.example")),
            }
            policy = AddressPolicy([LOOPBACK], ports=[first.port, second.port])
            headers = HostHeaders(
                [
                    f"http://first.example:{first.port} Authorization: Bearer {SECRET}",
                    f"http://FIRST.example:{first.port} X-Shop: a, b",
                ]
            )
            async with PhotoFetcher(policy, headers=headers, lookup=lambda _: ["127.0.0.1"]) as fetcher:
                fetched = await fetcher.fetch(first.url("/photo", "first.example"), time.monotonic() + 60)
            assert fetched.body == PHOTO
            sent.extend([headers_sent(request) for request in host.requests] for host in (first, second))

    sent: list[list[dict[str, str]]] = []
    asyncio.run(scenario())
    return sent[0], sent[1]


def test_headers_of_a_host_are_sent_to_it_also_when_it_redirects_to_itself() -> None:
    first, second = redirected(lambda first, _: first.url("/own", "first.example"))
    assert [one["authorization"] for one in first] == [f"Bearer {SECRET}"] * 2
    assert [one["x-shop"] for one in first] == ["a, b"] * 2
    assert second == []


@pytest.mark.parametrize("host", ["second.example", "a.first.example", "first.example", "127.0.0.1"])
def test_headers_of_a_host_never_cross_a_redirect_to_another(host: str) -> None:
    """Another name, a sub-domain, another port of the same name, the same machine by number: all are another host."""
    first, second = redirected(lambda _, second: second.url("/photo", host))
    assert first[0]["authorization"] == f"Bearer {SECRET}"
    assert len(second) == 1
    assert SECRET not in str(second)
    assert "x-shop" not in second[0]


def test_headers_come_back_with_their_own_host_only() -> None:
    first, second = redirected(lambda _, second: second.url("/back", "second.example"))
    assert [one.get("authorization") for one in first] == [f"Bearer {SECRET}"] * 2
    assert SECRET not in str(second)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (f"photos.example X-Token: {SECRET}", "scheme is not http or https"),
        (f"https://photos.example/path X-Token: {SECRET}", "an origin has no path"),
        (f"https://user:x@photos.example X-Token: {SECRET}", "credentials in the address"),
        (f"https://photos.example X-Token {SECRET}", "entry 1 is not ORIGIN NAME: VALUE"),
        (f"https://photos.example X-Token: {SECRET}\r\nX-More: 1", "entry 1 is not ORIGIN NAME: VALUE"),
        ("https://photos.example X-Token: ", "entry 1 is not ORIGIN NAME: VALUE"),
        (f"https://photos.example Cookie: {SECRET}", "the header Cookie is the client's own"),
        (f"https://photos.example host: {SECRET}", "the header host is the client's own"),
        (f"https://photos.example Proxy-Authorization: {SECRET}", "Proxy-Authorization is the client's own"),
    ],
)
def test_wrong_header_is_named_at_start_and_its_value_is_not(entry: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PhotoFetcher.from_settings(PhotoSettings(headers=(SecretStr(entry),)))
    assert str(caught.value).startswith("photo.headers: ")
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", [f"{SECRET}:3128", f"socks5://{SECRET}@proxy:1080", f"http://proxy:x{SECRET}", "http://"]
)
def test_wrong_proxy_is_named_at_start_and_its_address_is_not(url: str) -> None:
    with pytest.raises(ConfigError, match=r"photo\.proxy: it must be http") as caught:
        PhotoFetcher.from_settings(PhotoSettings(proxy=SecretStr(url)))
    assert SECRET not in str(caught.value)


def test_secrets_come_from_the_environment_and_are_not_shown() -> None:
    environment = {
        "MMCAT_PHOTO__HEADERS": f'["https://a.example X-A: {SECRET}, 1", "https://b.example X-B: {SECRET}"]',
        "MMCAT_PHOTO__PROXY": f"http://user:{SECRET}@proxy:3128",
    }
    settings, _ = load(environment=environment)
    assert [entry.get_secret_value().split()[1] for entry in settings.photo.headers] == ["X-A:", "X-B:"]
    assert SECRET not in str(shown(settings)) + repr(settings)
    single, _ = load(environment={"MMCAT_PHOTO__HEADERS": "https://a.example X-A: one, two"})
    assert [entry.get_secret_value() for entry in single.photo.headers] == ["https://a.example X-A: one, two"]
    assert Settings().photo.headers == ()


def through_proxy(
    wire: Wire, script: Script, *addresses: str, headers: tuple[str, ...] = (), failures_to_open: int = 5
) -> tuple[list[Fetched], ScriptedHost]:
    """Fetch by a scripted egress proxy."""

    async def scenario() -> tuple[list[Fetched], ScriptedHost]:
        async with ScriptedHost(Always(script)) as proxy:
            wire.port = proxy.port
            policy = AddressPolicy(resolved_here=False)
            given = Proxy.read(f"http://user:{SECRET}@proxy.internal:3128")
            limits = HostLimits(failures_to_open=failures_to_open)
            async with PhotoFetcher(
                policy, None, limits, headers=HostHeaders(headers), proxy=given, lookup=lambda _: ["10.0.0.5"]
            ) as fetcher:
                return [await fetcher.fetch(one, time.monotonic() + 60) for one in addresses], proxy

    return asyncio.run(scenario())


class Always(dict[str, Script]):
    """The same script at every path."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    def __missing__(self, path: str) -> Script:
        return self._script


def test_proxy_is_asked_for_the_name_and_nothing_is_resolved_but_the_proxy(wire: Wire) -> None:
    [fetched], proxy = through_proxy(wire, answer(200, PHOTO), "http://photos.example/a?b=c")
    assert fetched.body == PHOTO
    assert wire.connected == ["10.0.0.5"]
    assert proxy.asked == ["http://photos.example/a?b=c"]
    assert headers_sent(proxy.requests[0])["proxy-authorization"].startswith("Basic ")


def test_https_is_asked_by_connect_without_the_headers_that_are_for_the_host(wire: Wire) -> None:
    header = f"https://photos.example X-Token: {SECRET}"
    [fetched], proxy = through_proxy(wire, answer(502), "https://photos.example/a", headers=(header,))
    assert proxy.requests[0].startswith(b"CONNECT photos.example:443 HTTP/1.1\r\n")
    assert b"x-token" not in proxy.requests[0].lower()
    assert (fetched.status, fetched.retryable) == (ImageStatus.UNAVAILABLE, True)


@pytest.mark.parametrize(
    "refused",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://metadata.google.internal/",
        "https://0x7f.1/",
        "https://photos.example:8443/",
        "ftp://photos.example/",
    ],
)
def test_the_rules_hold_before_connect(wire: Wire, refused: str) -> None:
    [fetched], proxy = through_proxy(wire, answer(200), refused)
    assert fetched.status is ImageStatus.REFUSED
    assert (wire.connected, proxy.asked) == ([], [])


def test_redirect_that_came_by_the_proxy_is_judged_like_the_first_address(wire: Wire) -> None:
    script = answer(302, Location="http://10.0.0.1/admin")
    [fetched], proxy = through_proxy(wire, script, "http://photos.example/")
    assert fetched.status is ImageStatus.REFUSED
    assert proxy.asked == ["http://photos.example/"]


def test_what_the_proxy_refuses_is_refused_and_says_nothing_of_the_host(wire: Wire) -> None:
    several = ["https://photos.example/"] * 3
    fetched, proxy = through_proxy(wire, answer(403), *several, failures_to_open=1)
    assert {(one.status, one.retryable) for one in fetched} == {(ImageStatus.REFUSED, False)}
    assert len(proxy.asked) == 3


def test_proxy_that_is_down_sets_no_photo_host_aside() -> None:
    async def scenario() -> list[Fetched]:
        async with ScriptedHost() as gone:
            port = gone.port
        policy = AddressPolicy(resolved_here=False)
        proxy, limits = Proxy.read(f"http://127.0.0.1:{port}"), HostLimits(failures_to_open=1)
        async with PhotoFetcher(policy, None, limits, proxy=proxy) as fetcher:
            return [await fetcher.fetch("http://photos.example/", time.monotonic() + 60) for _ in range(3)]

    for fetched in asyncio.run(scenario()):
        assert (fetched.status, fetched.retryable) == (ImageStatus.UNAVAILABLE, True)
        assert "ClientProxyConnectionError" in fetched.detail


def test_settings_reach_proxy_and_headers(wire: Wire) -> None:
    async def scenario() -> tuple[Fetched, Fetched, list[bytes]]:
        async with ScriptedHost(Always(answer(200, PHOTO))) as proxy:
            wire.port = proxy.port
            photo = PhotoSettings(
                proxy=SecretStr("http://10.0.0.5:3128"), headers=(SecretStr("http://photos.example X-Token: t"),)
            )
            async with PhotoFetcher.from_settings(photo) as fetcher:
                good = await fetcher.fetch("http://photos.example/", time.monotonic() + 60)
                inside = await fetcher.fetch("http://metadata.google.internal/", time.monotonic() + 60)
            return good, inside, proxy.requests

    good, inside, requests = asyncio.run(scenario())
    assert (good.body, inside.status, len(requests)) == (PHOTO, ImageStatus.REFUSED, 1)
    assert headers_sent(requests[0])["x-token"] == "t"
