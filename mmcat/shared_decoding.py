"""Decodes each photo once for as long as its pixels are in use: many listings of a shop show the same one.

Nothing is kept for later: pixels live while a listing holds them, and what is being decoded is waited for. After
preparation.py; before categorizer.py.
"""

import threading
from concurrent.futures import Future
from weakref import WeakValueDictionary

from mmcat.listing import ImageStatus, Listing
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing, photo


class SharedDecoding:
    """Thread-safe."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[bytes, Pixels] = WeakValueDictionary()
        self._under_way: dict[bytes, Future[tuple[Pixels | None, ImageStatus]]] = {}

    def photo(self, listing: Listing, digest: bytes) -> tuple[Pixels | None, ImageStatus]:
        """As `preparation.photo`; equal photos give one array.

        Args:
            digest: of the photo's bytes.
        """
        with self._lock:
            if (pixels := self._held.get(digest)) is not None:
                return pixels, ImageStatus.USED
            decoding = self._under_way.get(digest)
            if theirs := decoding is not None:
                found = decoding
            else:
                found = self._under_way[digest] = Future()
        if theirs:
            return found.result()
        try:
            decoded = photo(listing, self._preprocessing)
            found.set_result(decoded)
        except BaseException as error:
            found.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._under_way[digest]
                if found.exception() is None and (pixels := found.result()[0]) is not None:
                    self._held[digest] = pixels
        return decoded
