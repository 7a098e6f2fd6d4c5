"""Events of one product go in the order in which they came, under any order of readiness; others do not wait."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from consumer.ordering import Ordering


@dataclass(eq=False)
class Item:
    product_id: str
    number: int
    ready: bool = False


@given(st.data(), st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_each_product_keeps_its_order_and_nobody_is_forgotten(data: st.DataObject, products: list[str]) -> None:
    items = [Item(product, number) for number, product in enumerate(products)]
    ordering: Ordering[Item] = Ordering()
    for item in items:
        ordering.enter(item)
    gone: list[Item] = []
    for item in data.draw(st.permutations(items)):
        turn: Item | None = item if ordering.mark_ready(item) else None
        while turn is not None:
            gone.append(turn)
            turn = ordering.leave(turn)
    assert len(gone) == len(items)
    for product in set(products):
        numbers = [item.number for item in gone if item.product_id == product]
        assert numbers == sorted(numbers)


def test_a_product_alone_does_not_wait_for_others() -> None:
    ordering: Ordering[Item] = Ordering()
    slow, quick = Item("a", 0), Item("b", 1)
    ordering.enter(slow)
    ordering.enter(quick)
    assert ordering.mark_ready(quick)
    assert ordering.leave(quick) is None


def test_one_dropped_from_the_middle_holds_nobody() -> None:
    ordering: Ordering[Item] = Ordering()
    first, middle, last = (Item("a", number) for number in range(3))
    for item in (first, middle, last):
        ordering.enter(item)
    assert not ordering.mark_ready(last)
    assert ordering.leave(middle) is None
    assert ordering.leave(first) is last
