"""Which addresses may be fetched: pure policy, no network, no clock, no client library.

A seller writes the address, so it is hostile until shown otherwise. Before this: the event's `image_url`, or the
Location of a redirect. After this: hosts.py resolves the name and asks `refusal` about every address it stands for,
and client.py connects to those addresses only.

An address is read once, into a `Target`; nothing downstream parses the text again, so no two parsers can disagree
about what was checked. Odd spellings of an IPv4 address (decimal, octal, hex, short, full-width digits) are turned into
the address that they mean and judged as that.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import idna

from consumer.fetch.ranges import IPAddress, embedded_ipv4, special_range

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ADDRESS_CHARACTERS: Final = 2048
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# Names that mean the inside wherever they are resolved (RFC 6761, 6762, 8375, ICANN's .internal, habit).
INSIDE_SUFFIXES: Final = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "svc", "arpa",
    "onion", "test", "invalid",
)  # fmt: skip


class RefusedAddressError(Exception):
    """An address that is not fetched; the message is safe to log: it holds no path and no query."""


@dataclass(frozen=True, slots=True)
class Target:
    """One address, read: what is connected to and what is asked for.

    Args:
        scheme: "http" or "https".
        host: lower-case ASCII name without a trailing dot, or a literal in its canonical spelling (no brackets).
        address: the literal, None for a name.
        path: percent-encoded path, starts with "/".
        query: percent-encoded, without "?".
    """

    scheme: str
    host: str
    address: IPAddress | None
    port: int
    path: str
    query: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: the key of breakers and slots, and all that a log may show."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class AddressPolicy:
    """Says what may be fetched. Stateless after construction, safe in any thread.

    Args:
        allow: host suffixes ("photos.internal" admits itself and its sub-domains, whatever they resolve to) or CIDR
            ranges that admit addresses which are refused otherwise.
        deny: the same forms; what they cover is refused even where `allow` names it.
        ports: the only ones admitted.
        resolved_here: False where an egress proxy resolves names: then those that mean the inside (one label, .local,
            .internal, …) are refused by their look, unless `allow` names them.

    Raises:
        ValueError: an entry that is neither a range nor a host name.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        ports: Iterable[int] = (80, 443),
        *,
        resolved_here: bool = True,
    ) -> None:
        self._allow_networks, self._allow_suffixes = _split_entries(allow)
        self._deny_networks, self._deny_suffixes = _split_entries(deny)
        self._ports = frozenset(ports)
        self._resolved_here = resolved_here

    def read(self, address: str) -> Target:
        """Read and judge an address as far as its text goes; a literal host is judged whole.

        Raises:
            RefusedAddressError: with the reason.
        """
        target = _parse(address)
        if target.port not in self._ports:
            raise RefusedAddressError(f"port {target.port} is not allowed")
        if _has_suffix(target.host, self._deny_suffixes):
            raise RefusedAddressError(f"host {target.host} is denied")
        if target.address is not None and (reason := self.refusal(target.host, target.address)):
            raise RefusedAddressError(reason)
        if target.address is None and not self._resolved_here and self._means_inside(target.host):
            raise RefusedAddressError(f"host {target.host} is a name of the inside")
        return target

    def refusal(self, host: str, address: IPAddress) -> str | None:
        """Why `address`, which `host` stands for, may not be connected to; None when it may."""
        if getattr(address, "scope_id", None):
            return f"{host} leads to a zoned address"
        if _within(address, self._deny_networks):
            return f"{host} leads to a denied address"
        inner = embedded_ipv4(address)
        if inner is not None and _within(inner, self._deny_networks):
            return f"{host} leads to a denied address"
        if _has_suffix(host, self._allow_suffixes):
            return None
        reason = special_range(address)
        if reason is not None and not _within(address, self._allow_networks):
            return f"{host} leads to a special address ({reason})"
        # Admitting a carrier of IPv4 (say NAT64 on an IPv6-only network) does not admit every address it carries.
        return None if inner is None else self.refusal(host, inner)

    def _means_inside(self, host: str) -> bool:
        looks = "." not in host or _has_suffix(host, INSIDE_SUFFIXES)
        return looks and not _has_suffix(host, self._allow_suffixes)


def _parse(address: str) -> Target:
    text = address.strip(" ")
    if not text or len(text) > MAX_ADDRESS_CHARACTERS:
        raise RefusedAddressError(f"address of {len(text)} characters")
    if any(character < " " or character in "\\\x7f" or 0xD800 <= ord(character) < 0xE000 for character in text):
        raise RefusedAddressError("control characters in the address")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RefusedAddressError("malformed address") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise RefusedAddressError("scheme is not http or https")
    if "@" in parts.netloc:
        raise RefusedAddressError("credentials in the address")
    host, literal = _parse_host(parts.netloc)
    return Target(
        scheme=scheme,
        host=host,
        address=literal,
        port=DEFAULT_PORTS[scheme] if port is None else port,
        path=quote(parts.path, safe="/%:@!$&'()*+,;=~") or "/",
        query=quote(parts.query, safe="/%:@!$&'()*+,;=~?"),
    )


def _parse_host(netloc: str) -> tuple[str, IPAddress | None]:
    if netloc.startswith("["):
        inside, bracket, after = netloc[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise RefusedAddressError("malformed host")
        try:
            six = ipaddress.IPv6Address(inside)
        except ValueError:
            raise RefusedAddressError("malformed host") from None
        if six.scope_id is not None:
            raise RefusedAddressError("zone in the address")
        return str(six), six
    host = _ascii_host(netloc.partition(":")[0])
    four = _ipv4(host)
    return (host, None) if four is None else (str(four), four)


def _ascii_host(host: str) -> str:
    """Lower-case ASCII as UTS 46 maps it (full-width digits and dots become plain ones), without one trailing dot."""
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise RefusedAddressError("malformed host") from None
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    plain = all(character.isalnum() or character in "-_." for character in host)
    if not plain or len(host) > 253 or any(not 0 < len(label) < 64 for label in labels):
        raise RefusedAddressError("malformed host")
    return host


def _ipv4(host: str) -> ipaddress.IPv4Address | None:
    """The address that a numeric host means to `inet_aton` and to browsers; None for a name.

    A host whose last label is a number is never a name (WHATWG URL, "ends in a number").
    """
    labels = host.split(".")
    if _number(labels[-1]) is None and not labels[-1].isdigit():
        return None
    numbers = [_number(label) for label in labels]
    if len(numbers) > 4 or any(number is None for number in numbers):
        raise RefusedAddressError("malformed host")
    *leading, last = [number for number in numbers if number is not None]
    if any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):
        raise RefusedAddressError("malformed host")
    return ipaddress.IPv4Address(last + sum(number << (24 - 8 * place) for place, number in enumerate(leading)))


def _number(label: str) -> int | None:
    digits, base = label, 10
    if label.startswith("0x"):
        digits, base = label[2:] or "0", 16
    elif len(label) > 1 and label.startswith("0"):
        digits, base = label[1:], 8
    if len(digits) > 64 or "_" in digits or not digits.isalnum():
        return None
    try:
        return int(digits, base)
    except ValueError:
        return None


def _split_entries(entries: Iterable[str]) -> tuple[tuple[IPNetwork, ...], tuple[str, ...]]:
    networks: list[IPNetwork] = []
    suffixes: list[str] = []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
            continue
        except ValueError:
            pass
        try:
            suffix, literal = _parse_host(entry.removeprefix("*").removeprefix("."))
        except RefusedAddressError:
            raise ValueError(f"{entry!r} is neither a host suffix nor a CIDR range") from None
        if literal is not None or "/" in entry or ":" in entry:
            raise ValueError(f"{entry!r} is neither a host suffix nor a CIDR range")
        suffixes.append(suffix)
    return tuple(networks), tuple(suffixes)


def _has_suffix(host: str, suffixes: Sequence[str]) -> bool:
    return any(host == suffix or host.endswith("." + suffix) for suffix in suffixes)


def _within(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    return any(address in network for network in networks)
