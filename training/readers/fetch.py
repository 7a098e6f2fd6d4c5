"""Photos from addresses, fetched once into the cache: many at a time, each with a limit of time and size.

An address in somebody's table is not to be trusted: only http and https, and only hosts that resolve to public
addresses, checked for every redirect anew and on exactly the addresses that are then connected to. `allow_private`
lifts that for shops whose photos lie on their own network. What cannot be fetched is told; it is tried again next time.

Before photos.py, which finds what was fetched; used by folder.py.
"""

import asyncio
import hashlib
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

MAX_BYTES = 20_000_000
"""Of one photo; the largest that shops send are a tenth of it."""
TIMEOUT_S, CONNECT_S = 20.0, 5.0
AT_ONCE = 32
MAX_REDIRECTS = 3
MAX_ADDRESS = 2_048
"""Characters, as in an event."""
_CHUNK = 65_536
_TUNNELS = tuple(map(ipaddress.IPv6Network, ("2001::/32", "2002::/16")))  # Teredo and 6to4 carry other addresses
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_METADATA = ipaddress.IPv4Address("168.63.129.16")  # public by its number, and always the cloud's own host


class FetchError(Exception):
    """A photo that cannot be had, and why."""


@dataclass(frozen=True, slots=True)
class PhotoFiles:
    """Fetched photos, one file each, named by their address."""

    folder: Path

    def name(self, address: str) -> str:
        return hashlib.sha256(address.encode()).hexdigest()[:32]

    def file(self, name: str) -> Path:
        return self.folder / name[:2] / name


def is_address(text: str) -> bool:
    """Whether a cell holds what could be fetched."""
    return text.startswith(("http://", "https://")) and len(text) <= MAX_ADDRESS


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet could reach."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        return ip in _GLOBAL_V6 and ip.is_global and not any(ip in tunnel for tunnel in _TUNNELS)
    return ip.is_global and not ip.is_multicast and ip != _METADATA


def fetch_all(
    addresses: Sequence[str], files: PhotoFiles, *, allow_private: bool = False, limit_bytes: int = MAX_BYTES
) -> Mapping[str, str]:
    """Fetches what is not there yet; blocks until all have an answer.

    Returns:
        why, for each address that could not be fetched.
    """
    missing = [address for address in dict.fromkeys(addresses) if not files.file(files.name(address)).exists()]
    return asyncio.run(_fetch_all(missing, files, allow_private, limit_bytes)) if missing else {}


async def _fetch_all(
    addresses: Sequence[str], files: PhotoFiles, allow_private: bool, limit_bytes: int
) -> dict[str, str]:
    failed: dict[str, str] = {}
    waiting = iter(addresses)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_S)
    connector = aiohttp.TCPConnector(limit=AT_ONCE, resolver=_Resolver(allow_private))

    async def work(session: aiohttp.ClientSession) -> None:
        for address in waiting:  # shared: each worker takes the next
            try:
                _keep(files.file(files.name(address)), await _fetch(session, address, allow_private, limit_bytes))
            except (FetchError, aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                failed[address] = str(error) or type(error).__name__

    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as session:
        await asyncio.gather(*(work(session) for _ in range(min(AT_ONCE, len(addresses)))))
    return failed


async def _fetch(session: aiohttp.ClientSession, address: str, allow_private: bool, limit_bytes: int) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        _check(address, allow_private)
        async with session.get(address, allow_redirects=False) as answer:
            if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                address = urljoin(address, answer.headers["Location"])
                continue
            if answer.status != 200:
                raise FetchError(f"status {answer.status}")
            found = bytearray()
            async for piece in answer.content.iter_chunked(_CHUNK):
                found += piece
                if len(found) > limit_bytes:
                    raise FetchError(f"more than {limit_bytes:,} bytes")
            return bytes(found)
    raise FetchError(f"more than {MAX_REDIRECTS} redirects")


def _check(address: str, allow_private: bool) -> None:
    """Refuses what is no web address, and hosts given as a number, which no resolver sees."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError("not an http or https address")
    with suppress(ValueError):
        ipaddress.ip_address(parts.hostname)
        if not allow_private and not is_public(parts.hostname):
            raise FetchError(f"{parts.hostname} is no public address")


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)


class _Resolver(AbstractResolver):
    """Gives the client only addresses that it may connect to; odd spellings of numbers end here too."""

    def __init__(self, allow_private: bool) -> None:
        self._inner, self._allow_private = ThreadedResolver(), allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [one for one in found if self._allow_private or is_public(one["host"])]
        if not allowed:
            raise OSError(f"{host} has no public address")
        return allowed

    async def close(self) -> None:
        await self._inner.close()
