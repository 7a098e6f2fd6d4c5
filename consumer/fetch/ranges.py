"""Which IP addresses are special: tables and look-ups, pure.

Before this: addresses.py, which asks about every address that a text or a name means. The tables are written out, from
IANA's special-purpose registries (RFC 6890 and its updates), instead of taken from `ipaddress.is_global`, whose answer
changes between Python versions.
"""

import ipaddress
from typing import Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

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
