"""A title's length, words and bytes are drawn before its category, and its category words stand in it."""

import numpy as np
import pytest

from training.shop.catalogue import THINGS, USES
from training.shop.draws import Draws, key_of
from training.shop.titles import Split, draw_title

KEY = key_of("titles")


def sizes(thing: str, use: str, count: int = 400) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Characters, words and bytes of `count` titles."""
    titles = [draw_title(Draws(KEY, index), "train", thing, use, 0.5).text for index in range(count)]
    return np.array([(len(title), len(title.split()), len(title.encode())) for title in titles])


@pytest.mark.parametrize(("thing", "use"), [("shoe", "men"), ("trousers", "outdoor"), ("guitar", ""), ("", "school")])
def test_length_does_not_tell_whether_or_what_a_title_says(thing: str, use: str) -> None:
    silent, telling = sizes("", ""), sizes(thing, use)
    assert np.abs(silent.mean(0) - telling.mean(0)).max() < 0.12 * silent.std(0).min()


@pytest.mark.parametrize("split", ["train", "demo"])
def test_a_title_says_thing_and_use_in_words_of_the_catalogue(split: Split) -> None:
    for index in range(300):
        text = draw_title(Draws(KEY, index), split, "bag", "pet", 0.0).text
        for names in (THINGS["bag"], USES["pet"]):
            assert any(word in text for word in (*names.korean, *names.english)), text


def test_titles_are_korean_english_and_mixed_and_fit_an_event() -> None:
    texts = [draw_title(Draws(KEY, index), "train", "shoe", "men", 0.5).text for index in range(500)]
    hangul = [sum("가" <= character <= "힣" for character in text) for text in texts]
    assert min(hangul) == 0
    assert max(hangul) > 20
    assert max(map(len, texts)) < 200
    assert len(set(texts)) == 500


def test_the_brand_stands_in_the_title() -> None:
    for index in range(100):
        title = draw_title(Draws(KEY, index), "demo", "shoe", "men", 0.5)
        assert title.brand in title.text
