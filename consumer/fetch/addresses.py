"""Which addresses may be fetched: pure policy, no network, no clock, no client library.

A seller writes the address, so it is hostile until shown otherwise. Before this: the event's `image_url`, or the
Location of a redirect. After this: hosts.py resolves the name and asks `refusal` about every address it stands for,
and client.py connects to those addresses only.

An address is read once, into a `Target`; nothing downstream parses the text again, so no two parsers can disagree
about what was checked. Odd spellings of an IPv4 address (decimal, octal, hex, short, full-width digits) are turned into
the address that they mean and judged as that.

The list of special ranges is written out, from IANA's special-purpose registries (RFC 6890 and its updates), instead
of taken from `ipaddress.is_global`, whose answer changes between Python versions.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import idna

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ADDRESS_CHARACTERS: Final = 2048
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_SPECIAL_V4: Final = tuple(
    (ipaddress.IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "metadata"),  # Azure's host agent: a public number that only ever means the machine itself
        ("169.254.0.0/16", "link-local"),  # the metadata services live here
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "tunnel"),  # 6to4 relays
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "benchmark"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),  # with the broadcast address
    )
)
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")  # the only range IANA gives out as global unicast
_SPECIAL_V6: Final = tuple(
    (ipaddress.IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "embedded IPv4"),  # mapped
        ("::ffff:0:0:0/96", "embedded IPv4"),  # translated (RFC 2765)
        ("::/96", "embedded IPv4"),  # compatible
        ("64:ff9b::/96", "embedded IPv4"),  # NAT64
        ("64:ff9b:1::/48", "embedded IPv4"),  # NAT64 of a site
        ("100::/64", "discard"),
        ("2001::/32", "embedded IPv4"),  # Teredo
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "embedded IPv4"),  # 6to4
        ("2620:4f:8000::/48", "reserved"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)


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

    Raises:
        ValueError: an entry that is neither a range nor a host name.
    """

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = (), ports: Iterable[int] = (80, 443)) -> None:
        self._allow_networks, self._allow_suffixes = _split_entries(allow)
        self._deny_networks, self._deny_suffixes = _split_entries(deny)
        self._ports = frozenset(ports)

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


def special_range(address: IPAddress) -> str | None:
    """The name of the special range that holds `address`; None for an ordinary public address."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((reason for network, reason in _SPECIAL_V4 if address in network), None)
    for network, reason in _SPECIAL_V6:
        if address in network:
            return reason
    if address not in _GLOBAL_V6:
        return "reserved"
    return "embedded IPv4" if _is_isatap(address) else None


def embedded_ipv4(address: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address carries (mapped, compatible, NAT64, 6to4, Teredo, ISATAP), if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    number = int(address)
    if address in _GLOBAL_V6:
        if address.sixtofour is not None:
            return address.sixtofour
        if address.teredo is not None:
            return address.teredo[1]
        return ipaddress.IPv4Address(number & 0xFFFFFFFF) if _is_isatap(address) else None
    if number <= 1:
        return None
    carried = special_range(address) == "embedded IPv4"
    return ipaddress.IPv4Address(number & 0xFFFFFFFF) if carried else None


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    return (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE  # RFC 5214: interface id [02]00:5efe:a.b.c.d


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
