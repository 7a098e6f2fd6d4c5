"""The batcher loses, repeats and delays nothing."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from consumer.batching import Batcher


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


steps = st.lists(st.tuples(st.integers(1, 50), st.sampled_from([0.0, 0.01, 0.2])), max_size=60)


@given(steps, st.integers(1, 8), st.integers(1, 100))
def test_every_item_comes_out_once_in_order_and_batches_keep_their_bounds(
    puts: list[tuple[int, float]], max_items: int, max_bytes: int
) -> None:
    clock = Clock()
    batcher: Batcher[tuple[int, int, float]] = Batcher(max_items, max_bytes, 0.1, clock)
    out: list[tuple[int, int, float]] = []

    def take() -> None:
        while batch := batcher.take(0):
            assert len(batch) <= max_items
            assert sum(size for _, size, _ in batch) <= max_bytes or len(batch) == 1
            out.extend(batch)
        held = puts_so_far[len(out) :]
        assert all(clock.now - ready < 0.1 for _, _, ready in held), "older than the window and still held"

    puts_so_far: list[tuple[int, int, float]] = []
    for number, (size, wait) in enumerate(puts):
        item = (number, size, clock.now)
        puts_so_far.append(item)
        batcher.put([(item, size)])
        take()
        clock.now += wait
        take()
    batcher.close()
    take()
    assert out == puts_so_far
    assert len(batcher) == 0


def test_window_opens_at_the_first_listing_that_is_ready() -> None:
    clock = Clock()
    batcher: Batcher[str] = Batcher(10, 1000, 0.05, clock)
    clock.now += 3600  # an idle hour opens no window
    batcher.put([("a", 1)])
    assert batcher.take(0) == []
    clock.now += 0.04
    batcher.put([("b", 1)])
    assert batcher.take(0) == []
    clock.now += 0.011
    assert batcher.take(0) == ["a", "b"]


def test_a_full_batch_does_not_wait() -> None:
    batcher: Batcher[str] = Batcher(2, 1000, 3600)
    for item in "abc":
        batcher.put([(item, 1)])
    assert batcher.take(60) == ["a", "b"]


def test_take_wakes_when_a_batch_fills_or_the_window_closes() -> None:
    batcher: Batcher[int] = Batcher(2, 1000, 0.02)
    taken: list[list[int]] = []
    thread = threading.Thread(target=lambda: taken.extend([batcher.take(60), batcher.take(60)]))
    thread.start()
    batcher.put([(1, 1)])
    batcher.put([(2, 1)])
    batcher.put([(3, 1)])
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(number for batch in taken for number in batch) == [1, 2, 3]
