"""What is held at once: full at the limit, not full again before half is free."""

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
