"""The shop itself: listing i as a function of its configuration and i, and nothing else.

Three kinds of listings make both modalities needed: of a `text` listing the photo shows only a box and the title says
all; of a `photo` listing the title says only brand and codes and the photo decides; of a `both` listing the photo shows
the thing and the title says for whom or for what. Where photos show several things, the title says in which corner the
one is that is sold. A million listings are made one by one and never held.

After catalogue.py, titles.py, photos.py; before stream.py, photo_host.py and training.readers.shop.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import accumulate

from mmcat.taxonomy import Taxonomy
from training.shop import catalogue
from training.shop.catalogue import Category
from training.shop.draws import TOKEN_LIMIT, Draws, Tokens, key_of
from training.shop.photos import CORNERS, FULL_PX, PhotoSpec, draw_photo, render
from training.shop.titles import Split, draw_title

REVISIONS = 16  # versions of one listing; a token holds index · 16 + revision
MOST_LISTINGS = TOKEN_LIMIT // REVISIONS
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_GAP_MS = 137  # between two registrations of the shop's own clock
_CLOCK_LISTINGS = 1 << 31  # after nine years it begins anew: dates end in the year 9999


class Kind(StrEnum):
    """Which modality knows the answer."""

    TEXT = "text"
    PHOTO = "photo"
    BOTH = "both"


class PhotoState(StrEnum):
    """What the photo host has for a listing."""

    FINE = "fine"
    ABSENT = "absent"  # the listing names no photo
    DEAD = "dead"  # the address answers 404
    BROKEN = "broken"  # the address answers with bytes that are no photo


@dataclass(frozen=True, slots=True)
class ShopConfig:
    """Everything that decides the shop.

    Args:
        split: "train" or "demo"; other random numbers, other title templates, partly other brands.
        text_share, photo_share: shares of the kinds; the rest is `both`. The text share is the share of box photos.
        skew: exponent of the Zipf law over paths; 0: all as common.
        label_noise: share of listings that their seller has put into a wrong path.
        difficulty: 0 … 1; turned, stretched, moved and pale silhouettes, misspelt words.
        clutter: mean number of spots in a photo that are no things.
        things: in a photo, 1 … 4; of several each has a corner, and the title names that of the one that is sold.
        absent_share, dead_share, broken_share: of listings, by state of the photo.
        photo_bytes: smallest and largest photo file at full size.
    """

    seed: int = 7
    split: Split = "train"
    text_share: float = 0.40
    photo_share: float = 0.25
    skew: float = 0.6
    label_noise: float = 0.02
    difficulty: float = 0.3
    clutter: float = 1.0
    things: int = 1
    absent_share: float = 0.02
    dead_share: float = 0.01
    broken_share: float = 0.01
    photo_bytes: tuple[int, int] = (60_000, 120_000)

    def __post_init__(self) -> None:
        for name in ("text_share", "photo_share", "label_noise", "difficulty"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0 … 1, not {getattr(self, name)}")
        if self.text_share + self.photo_share > 1 or self.absent_share + self.dead_share + self.broken_share > 1:
            raise ValueError("shares of kinds, and shares of photo states, must not exceed 1 in sum")
        if min(self.skew, self.clutter, self.absent_share, self.dead_share, self.broken_share) < 0:
            raise ValueError("skew, clutter and shares must not be negative")
        if not 1 <= self.things <= len(CORNERS):
            raise ValueError(f"things must lie in 1 … {len(CORNERS)}, not {self.things}")
        if self.split not in ("train", "demo"):
            raise ValueError(f"split must be train or demo, not {self.split!r}")

    def demo(self) -> "ShopConfig":
        """The same shop as the demo sees it: other listings, other titles, the truth as labels."""
        return replace(self, split="demo", label_noise=0.0)


@dataclass(frozen=True, slots=True)
class ShopListing:
    """One version of one product.

    Args:
        revision: 0 as first registered.
        path: ids from main to stop level as the seller recorded them; differs from the truth by label noise.
        content_path: what title and photo say.
        photo: None where the listing has no photo; DEAD and BROKEN ones have a spec that is not to be served.
        photo_token: what the address says, "" without a photo.
    """

    index: int
    revision: int
    product_id: str
    title: str
    brand: str
    path: tuple[str, ...]
    content_path: tuple[str, ...]
    kind: Kind
    photo: PhotoSpec | None
    photo_state: PhotoState
    photo_token: str
    registered_at: str


class Shop:
    """Makes listings. Holds no listing; thread-safe."""

    def __init__(self, config: ShopConfig) -> None:
        self.config = config
        self.taxonomy: Taxonomy = catalogue.taxonomy()
        self._key = key_of("listing", config.seed, config.split)
        self._product_tokens = Tokens(key_of("product", config.seed, config.split))
        self._photo_tokens = Tokens(key_of("photo", config.seed, config.split))

    def listing(self, index: int, revision: int = 0) -> ShopListing:
        """Listing `index` in its version `revision`; every version is drawn anew, title, photo and path.

        Raises:
            ValueError: an index or a revision that no token holds.
        """
        if not 0 <= index < MOST_LISTINGS or not 0 <= revision < REVISIONS:
            raise ValueError(f"no listing {index} in version {revision}")
        number = index * REVISIONS + revision
        draws = Draws(self._key, number)
        config = self.config
        kind, category = self._category(draws)
        title_thing = category.thing if kind is Kind.TEXT else ""
        title_use = category.use if kind is not Kind.PHOTO else ""
        silhouette = catalogue.BOX if kind is Kind.TEXT else category.thing
        corners = self._corners(draws, silhouette)
        title = draw_title(draws, config.split, title_thing, title_use, config.difficulty, next(iter(corners), ""))
        photo = draw_photo(draws, silhouette, config.difficulty, config.clutter, config.photo_bytes, corners)
        state = self._photo_state(draws)
        path = category.ids
        if draws.chance(config.label_noise):
            path = draws.choice([other.ids for other in catalogue.categories() if other != category])
        has_photo = state is not PhotoState.ABSENT
        return ShopListing(
            index=index,
            revision=revision,
            product_id=f"p{self._product_tokens.hide(index)}",
            title=title.text,
            brand=title.brand,
            path=path,
            content_path=category.ids,
            kind=kind,
            photo=photo if has_photo else None,
            photo_state=state,
            photo_token=self._photo_tokens.hide(number) if has_photo else "",
            registered_at=(_EPOCH + timedelta(milliseconds=_GAP_MS * (index % _CLOCK_LISTINGS))).isoformat(
                timespec="milliseconds"
            ),
        )

    def listings(self, count: int, start: int = 0) -> Iterator[ShopListing]:
        """Listings start … start + count - 1, made as they are asked for."""
        return (self.listing(index) for index in range(start, start + count))

    def photo_bytes(self, listing: ShopListing, px: int = FULL_PX) -> bytes | None:
        """What the photo's address answers with; None where it answers 404 or there is no address."""
        if listing.photo is None or listing.photo_state is PhotoState.DEAD:
            return None
        if listing.photo_state is PhotoState.BROKEN:
            return render(listing.photo, px)[: 300 + listing.photo.file_bytes % 400]  # cut off, as a broken upload is
        return render(listing.photo, px)

    def by_photo_token(self, token: str) -> ShopListing:
        """The listing whose photo has this address.

        Raises:
            ValueError: not a token.
        """
        index, revision = divmod(self._photo_tokens.show(token), REVISIONS)
        return self.listing(index, revision)

    def index_of(self, product_id: str) -> int:
        """The index behind a product id. Raises ValueError for what is no product id."""
        if not product_id.startswith("p"):
            raise ValueError(f"not a product id: {product_id[:20]!r}")
        return self._product_tokens.show(product_id[1:])

    def _corners(self, draws: Draws, sold: str) -> dict[str, str]:
        """Silhouette by corner, the one that is sold first; empty where a photo shows one thing."""
        if self.config.things == 1:
            return {}
        others = draws.shuffled([name for name in catalogue.THINGS if name != sold])
        return dict(zip(draws.shuffled(list(CORNERS)), [sold, *others[: self.config.things - 1]], strict=False))

    def _category(self, draws: Draws) -> tuple[Kind, Category]:
        config = self.config
        place = draws.weighted((config.text_share, config.text_share + config.photo_share, 1.0))
        kind = (Kind.TEXT, Kind.PHOTO, Kind.BOTH)[place]
        categories, cumulative = self._choices[kind]
        return kind, categories[draws.weighted(cumulative)]

    @cached_property
    def _choices(self) -> dict[Kind, tuple[list[Category], list[float]]]:
        """Per kind the paths that it can decide, and their cumulative Zipf shares."""
        choices = {}
        for kind in Kind:
            able = [
                category
                for category in catalogue.categories()
                if kind is Kind.TEXT or category.photo_decides == (kind is Kind.PHOTO)
            ]
            weights = [1 / (rank + 1) ** self.config.skew for rank in range(len(able))]
            total = sum(weights)
            choices[kind] = (able, [weight / total for weight in accumulate(weights)])
        return choices

    def _photo_state(self, draws: Draws) -> PhotoState:
        config = self.config
        value = draws.uniform()
        for share, state in (
            (config.absent_share, PhotoState.ABSENT),
            (config.dead_share, PhotoState.DEAD),
            (config.broken_share, PhotoState.BROKEN),
        ):
            if value < share:
                return state
            value -= share
        return PhotoState.FINE
