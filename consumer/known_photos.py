"""Which photo an address had, and what its host called it: so that the host need only say that nothing has changed.

Before a fetch: address → validators and content hash → vectors. Only where both are there is a request made
conditional, so an answer "unchanged" is never an answer without vectors. After feature_cache.py; used by preparing.py.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from consumer.feature_cache import FeatureCache
from consumer.fetch import Validators
from consumer.worker import Model
from mmcat.listing import PhotoVectors


@dataclass(frozen=True, slots=True)
class Known:
    """What an address had when it was fetched last, and the vectors of that photo."""

    validators: Validators
    photo: PhotoVectors


class KnownPhotos:
    """Addresses in the feature cache. Thread-safe; blocks for as long as the cache does.

    Args:
        model: knows the vectors of a photo by its content hash.
    """

    def __init__(self, cache: FeatureCache, model: Model) -> None:
        self._cache, self._model = cache, model

    def look(self, urls: Sequence[str]) -> list[Known | None]:
        """What is known of each address."""
        values = self._cache.get("address", [_key(url) for url in urls])
        held = [None if value is None else _read(value) for value in values]
        digests = list({digest for _, digest in filter(None, held)})
        photos = dict(zip(digests, self._model.known_photos(digests), strict=True))
        return [None if one is None or (photo := photos[one[1]]) is None else Known(one[0], photo) for one in held]

    def note(self, url: str, validators: Validators, digest: bytes) -> None:
        """The address had the photo with this content hash, and its host called it so."""
        self._cache.put({_key(url): json.dumps([*validators.to_json(), digest.hex()]).encode()})


def _key(url: str) -> bytes:
    return hashlib.sha256(b"address\0" + url.encode()).digest()


def _read(value: bytes) -> tuple[Validators, bytes] | None:
    """None for what is none of ours."""
    try:
        *validators, digest = json.loads(value)
        return Validators.from_json(validators), bytes.fromhex(digest)
    except (ValueError, TypeError):
        return None
