"""What `mmcat predict` is given, as listings: words of a title, a photo file or address, a table of listings.

Addresses go through the consumer's fetcher and its address rules, so that a table from a stranger cannot make this
machine ask its own network. After this: `predict`, which has the model answer.
"""

import asyncio
import csv
import random
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmcat.cli.texts import CommandError
from mmcat.listing import ImageStatus, Listing

if TYPE_CHECKING:
    from consumer.fetch.addresses import AddressPolicy

__all__ = ["address_policy", "fetch_photos", "is_address", "read_one", "read_sample", "read_table"]

FETCH_DEADLINE_S = 15.0
"""A person waits for one photo; the service gives it 3 s."""
_FETCHED = 64  # photos at addresses that are asked for together
FILE_SUFFIXES = frozenset({".tsv", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
URL_COLUMN = "image_url"


def is_address(word: str) -> bool:
    """Whether a word of the command line is an address and not a title or a file."""
    return word.lower().startswith(("http://", "https://"))


def address_policy(allow: Sequence[str]) -> "AddressPolicy":
    """The consumer's address rules; `allow` names hosts or ranges admitted beside the public ones, their ports too."""
    from consumer.fetch.addresses import AddressPolicy

    try:
        # Whoever types an address here names its port as well; what a port may be guards against sellers, not users.
        return AddressPolicy(allow=allow, ports=range(1, 65536))
    except ValueError as error:
        raise CommandError(f"--allow: {error}") from error


def fetch_photos(urls: Sequence[str], policy: "AddressPolicy") -> list[tuple[ImageStatus, bytes | None, str]]:
    """Fetch photos at the same time; blocks up to the deadline. Returns status, body and detail per address."""
    from consumer.fetch import PhotoFetcher

    async def fetch_all() -> list[tuple[ImageStatus, bytes | None, str]]:
        async with PhotoFetcher(policy) as fetcher:
            deadline = time.monotonic() + FETCH_DEADLINE_S
            fetched = await asyncio.gather(*(fetcher.fetch(url, deadline) for url in urls))
        return [(each.status, each.body, each.detail) for each in fetched]

    return asyncio.run(fetch_all())


def read_one(words: Sequence[str], title: str, policy: "AddressPolicy") -> Listing:
    """Make one listing of the command line: an existing file or an address is the photo, any other word the title.

    Raises:
        CommandError: a file that is not there, two photos, a photo that cannot be had, nothing at all.
    """
    photos = [word for word in words if is_address(word) or Path(word).is_file()]
    texts = [word for word in words if word not in photos]
    if missing := next((word for word in texts if Path(word).suffix.lower() in FILE_SUFFIXES), None):
        raise CommandError(f"there is no file {missing}; if it is meant as a title, say --title")
    if len(photos) > 1:
        raise CommandError(f"one photo at a time, not {len(photos)}: put several listings in a table (.tsv)")
    text = " ".join([*([title] if title else []), *texts])
    if not photos:
        if not text:
            raise CommandError("nothing to categorize: give a title, a photo file or address, or a .tsv table")
        return Listing("listing", title=text)
    return Listing("listing", title=text, image=_photo(photos[0], policy))


def _photo(word: str, policy: "AddressPolicy") -> bytes:
    if not is_address(word):
        return Path(word).read_bytes()
    status, body, detail = fetch_photos([word], policy)[0]
    if body is None:
        hint = "; admit a private host with --allow HOST" if status is ImageStatus.REFUSED else ""
        raise CommandError(f"the photo is {status.value}: {detail}{hint}")
    return body


def read_table(
    path: Path,
    title_column: str,
    photos: Path | None,
    policy: "AddressPolicy",
    size: int,
    chosen: Collection[int] | None = None,
) -> Iterator[list[Listing]]:
    """Read a table of listings in chunks, so that a million rows are never held.

    Args:
        path: tab-separated with a header, no quoting; `product_id` if there (else the row number), the title column,
            `image_url` if there.
        photos: folder or zip with `<product_id>.jpg`; None takes `photos.zip` or `photos/` beside the table, if any.
        size: listings per chunk.
        chosen: row numbers, from 1; None: all.
    """
    find = _photo_finder(photos or _photos_beside(path))
    numbered = (one for one in _rows(path, title_column) if chosen is None or one[0] in chosen)
    while chunk := list(islice(numbered, size)):
        listings = [
            Listing(key, title=row[title_column] or "", image=find(key))
            for key, row in ((row.get("product_id") or str(number), row) for number, row in chunk)
        ]
        urls = [row.get(URL_COLUMN) or "" for _, row in chunk]
        yield _with_fetched(listings, urls, policy)


def read_sample(
    path: Path, title_column: str, photos: Path | None, policy: "AddressPolicy", count: int
) -> list[Listing]:
    """Read so many listings from all over a table, in any order and the same each time; all where it has fewer.

    Args:
        path, title_column, photos: as in `read_table`.
    """
    rows = sum(1 for _ in _rows(path, title_column))
    chosen = set(random.Random(0).sample(range(1, rows + 1), min(count, rows)))
    listings = [one for chunk in read_table(path, title_column, photos, policy, _FETCHED, chosen) for one in chunk]
    random.Random(0).shuffle(listings)
    return listings


def _rows(path: Path, title_column: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table by their numbers, from 1."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if title_column not in (rows.fieldnames or ()):
            raise CommandError(f"{path} has no column {title_column!r}; name the one that holds titles: --title-column")
        yield from enumerate(rows, start=1)


def _with_fetched(listings: list[Listing], urls: list[str], policy: "AddressPolicy") -> list[Listing]:
    wanted = [place for place, listing in enumerate(listings) if listing.image is None and urls[place]]
    if not wanted:
        return listings
    for place, (status, body, _) in zip(wanted, fetch_photos([urls[p] for p in wanted], policy), strict=True):
        old = listings[place]
        reason = None if body is not None else status
        listings[place] = Listing(old.id, title=old.title, image=body, image_status=reason)
    return listings


def _photos_beside(table: Path) -> Path | None:
    return next((place for name in ("photos.zip", "photos") if (place := table.parent / name).exists()), None)


def _photo_finder(photos: Path | None) -> Callable[[str], bytes | None]:
    if photos is None:
        return lambda _key: None
    if photos.is_dir():
        return lambda key: file.read_bytes() if (file := photos / f"{Path(key).name}.jpg").is_file() else None
    try:
        archive = zipfile.ZipFile(photos)
    except (OSError, zipfile.BadZipFile) as error:
        raise CommandError(f"photos cannot be read from {photos}: {error}") from error
    names = set(archive.namelist())
    return lambda key: archive.read(f"{key}.jpg") if f"{key}.jpg" in names else None
