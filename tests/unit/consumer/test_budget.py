"""What is held at once: full at the limit, not full again before half is free, and waiting for that."""

import threading

from consumer.budget import Budget


def test_it_stays_full_until_half_of_the_limit_is_free() -> None:
    budget = Budget(1_000, 4)
    for _ in range(4):
        budget.add(1)
    seen = [budget.full()]
    for _ in range(2):
        budget.release(1)
        seen.append(budget.full())
    assert seen == [True, True, False]


def test_who_waits_for_room_is_woken_by_the_release_that_makes_it() -> None:
    budget = Budget(1_000, 4)
    for _ in range(4):
        budget.add(1)
    assert budget.full()
    waiting, got = threading.Event(), []

    def wait() -> None:
        waiting.set()
        got.append(budget.wait_room(30.0))

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert waiting.wait(10)
    budget.release(1)
    budget.release(1)
    waiter.join(10)
    assert got == [True]


def test_waiting_for_room_ends_when_there_is_none() -> None:
    budget = Budget(1_000, 1)
    budget.add(1)
    assert budget.full()
    assert not budget.wait_room(0.01)
