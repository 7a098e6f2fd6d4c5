"""Fetches one photo: slot, connection, redirects, body, all within one deadline and one number of bytes.

Equal fetches in flight are one (flights.py). With validators of an earlier answer a request is conditional, and may
end without a body: the photo is unchanged (validators.py).

Before it: preparing.py, in its asyncio loop. After it: photo decoding, which looks at the bytes and never at what the
server said of them. Every way in which a fetch can go wrong ends in a `Fetched` with a status; only cancellation is
raised. What it says of an address is its origin, never path or query: those may carry tokens.
"""

import asyncio
import socket
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from types import TracebackType
from typing import Final, Self
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from consumer.errors import ConfigError
from consumer.fetch.addresses import AddressPolicy, RefusedAddressError, Target
from consumer.fetch.bodies import SMALL_BYTES, LargeBodies, Room
from consumer.fetch.egress import HostHeaders, Proxy
from consumer.fetch.flights import Flight, Flights
from consumer.fetch.hosts import (
    HostLimits,
    Hosts,
    HostSetAsideError,
    Lookup,
    Slot,
    UnresolvedHostError,
    system_lookup,
)
from consumer.fetch.validators import Validators
from consumer.settings import PhotoSettings
from mmcat.listing import ImageStatus

MAX_REDIRECTS: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# May answer otherwise later: a fresh listing's photo is often uploaded after the event (404).
RETRYABLE: Final = frozenset({404, 408, 421, 425})
# "identity": a photo gains nothing from compression, and what is not inflated is no bomb.
HEADERS: Final = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "mmcat"}
MAX_DIGITS: Final = 9  # of a Retry-After in seconds: thirty years are for ever
ZLIB_MODES: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one fetch.

    Args:
        status: USED exactly when there is a body, or the photo is unchanged; UNAVAILABLE or REFUSED otherwise.
        retryable: whether a later attempt may end otherwise.
        detail: for logs; names the origin at most.
        not_found: the answer was 404: a photo that is not there yet, or an address that leads nowhere.
        retry_after_s: how long the host asks to be left alone (Retry-After); 0 where it does not.
        validators: of the body, for the next request; None: the host gives none that can be relied on.
        unchanged: the photo is the one that the given validators are of; there is no body.
        shared: another waited for the same fetch and has the same body.
        room: that a large body takes, as long as this object is held.
    """

    status: ImageStatus
    body: bytes | None
    retryable: bool
    detail: str
    not_found: bool = False
    retry_after_s: float = 0.0
    validators: Validators | None = None
    unchanged: bool = False
    shared: bool = False
    room: Room | None = None


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Numbers of `PhotoFetcher`.

    Args:
        max_bytes: longest body, also once inflated.
        connect_s: for the connection, TLS included.
        silence_s: longest wait for the first byte, and between two pieces of the body.
        concurrency: most connections at once over all hosts. Hosts that hang hold theirs for `silence_s`, so it is
            sized for them too: a connection that waits costs little, bytes are bounded by bodies.py.
    """

    max_bytes: int = 10 * 2**20
    connect_s: float = 1.0
    silence_s: float = 2.0
    concurrency: int = 512


class PhotoFetcher:
    """Fetches photos with one pool of connections. Belongs to the asyncio loop in which `start` ran.

    Args:
        policy: which addresses may be fetched.
        headers: what some origins are sent beside `HEADERS`.
        proxy: everything goes through it and it resolves the names; `policy` must know (`resolved_here=False`).
        bodies: how much of large photos may be held; None: any number of bytes.
        lookup: blocking resolver of names; tests put their own here.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        limits: FetchLimits | None = None,
        host_limits: HostLimits | None = None,
        *,
        headers: HostHeaders | None = None,
        proxy: Proxy | None = None,
        bodies: LargeBodies | None = None,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._policy = policy
        self._limits = limits or FetchLimits()
        self._headers, self._proxy = headers or HostHeaders(), proxy
        # Behind a proxy the only name resolved here is the proxy's own, and the operator wrote that.
        resolved = AddressPolicy(allow=(proxy.host,)) if proxy else policy
        self._hosts = Hosts(resolved, host_limits or HostLimits(), lookup=lookup)
        self._bodies = bodies or LargeBodies()
        self._session: aiohttp.ClientSession | None = None
        self._flights: Flights[Fetched] = Flights()

    @classmethod
    def from_settings(cls, photo: PhotoSettings, bodies: LargeBodies | None = None) -> Self:
        """As the operator set it.

        Args:
            bodies: how much of large photos may be held; None: any number of bytes.

        Raises:
            ConfigError: an entry of allow or deny is neither a host suffix nor a range; a header or the proxy cannot be
                read.
        """
        wrong = "photo.allow or photo.deny"
        try:
            policy = AddressPolicy(photo.allow, photo.deny, photo.ports, resolved_here=photo.proxy is None)
            wrong = "photo.headers"
            headers = HostHeaders(entry.get_secret_value() for entry in photo.headers)
            wrong = "photo.proxy"
            proxy = Proxy.read(photo.proxy.get_secret_value()) if photo.proxy else None
        except ValueError as error:
            raise ConfigError(f"{wrong}: {error}") from None
        limits = FetchLimits(photo.max_bytes, photo.connect_timeout_s, photo.silence_timeout_s, photo.concurrency)
        hosts = HostLimits(per_host=photo.per_host)
        return cls(policy, limits, hosts, headers=headers, proxy=proxy, bodies=bodies)

    async def start(self) -> None:
        """Open the pool."""
        connector = aiohttp.TCPConnector(
            resolver=_AdmittedResolver(self._hosts),
            use_dns_cache=False,  # hosts.py caches, and forgets what the policy refused
            limit=self._limits.concurrency,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy and no .netrc from the environment; `photo.proxy` names one
            auto_decompress=False,
            headers=HEADERS,
            raise_for_status=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._limits.connect_s, sock_read=self._limits.silence_s
            ),
        )

    async def close(self) -> None:
        """Close the pool; fetches under way end as unavailable."""
        if self._session is not None:
            await self._session.close()
        await self._hosts.close()
        await self._flights.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def fetch(self, url: str, deadline: float, known: Validators | None = None) -> Fetched:
        """Fetch a photo, or wait for the same fetch that is under way.

        Args:
            url: as the seller wrote it.
            deadline: `time.monotonic()` by which the answer is there; waiting for a slot counts.
            known: of an answer whose photo is known: where it is unchanged, its body is not sent again.

        Raises:
            asyncio.CancelledError: nothing else.
        """
        try:
            fetched, shared = await self._flights.share((url, known), deadline, partial(self._fetch, url, known))
        except TimeoutError:
            return _unavailable("not there in time")
        return replace(fetched, shared=True) if shared else fetched

    async def _fetch(self, url: str, known: Validators | None, flight: Flight[Fetched]) -> Fetched:
        try:
            target = self._policy.read(url)
            for _ in range(MAX_REDIRECTS + 1):
                step = await self._request(target, known, flight)
                if isinstance(step, Fetched):
                    return step
                target = self._policy.read(step)
            return _refused(f"more than {MAX_REDIRECTS} redirects")
        except RefusedAddressError as refused:
            return _refused(str(refused))
        except (HostSetAsideError, UnresolvedHostError) as down:
            return _unavailable(str(down))
        except TimeoutError:
            return _unavailable("not there in time")
        except (aiohttp.ClientError, OSError) as broken:
            return _unavailable(f"connection failed ({type(broken).__name__})")
        except Exception as unknown:  # a stranger's server found a hole in the client: its photo is lost, nothing else
            return _unavailable(f"fetch failed ({type(unknown).__name__})")

    async def _request(self, target: Target, known: Validators | None, flight: Flight[Fetched]) -> Fetched | str:
        """Ask once; returns what became of it, or the address it redirects to."""
        async with self._hosts.slot(target.origin) as slot:
            try:
                if target.address is None and self._proxy is None:
                    await self._hosts.resolve(target.host)
                answer = await self._exchange(target, known, slot)
            except asyncio.CancelledError:
                if flight.late:
                    slot.timed_out()
                raise
            except (RefusedAddressError, aiohttp.ClientProxyConnectionError):  # neither says anything of the host
                raise
            except aiohttp.ClientHttpProxyError as answer:
                if answer.status == 403:
                    raise RefusedAddressError(f"the egress proxy refuses {target.origin}") from None
                slot.failed()
                raise
            except Exception:  # whatever it was, `fetch` judges it; here it only counts against the host, and goes on
                slot.failed()
                raise
        return answer

    async def _exchange(self, target: Target, known: Validators | None, slot: Slot) -> Fetched | str:
        if self._session is None:
            raise RuntimeError("fetch before start")
        url = URL.build(
            scheme=target.scheme,
            host=f"[{target.host}]" if ":" in target.host else target.host,  # yarl takes encoded parts as they are
            port=target.port,
            path=target.path,
            query_string=target.query,
            encoded=True,
        )
        proxy = self._proxy.url if self._proxy else None
        condition = known.headers_for(str(url)) if known is not None else {}
        headers = {**self._headers.of(target), **condition}  # asked anew at each redirect: they stay where they belong
        async with self._session.get(url, allow_redirects=False, headers=headers, proxy=proxy) as response:
            if response.status == 429 or response.status >= 500:
                slot.failed()  # "too many requests", too: a few in a row, and the host is left alone for a while
                wait_s = retry_after_s(response.headers.get("Retry-After", ""), time.time())
                return _unavailable(f"{target.origin} answered {response.status}", retry_after_s=wait_s)
            if response.status in REDIRECTS:
                slot.succeeded()
                location = response.headers.get("Location")
                return urljoin(str(url), location) if location else _unavailable("redirect without a Location", False)
            if response.status == 304 and condition:
                slot.succeeded()
                return Fetched(ImageStatus.USED, None, False, "", unchanged=True)
            if response.status not in (200, 203):
                slot.succeeded()
                may_change, not_found = response.status in RETRYABLE, response.status == 404
                return _unavailable(f"{target.origin} answered {response.status}", may_change, not_found=not_found)
            fetched = await self._read(response, slot)
            slot.succeeded()
            if fetched.body is None:
                return fetched
            return replace(fetched, validators=Validators.of(str(url), response.headers))

    async def _read(self, response: aiohttp.ClientResponse, slot: Slot) -> Fetched:
        limit, announced = self._limits.max_bytes, response.content_length
        if announced is not None and announced > limit:
            return _refused(f"announced {announced} bytes, limit {limit}")
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        plain = encoding in ("identity", "")
        room: Room | None = None
        pieces: list[bytes] = []
        size = 0
        try:
            if plain and announced and announced > SMALL_BYTES:
                room = await self._room(announced, slot)
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > limit:
                    return _refused(f"more than {limit} bytes")
                pieces.append(piece)
                if room is None and (size > SMALL_BYTES or not plain):
                    room = await self._room(limit, slot)
        except BaseException:  # a traceback may be kept for a while, and all of this with it
            pieces.clear()
            if room is not None:
                room.shrink(0)
            raise
        if not size:
            return _unavailable("empty body")
        fetched = Fetched(ImageStatus.USED, b"".join(pieces), False, "") if plain else _inflate(pieces, encoding, limit)
        if room is not None:
            room.shrink(len(fetched.body or b""))
        return replace(fetched, room=room)

    async def _room(self, size_bytes: int, slot: Slot) -> Room:
        """Wait until a large photo may be read on; it is we who let the host wait."""
        with slot.excused():
            return await self._bodies.room(size_bytes)


class _AdmittedResolver(AbstractResolver):
    """Gives aiohttp's connector the addresses that the policy admitted; nothing else is ever connected to."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._hosts.resolve(host)
        ]

    async def close(self) -> None:
        """Nothing to close: the table belongs to the fetcher."""


def _inflate(pieces: Iterable[bytes], encoding: str, limit: int) -> Fetched:
    """Undo the compression that a server applied unasked, never past `limit` bytes."""
    mode = ZLIB_MODES.get(encoding)
    if mode is None:
        return _unavailable("unknown content encoding", False)
    inflater = zlib.decompressobj(mode)
    body = bytearray()
    try:
        for piece in pieces:
            body += inflater.decompress(piece, limit + 1 - len(body))
            if len(body) > limit:
                return _refused(f"inflates to more than {limit} bytes")
    except zlib.error:
        return _unavailable("broken content encoding", False)
    if not inflater.eof or not body:
        return _unavailable("broken content encoding")
    return Fetched(ImageStatus.USED, bytes(body), False, "")


def retry_after_s(header: str, now_s: float) -> float:
    """Seconds that `Retry-After` asks for, as a number or as a date (RFC 9110, 10.2.3); 0 where it says nothing.

    Args:
        now_s: seconds since 1970.
    """
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:MAX_DIGITS])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0


def _unavailable(
    detail: str, retryable: bool = True, *, not_found: bool = False, retry_after_s: float = 0.0
) -> Fetched:
    return Fetched(ImageStatus.UNAVAILABLE, None, retryable, detail, not_found, retry_after_s)


def _refused(detail: str) -> Fetched:
    return Fetched(ImageStatus.REFUSED, None, False, detail)
