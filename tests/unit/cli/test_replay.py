"""What `mmcat replay --from` and `--to` understand."""

from datetime import UTC, datetime, timedelta

import pytest

from consumer.spans import Bound
from mmcat.cli.replay_words import read_bound
from mmcat.cli.texts import CommandError

NOW = datetime(2026, 5, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "bound"),
    [
        ("", Bound()),
        ("0", Bound(offset=0)),
        ("1200", Bound(offset=1200)),
        ("0:5,3:990", Bound(offsets={0: 5, 3: 990})),
        ("2026-05-01T00:00:00Z", Bound(time_ms=1_777_593_600_000)),
        ("2026-05-01T09:00:00+09:00", Bound(time_ms=1_777_593_600_000)),
        ("15m", Bound(time_ms=int((NOW - timedelta(minutes=15)).timestamp() * 1000))),
        ("7d", Bound(time_ms=int((NOW - timedelta(days=7)).timestamp() * 1000))),
    ],
)
def test_a_bound_is_a_time_a_while_ago_or_offsets(word: str, bound: Bound) -> None:
    assert read_bound(word, NOW) == bound


@pytest.mark.parametrize("word", ["yesterday", "-5", "1:2:3", "5w", "2026-05-01T00:00:00", "0:5,"])
def test_what_is_no_bound_is_told_what_one_is(word: str) -> None:
    with pytest.raises(CommandError, match=r"is not a time|time zone"):
        read_bound(word, NOW)
