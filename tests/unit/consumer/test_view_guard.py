"""What saw more of a listing stays, whatever model saw less."""

import json

import pytest

from consumer.rank import Rank
from consumer.view_guard import saw_more

BLIND, SEEING = Rank(5, 0, 2, 1), Rank(5, 0, 2, 2)


def _result(image: str = "unavailable", input_hash: str = "a", offset: int = 1) -> bytes:
    return json.dumps({"image": image, "input_hash": input_hash, "origin": {"offset": offset}}).encode()


@pytest.mark.parametrize(
    ("held", "ours", "value", "stays"),
    [
        (_result("used"), BLIND, _result(), True),
        (_result("used", offset=0), BLIND, _result(), True),  # registered again as it was
        (_result("used", "b"), BLIND, _result(), True),  # from the same event
        (_result("used", "b", 0), BLIND, _result(), False),  # another listing
        (_result("unavailable"), BLIND, _result(), False),
        (_result("used"), SEEING, _result("used"), False),
        (_result("used"), Rank(5, 2, 2, 0), None, False),  # a deletion
        (None, BLIND, _result(), False),
    ],
)
def test_an_answer_that_saw_the_photo_of_the_same_listing_stays(
    held: bytes | None, ours: Rank, value: bytes | None, stays: bool
) -> None:
    assert saw_more(held, ours, value) is stays
