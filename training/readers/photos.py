"""Where a listing's photo is: a member of an archive, a file of a folder, a fetched address; and its bytes, when asked.

A photo is kept as a word that says where it is (`zip:NAME`, `file:NAME`, `url:DIGEST`), so that eight million of them
are a column and not objects. Before folder.py; after fetch.py, which fills the cache of addresses.
"""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock

from mmcat.errors import PhotoError
from training.errors import DataError
from training.readers.bad_rows import BadCellError
from training.readers.fetch import PhotoFiles, fetch_all, is_address


class Photos:
    """Finds a listing's photo: by the column `image`, else `<product_id>.jpg`, else by the column `image_url`.

    Args:
        fetched: where photos of addresses are kept; None: addresses are not looked at.
        allow_private: whether addresses that are not public may be fetched.

    Raises:
        DataError: `photos.zip` is no archive.
    """

    def __init__(self, root: Path, fetched: PhotoFiles | None = None, *, allow_private: bool = False) -> None:
        self._folder, self._fetched, self._allow_private = root / "photos", fetched, allow_private
        self._failed: Mapping[str, str] = {}
        self._archive: zipfile.ZipFile | None = None
        self._lock = Lock()  # a ZipFile is read by one thread at a time
        self._members: Mapping[str, str | None] = {}
        path = root / "photos.zip"
        if path.exists():
            try:
                self._archive = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(f"{path} is not a zip archive: {error}") from error
            self._members = _by_ends(name for name in self._archive.namelist() if not name.endswith("/"))

    def fetch(self, addresses: Iterable[str]) -> None:
        """Fetches what is not there yet, for the rows that `find` is asked about next; blocks on the network."""
        if self._fetched is not None:
            wanted = [address for address in addresses if is_address(address)]
            self._failed = fetch_all(wanted, self._fetched, allow_private=self._allow_private)

    def find(self, image: str, product_id: str, address: str = "") -> str | None:
        """Where the photo is; None where the row names none, or its address gave none (see `why_not`).

        Raises:
            BadCellError: the row names a file that is not there or that may be any of several, or an address that is
                none.
        """
        where = self._file(image or f"{product_id}.jpg")
        if where is None and image:
            raise BadCellError("image", f"no photo {image!r}")
        if address and not is_address(address):
            raise BadCellError("image_url", "not an http or https address of at most 2,048 characters")
        if where is None and address and self._fetched is not None and address not in self._failed:
            return f"url:{self._fetched.name(address)}"
        return where

    def why_not(self, address: str) -> str:
        """Why the address gave no photo; "" where it did."""
        return self._failed.get(address, "")

    def open(self, where: str) -> bytes:
        """The bytes of what `find` found; blocks on the disk.

        Raises:
            PhotoError: they cannot be read.
        """
        kind, _, name = where.partition(":")
        try:
            if kind == "zip" and self._archive is not None:
                with self._lock:
                    return self._archive.read(name)
            if kind == "url" and self._fetched is not None:
                return self._fetched.file(name).read_bytes()
            return (self._folder / name).read_bytes()
        except Exception as error:  # zipfile and its decompressors raise whatever a broken archive makes them trip over
            raise PhotoError("undecodable", f"cannot be read ({error!r})") from error

    def _file(self, name: str) -> str | None:
        if self._archive is not None:
            member = self._members.get(name, "")
            if member is None:
                raise BadCellError("image", f"several photos of photos.zip are called {name!r}: give the path in it")
            return f"zip:{member}" if member else None
        plain = "/" not in name and "\0" not in name and len(name.encode()) < 256
        return f"file:{name}" if plain and (self._folder / name).is_file() else None


def _by_ends(members: Iterable[str]) -> dict[str, str | None]:
    """Members of an archive by their path and by every end of it: archives of a folder hold the folder's name too.

    None stands for an end that several have.
    """
    whole = {member: member for member in members}
    found: dict[str, str | None] = {}
    for member in whole:
        end = member.partition("/")[2]
        while end:
            found[end] = None if end in found else member
            end = end.partition("/")[2]
    return found | whole
