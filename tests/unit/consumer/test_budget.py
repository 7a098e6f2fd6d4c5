"""What is held at once: full at the limit. There room is waited for a moment, and after a pause for half of it."""

import threading

from consumer.budget import Budget
from tests.support.waiting import eventually

LONG_S = 60.0


def filled(items: int = 16) -> Budget:
    budget = Budget(1_000, items)
    budget.add(160, items)
    return budget


def test_it_is_full_at_the_limit_and_who_has_paused_waits_for_half_of_it() -> None:
    budget = filled(4)
    seen = [(budget.full, budget.half_free)]
    for _ in range(2):
        budget.release(40)
        seen.append((budget.full, budget.half_free))
    assert seen == [(True, False), (False, False), (False, True)]


def test_bytes_at_their_limit_leave_no_room_for_listings() -> None:
    budget = filled()
    budget.release(20, 2)
    assert budget.room == 2
    budget.resize(140, 1_000)
    assert (budget.room, budget.full) == (0, True)


def test_below_the_limit_nobody_waits_for_room() -> None:
    budget = filled()
    budget.release(10)
    budget.wait_room(LONG_S)


def test_at_the_limit_nobody_waits_for_ever() -> None:
    filled().wait_room(0.0)


def test_at_the_limit_room_is_waited_for_until_an_eighth_is_free() -> None:
    looked = threading.Semaphore(0)

    def beside() -> int:
        looked.release()
        return 0

    budget = Budget(1_000, 16, beside)
    budget.add(160, 16)
    waiting = threading.Thread(target=budget.wait_room, args=(LONG_S,), daemon=True)
    waiting.start()
    for _ in range(2):  # is it at the limit, and is there room
        assert looked.acquire(timeout=LONG_S)
    budget.release(10)
    assert looked.acquire(timeout=LONG_S), "it looks again"
    assert not looked.acquire(timeout=0.01), "one listing is not worth a poll"
    assert waiting.is_alive()
    budget.release(10)
    eventually(lambda: not waiting.is_alive(), "an eighth is free")
