"""Whatever is applied, in whatever order, however often: the view ends with the highest rank, last among equals."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.rank import Rank
from consumer.view import Ranked, View
from consumer.view_keys import product_key

PRODUCTS = ("a", "b", "c")
# Small numbers collide (equal ranks), 9 and 10 differ as text, large ones sit at the edge of exact doubles.
PART = st.sampled_from([0, 1, 2, 9, 10, 11, 2**53 - 2, 2**53 - 1])
RANKS = st.builds(Rank, PART, st.sampled_from([0, 1]), PART, st.sampled_from([0, 1, 2]))
RECORDS = st.builds(Ranked, st.sampled_from(PRODUCTS), RANKS, st.binary(max_size=4)) | st.builds(
    lambda product, order: Ranked(product, Rank(order, 2, 0, 0), None), st.sampled_from(PRODUCTS), PART
)


def winners(records: Sequence[Ranked]) -> dict[str, tuple[Rank, bytes | None]]:
    held: dict[str, tuple[Rank, bytes | None]] = {}
    for record in records:
        if record.product_id not in held or record.rank >= held[record.product_id][0]:
            held[record.product_id] = (record.rank, record.result)
    return held


@st.composite
def readings(draw: st.DrawFn) -> tuple[list[Ranked], list[tuple[int, int]]]:
    """A log, and spans of it in the order in which a writer that keeps losing its way reads them.

    Each span starts at or before the end of what was read so far, as positions written after their values make sure.
    """
    log = draw(st.lists(RECORDS, min_size=1, max_size=30))
    spans: list[tuple[int, int]] = []
    read = 0
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, read))
        end = draw(st.integers(start, len(log)))
        spans.append((start, end))
        read = max(read, end)
    # The last reading goes on to the end from where a position may stand: nowhere past what every reading covered,
    # and never inside a span that an earlier reading left off before.
    spans.append((draw(st.integers(0, min([read, *(end for _, end in spans)], default=0))), len(log)))
    return log, spans


@given(readings())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.integration
def test_view_is_the_winner_of_each_product_after_any_replays(
    valkey_url: str, reading: tuple[list[Ranked], list[tuple[int, int]]]
) -> None:
    log, spans = reading
    view = View(valkey_url, "property", marker_life_s=3600)
    view.connect()
    view.ask([("DEL", *(product_key("property", product) for product in PRODUCTS))])
    for start, end in spans:
        view.apply(log[start:end])
    expected = winners(log)
    assert view.mget(PRODUCTS) == [expected.get(product) for product in PRODUCTS]
    view.close()
