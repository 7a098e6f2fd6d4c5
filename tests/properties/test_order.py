"""The order of training rows: nothing is lost or repeated within a pass, and it is the same however it is dealt."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.order import Order

sizes = st.integers(1, 40)


@given(count=sizes, size=sizes, seed=st.integers(0, 9), passes=st.integers(1, 3))
def test_every_row_comes_once_before_any_comes_again(count: int, size: int, seed: int, passes: int) -> None:
    order = Order(np.arange(100, 100 + count), size, seed)
    steps = -(-passes * count // order.size)
    stream = np.concatenate([order.batch(step).rows for step in range(steps)])
    for number in range(passes):
        assert sorted(stream[number * count : (number + 1) * count]) == list(range(100, 100 + count))


@given(count=sizes, size=sizes, step=st.integers(0, 50), seed=st.integers(0, 9))
def test_a_batch_depends_on_seed_and_step_and_not_on_what_was_asked_before(
    count: int, size: int, step: int, seed: int
) -> None:
    rows, before = np.arange(count), Order(np.arange(count), size, seed)
    for earlier in range(step):
        before.batch(earlier)
    one, other = before.batch(step), Order(rows, size, seed).batch(step)
    assert one.rows.tolist() == other.rows.tolist()
    assert one.dice.tolist() == other.dice.tolist()


@given(count=sizes, size=sizes, step=st.integers(0, 9), processes=st.integers(1, 4), pieces=st.integers(1, 4))
def test_processes_and_pieces_share_the_very_batch(
    count: int, size: int, step: int, processes: int, pieces: int
) -> None:
    order = Order(np.arange(count), size, seed=1)
    whole = order.batch(step)
    dealt = [piece for process in range(processes) for piece in order.pieces(step, process, processes, pieces)]
    assert np.concatenate([piece.rows for piece in dealt]).tolist() == whole.rows.tolist()
    assert np.concatenate([piece.dice for piece in dealt]).tolist() == whole.dice.tolist()
