"""What `mmcat predict` is given, as listings: words of a title, a photo file or address, a table of listings.

Addresses go through the consumer's fetcher and its address rules, so that a table from a stranger cannot make this
machine ask its own network. After this: `predict`, which has the model answer.
"""

import asyncio
import csv
import random
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmcat.cli.texts import CommandError
from mmcat.listing import ImageStatus, Listing, Prepared

if TYPE_CHECKING:
    from consumer.fetch import Fetched
    from consumer.fetch.addresses import AddressPolicy

__all__ = ["address_policy", "fetch_photos", "is_address", "read_one", "read_sample", "read_table"]

FETCH_DEADLINE_S = 15.0
"""A person waits for one photo; the service gives it 3 s."""
_FETCHED = 64  # photos at addresses that are asked for together
FILE_SUFFIXES = frozenset({".tsv", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
URL_COLUMN = "image_url"
Taken = TypeVar("Taken")


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


def fetch_photos(urls: Sequence[str], policy: "AddressPolicy", take: Callable[[int, "Fetched"], Taken]) -> list[Taken]:
    """Fetch photos at the same time; blocks up to the deadline, and for what is made of them.

    Large photos are read only as far as the service would hold them at once: what waits for `take` is in memory.

    Args:
        take: makes of each what is kept, given its place; in a thread, as soon as it is there.

    Returns:
        What `take` made, by place.
    """
    from consumer.fetch import LargeBodies, PhotoFetcher
    from consumer.settings import LimitSettings

    async def fetch_all() -> list[Taken]:
        bodies = LargeBodies(LimitSettings().large_photo_bytes)
        with ThreadPoolExecutor(2, "decode") as decoders:
            async with PhotoFetcher(policy, bodies=bodies) as fetcher:
                deadline = time.monotonic() + FETCH_DEADLINE_S

                async def one(place: int, url: str) -> Taken:
                    fetched = await fetcher.fetch(url, deadline)
                    return await asyncio.get_running_loop().run_in_executor(decoders, take, place, fetched)

                return await asyncio.gather(*(one(place, url) for place, url in enumerate(urls)))

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
    (got,) = fetch_photos([word], policy, lambda _, fetched: fetched)
    if got.body is None:
        hint = "; admit a private host with --allow HOST" if got.status is ImageStatus.REFUSED else ""
        raise CommandError(f"the photo is {got.status.value}: {got.detail}{hint}")
    return got.body


def read_table(
    path: Path,
    title_column: str,
    photos: Path | None,
    policy: "AddressPolicy",
    size: int,
    prepare: Callable[[Listing], Prepared],
    chosen: Collection[int] | None = None,
) -> Iterator[list[Prepared]]:
    """Read a table of listings in chunks, so that a million rows are never held, nor their photos once decoded.

    Args:
        path: tab-separated with a header, no quoting; `product_id` if there (else the row number), the title column,
            and if there `brand`, `maker`, `model` and `image_url`.
        photos: folder or zip with `<product_id>.jpg`; None takes `photos.zip` or `photos/` beside the table, if any.
        size: listings per chunk.
        prepare: the model's CPU part; called as soon as a listing's photo is there, in any thread.
        chosen: row numbers, from 1; None: all.
    """
    find = _photo_finder(photos or _photos_beside(path))
    numbered = (one for one in _rows(path, title_column) if chosen is None or one[0] in chosen)
    while chunk := list(islice(numbered, size)):
        listings = [_listing(number, row, title_column) for number, row in chunk]
        urls = [row.get(URL_COLUMN) or "" for _, row in chunk]
        yield _prepared(listings, urls, find, policy, prepare)


def read_sample(
    path: Path,
    title_column: str,
    photos: Path | None,
    policy: "AddressPolicy",
    count: int,
    prepare: Callable[[Listing], Prepared],
) -> list[Prepared]:
    """Read so many listings from all over a table, in any order and the same each time; all where it has fewer.

    Args:
        path, title_column, photos, prepare: as in `read_table`.
    """
    rows = sum(1 for _ in _rows(path, title_column))
    chosen = set(random.Random(0).sample(range(1, rows + 1), min(count, rows)))
    chunks = read_table(path, title_column, photos, policy, _FETCHED, prepare, chosen)
    sample = [one for chunk in chunks for one in chunk]
    random.Random(0).shuffle(sample)
    return sample


def _rows(path: Path, title_column: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table by their numbers, from 1."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if title_column not in (rows.fieldnames or ()):
            raise CommandError(f"{path} has no column {title_column!r}; name the one that holds titles: --title-column")
        yield from enumerate(rows, start=1)


def _listing(number: int, row: Mapping[str, str], title_column: str) -> Listing:
    """Without its photo."""
    brand, maker, model = (row.get(name) or "" for name in ("brand", "maker", "model"))
    return Listing(row.get("product_id") or str(number), row[title_column] or "", None, brand, maker, model)


def _prepared(
    listings: Sequence[Listing],
    urls: Sequence[str],
    find: Callable[[str], bytes | None],
    policy: "AddressPolicy",
    prepare: Callable[[Listing], Prepared],
) -> list[Prepared]:
    """Each with the photo that lies beside the table, else with that of its address, if any."""
    ready: dict[int, Prepared] = {}
    for place, listing in enumerate(listings):
        image = find(listing.id)
        if image is not None or not urls[place]:
            ready[place] = prepare(replace(listing, image=image))
    wanted = [place for place in range(len(listings)) if place not in ready]

    def take(number: int, got: "Fetched") -> Prepared:
        status = got.status if got.body is None else None
        return prepare(replace(listings[wanted[number]], image=got.body, image_status=status))

    if wanted:
        ready |= zip(wanted, fetch_photos([urls[place] for place in wanted], policy, take), strict=True)
    return [ready[place] for place in range(len(listings))]


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
