"""Listing i is a function of configuration and i; the tree, the skew and the kinds are as configured."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from math import dist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import RecipeError
from training.readers.shop import shop_config
from training.shop import catalogue, photos
from training.shop.draws import TOKEN_LIMIT, Draws, Tokens, key_of
from training.shop.shop import MOST_LISTINGS, REVISIONS, Kind, PhotoState, Shop, ShopConfig, ShopListing
from training.shop.titles import BRAND_RANGES, TEMPLATES

CONFIG = ShopConfig()


def some(count: int = 3_000, **changes: object) -> list[ShopListing]:
    return list(Shop(replace(CONFIG, **changes)).listings(count))  # type: ignore[arg-type]


@given(st.integers(0, MOST_LISTINGS - 1), st.integers(0, REVISIONS - 1))
def test_a_listing_does_not_depend_on_what_was_made_before(index: int, revision: int) -> None:
    fresh, used = Shop(CONFIG), Shop(CONFIG)
    used.listing(0)
    used.listing(index, (revision + 1) % REVISIONS)
    assert used.listing(index, revision) == fresh.listing(index, revision)


def test_listings_stay_what_they_were_in_another_version_of_this_code() -> None:
    listing = Shop(CONFIG).listing(123_456)
    assert (listing.product_id, listing.photo_token) == ("pe88fddf890c8", "7b1e3ceb3ce5")
    assert listing.title == "lite EX37 soft women trend sale / Jubel (winter premium limited official official daily)"


def test_a_million_listings_stream_without_being_held() -> None:
    shop = Shop(CONFIG)
    shop.listing(0)
    tracemalloc.start()
    try:
        stream = shop.listings(1_000_000)
        last = next(islice(stream, 3_000, None))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert last == shop.listing(3_000)


def test_another_seed_and_another_split_are_other_listings() -> None:
    first, *others = (
        [(listing.product_id, listing.title) for listing in Shop(config).listings(50)]
        for config in (CONFIG, replace(CONFIG, seed=8), CONFIG.demo())
    )
    for other in others:
        assert not set(first) & set(other)


def test_the_splits_share_no_template_and_the_demo_knows_unseen_brands() -> None:
    assert not set(TEMPLATES["train"]) & set(TEMPLATES["demo"])
    assert BRAND_RANGES["demo"][1] > BRAND_RANGES["train"][1]
    train = {listing.brand for listing in some(3_000)}
    demo = {listing.brand for listing in some(3_000, split="demo")}
    assert train & demo
    assert demo - train


def test_where_a_photo_shows_several_things_the_title_names_the_corner_of_the_one_that_is_sold() -> None:
    assert set(catalogue.CORNERS) == set(photos.CORNERS)
    names = {word for words in catalogue.CORNERS.values() for word in (*words.korean, *words.english)}
    corners = Counter[str]()
    for listing in some(400, things=3, difficulty=0.0, absent_share=0.0):
        assert listing.photo is not None
        sold, *others = listing.photo.things
        assert len(others) == 2
        assert sold.silhouette not in {other.silhouette for other in others}
        corner = min(photos.CORNERS, key=lambda name: dist(photos.CORNERS[name], (sold.x, sold.y)))
        corners[corner] += 1
        words = catalogue.CORNERS[corner]
        assert {word for word in names if word in listing.title} & {*words.korean, *words.english}
    assert min(corners.values()) > 60, "each as likely, whatever is sold"
    assert not any(word in listing.title for word in names for listing in some(400))


def test_the_tree_has_absent_levels_and_nodes_that_stop_and_go_on() -> None:
    tree = catalogue.taxonomy()
    ids = [tuple(node.id for node in path) for path in tree.paths]
    assert 40 <= len(ids) <= 60
    assert {len(path) for path in ids} == {2, 3, 4}
    assert any(other[: len(path)] == path and other != path for path in ids for other in ids)
    assert len({category.thing for category in catalogue.categories()}) == 12


def test_a_photo_alone_decides_exactly_the_things_with_one_path() -> None:
    paths = Counter(category.thing for category in catalogue.categories())
    for category in catalogue.categories():
        assert category.photo_decides == (paths[category.thing] == 1)


def test_each_kind_says_what_it_should_and_no_more() -> None:
    words = {word for names in catalogue.THINGS.values() for word in (*names.korean, *names.english)}
    by_ids = {category.ids: category for category in catalogue.categories()}
    for listing in some(2_000, difficulty=0.0, absent_share=0.0):
        category = by_ids[listing.content_path]
        assert listing.photo is not None
        assert listing.photo.things[0].silhouette == (catalogue.BOX if listing.kind is Kind.TEXT else category.thing)
        said = words & set(listing.title.translate({ord(sign): " " for sign in "[](){}<>#"}).split())
        assert bool(said) == (listing.kind is Kind.TEXT), listing.title
        if listing.kind is Kind.PHOTO:
            assert category.photo_decides


def test_shares_skew_and_label_noise_are_as_configured() -> None:
    listings = some(6_000, label_noise=0.1)
    kinds = Counter(listing.kind for listing in listings)
    assert kinds[Kind.TEXT] / 6_000 == pytest.approx(CONFIG.text_share, abs=0.03)
    assert kinds[Kind.PHOTO] / 6_000 == pytest.approx(CONFIG.photo_share, abs=0.03)
    wrong = sum(listing.path != listing.content_path for listing in listings)
    assert wrong / 6_000 == pytest.approx(0.1, abs=0.02)
    counts = Counter(listing.content_path for listing in listings)
    assert len(counts) == len(catalogue.categories())
    flat = Counter(listing.content_path for listing in some(6_000, skew=0.0))
    assert max(counts.values()) > 1.5 * max(flat.values())


def test_photo_states_are_drawn_by_their_shares_and_keep_their_promise() -> None:
    shop = Shop(replace(CONFIG, absent_share=0.2, dead_share=0.2, broken_share=0.2))
    listings = list(shop.listings(400))
    assert Counter(listing.photo_state for listing in listings).keys() == set(PhotoState)
    for listing in listings[:60]:
        photo = shop.photo_bytes(listing, 64)
        assert (photo is None) == (listing.photo_state in (PhotoState.ABSENT, PhotoState.DEAD))
        assert bool(listing.photo_token) == (listing.photo_state is not PhotoState.ABSENT)


def test_ids_and_addresses_lead_back_to_their_listing() -> None:
    shop = Shop(replace(CONFIG, absent_share=0.0))
    for index in (0, 1, 77, MOST_LISTINGS - 1):
        listing = shop.listing(index, 3)
        assert shop.index_of(listing.product_id) == index
        assert shop.by_photo_token(listing.photo_token) == listing


@pytest.mark.parametrize("address", ["", "nothing", "0123456789AB", "0123456789abc", "../../../etc"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Shop(CONFIG).by_photo_token(address)


@given(st.integers(0, TOKEN_LIMIT - 1), st.integers(0, 2**64))
def test_tokens_lead_back_to_their_number(number: int, seed: int) -> None:
    tokens = Tokens(key_of(seed))
    assert tokens.show(tokens.hide(number)) == number


def test_neighbouring_numbers_have_unlike_tokens() -> None:
    tokens = Tokens(key_of("a"))
    values = [int(tokens.hide(number), 16) for number in range(1_000)]
    assert len(set(values)) == 1_000
    rising = sum(later > earlier for earlier, later in pairwise(values))
    assert 420 < rising < 580


def test_weighted_draws_follow_their_weights() -> None:
    draws = Draws(key_of("w"), 0)
    counts = Counter(draws.weighted((0.5, 0.75, 1.0)) for _ in range(4_000))
    assert [counts[place] / 4_000 for place in range(3)] == pytest.approx([0.5, 0.25, 0.25], abs=0.04)


@pytest.mark.parametrize(
    "wrong",
    [{"text_share": 1.1}, {"text_share": 0.7, "photo_share": 0.7}, {"skew": -1.0}, {"difficulty": 2.0}, {"split": "x"}],
)
def test_a_configuration_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|sum"):
        ShopConfig(**wrong)  # type: ignore[arg-type]


def test_parameters_of_the_shop_are_given_as_words_and_checked() -> None:
    changed = shop_config(["things=4", "difficulty=0.6", "photo_bytes=[70000, 80000]"])
    assert (changed.things, changed.difficulty, changed.photo_bytes) == (4, 0.6, (70_000, 80_000))
    with pytest.raises(RecipeError, match="has no thing: it has seed"):
        shop_config(["thing=4"])
    for wrong in ("things=5", "things=many", "text_share=0.9"):
        with pytest.raises(RecipeError, match="the shop cannot be so"):
            shop_config([wrong])
