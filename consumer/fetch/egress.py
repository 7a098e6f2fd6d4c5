"""What an operator adds to the requests that leave: headers of named photo hosts, and an egress proxy. Pure.

Both hold secrets: nothing here shows them, errors name an entry by its origin alone. Before this: `settings.photo`.
After this: client.py, which asks `HostHeaders.of` anew for each request, redirects included, so what belongs to one
origin cannot go to another.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import urlsplit

from consumer.fetch.addresses import AddressPolicy, RefusedAddressError, Target

_ENTRY: Final = re.compile(
    r"(?P<origin>\S+) +(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+): *(?P<value>[\x21-\xff][\t\x20-\xff]*)"
)
# What the client says itself (framing, compression, conditions, the host asked for), and cookies, which are never sent.
_RESERVED: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-length", "cookie", "host", "transfer-encoding", "upgrade"),
        *("if-none-match", "if-modified-since"),
    }
)
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class HostHeaders:
    """Headers by origin.

    Args:
        entries: `ORIGIN NAME: VALUE`, as in `https://photos.example X-Token: secret`; the origin is scheme, host and
            port (443 and 80 may be left out), and covers nothing else: no other scheme, no sub-domain.

    Raises:
        ValueError: an entry is not of this form, or its header is the client's own; the value is not told.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._of: dict[str, dict[str, str]] = {}
        for number, entry in enumerate(entries, 1):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise ValueError(f"entry {number} is not ORIGIN NAME: VALUE")
            origin, name = match["origin"], match["name"]
            if name.lower() in _RESERVED or name.lower().startswith("proxy-"):
                raise ValueError(f"entry {number}: the header {name} is the client's own")
            self._of.setdefault(_origin(origin, number), {})[name] = match["value"]

    def of(self, target: Target) -> Mapping[str, str]:
        """The headers of this very origin; empty for all others."""
        return self._of.get(target.origin, _NONE)


@dataclass(frozen=True, slots=True)
class Proxy:
    """The egress proxy: everything goes through it, and it resolves the names.

    Args:
        url: with credentials if there are any: a secret.
        host: what the connector resolves; the operator named it, so it may be private.
    """

    url: str
    host: str

    @classmethod
    def read(cls, url: str) -> Self:
        """Read the setting.

        Raises:
            ValueError: it is no http or https address of a proxy; the address is not told.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
            raise ValueError("it must be http://[user:password@]host:port")
        return cls(url, host)


def _origin(text: str, number: int) -> str:
    """An origin in the one spelling that `Target.origin` has."""
    anywhere = AddressPolicy(allow=("0.0.0.0/0", "::/0"), ports=range(1, 65536))
    try:
        target = anywhere.read(text)
    except RefusedAddressError as refused:
        raise ValueError(f"entry {number}: {refused}") from None
    if target.path != "/" or target.query or text.endswith("#"):
        raise ValueError(f"entry {number}: an origin has no path")
    return target.origin
