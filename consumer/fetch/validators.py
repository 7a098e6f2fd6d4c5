"""What lets a host say that a photo has not changed: ETag and Last-Modified of an answer, for the next request. Pure.

A condition belongs to the address that gave it (after redirects) and goes to no other; of that address only a digest
is kept, because paths and queries may carry tokens. Used by client.py; kept by known_photos.py.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Self

LONGEST: Final = 256
# RFC 9110, 8.8.3. Weak ones too: what a host calls the same photo is the same photo to the model.
_ETAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')


@dataclass(frozen=True, slots=True)
class Validators:
    """Args:
    address: digest of the address that they are of.
    etag, last_modified: as they were sent; one of the two is empty.
    """

    address: str
    etag: str
    last_modified: str

    @classmethod
    def of(cls, address: str, headers: Mapping[str, str]) -> Self | None:
        """Those of an answer, if it has any that can be relied on and may be kept.

        Args:
            headers: of the answer; names in any case must be found.
        """
        if "no-store" in headers.get("Cache-Control", "").lower():
            return None
        etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        if _is_etag(etag):
            return cls(_digest(address), etag, "")
        return cls(_digest(address), "", modified) if _is_settled(modified, headers.get("Date", "")) else None

    def headers_for(self, address: str) -> dict[str, str]:
        """What makes a request of this address conditional; nothing for any other address."""
        if _digest(address) != self.address:
            return {}
        return {"If-None-Match": self.etag} if self.etag else {"If-Modified-Since": self.last_modified}

    def to_json(self) -> list[str]:
        return [self.address, self.etag, self.last_modified]

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is none.
        """
        match data:
            case [str(address), str(etag), str(modified)] if _is_etag(etag) or (not etag and _time(modified)):
                return cls(address, etag, modified)
        raise ValueError("no validators")


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:32]


def _is_etag(text: str) -> bool:
    return len(text) <= LONGEST and _ETAG.fullmatch(text) is not None


def _is_settled(modified: str, date: str) -> bool:
    """Seconds are coarse: a photo changed twice in one would look unchanged, unless that second was over (8.8.2.2)."""
    changed, answered = (_time(modified), _time(date)) if modified and date else (0.0, 0.0)
    return bool(changed and answered and answered - changed >= 1)


def _time(text: str) -> float:
    """Seconds since 1970; 0 where it is no date."""
    if len(text) > LONGEST or not text.isprintable():
        return 0.0
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
