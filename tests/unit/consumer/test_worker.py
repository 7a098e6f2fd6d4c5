"""One bad listing never fails its batch; a model that miscounts is not believed."""

import dataclasses

import pytest

from consumer.batching import Batcher
from consumer.worker import EngineThread, answer
from mmcat.listing import Decision, ImageStatus, Prepared, Result
from tests.support.stub_model import StubModel, accept


@dataclasses.dataclass
class Unit:
    prepared: Prepared


def units(count: int) -> list[Unit]:
    return [Unit(Prepared(str(number), "", None, ImageStatus.ABSENT)) for number in range(count)]


@pytest.mark.parametrize("guilty", [set(), {0}, {7}, {3, 4}, {0, 1, 2, 3, 4, 5, 6, 7}])
def test_the_guilty_are_found_and_the_rest_go_through(guilty: set[int]) -> None:
    def judge(prepared: Prepared) -> Result:
        if int(prepared.listing_id) in guilty:
            raise MemoryError(prepared.listing_id)
        return accept(prepared)

    batch = units(8)
    answers = answer(StubModel(judge), batch, 3)
    assert [unit for unit, _ in answers] == batch
    assert {int(unit.prepared.listing_id) for unit, got in answers if isinstance(got, Exception)} == guilty
    for unit, got in answers:
        assert isinstance(got, Exception) or got.listing_id == unit.prepared.listing_id


def test_a_probability_that_is_no_number_is_a_failure() -> None:
    def sick(prepared: Prepared) -> Result:
        return dataclasses.replace(accept(prepared), probability=float("nan"))

    (_, got), *_ = answer(StubModel(sick), units(2), 3)
    assert isinstance(got, ArithmeticError)


def test_a_model_that_miscounts_is_not_believed() -> None:
    class Miscounting(StubModel):
        def categorize_prepared(self, batch: object, top_k: int = 3) -> list[Result]:
            return [Result("?", (), 1.0, 1, Decision.ACCEPT, None, (), ImageStatus.ABSENT)] * 3

    answers = answer(Miscounting(), units(2), 3)
    assert all(isinstance(got, RuntimeError) for _, got in answers)


def test_a_thread_that_dies_tells() -> None:
    deaths: list[BaseException] = []

    def broken(answers: object, seconds: float) -> None:
        raise OSError("disk full")

    batcher: Batcher[Unit] = Batcher(1, 10, 0)
    thread = EngineThread(StubModel(), batcher, 3, broken, deaths.append)
    thread.start()
    batcher.put(units(1)[0], 1)
    thread.join(10)
    assert [str(death) for death in deaths] == ["disk full"]
