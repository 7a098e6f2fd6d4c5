"""One bad listing never fails its batch; a model that miscounts is not believed."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from consumer.batching import Batcher
from consumer.errors import SickModelError
from consumer.worker import Answers, EngineThread, answer
from mmcat.listing import Candidate, Evidence, ImageStatus, PathNode, Prepared, Result
from tests.support.stub_model import StubModel, accept
from tests.support.waiting import eventually


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


NAN, INFINITE = float("nan"), float("inf")
NODE = PathNode(1, "1", "a", 0.5)


@pytest.mark.parametrize(
    "sick",
    [
        {"probability": NAN},
        {"probability": INFINITE},
        {"path": (NODE, PathNode(2, "2", "b", NAN))},
        {"alternatives": (Candidate((NODE,), NAN),)},
        {"alternatives": (Candidate((PathNode(1, "1", "a", NAN),), 0.5),)},
        {"evidence": Evidence(0.1, NAN)},
    ],
)
def test_a_number_that_is_none_fails_its_listing_wherever_it_stands(sick: dict[str, Any]) -> None:
    def judge(prepared: Prepared) -> Result:
        result = accept(prepared)
        return dataclasses.replace(result, **sick) if prepared.listing_id == "2" else result

    answers = answer(StubModel(judge), units(4), 3)
    assert [isinstance(got, ArithmeticError) for _, got in answers] == [False, False, True, False]


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_a_model_that_miscounts_is_not_believed(count: int) -> None:
    class Miscounting(StubModel):
        def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
            right = super().categorize_prepared(batch, top_k)
            return right if len(batch) == 1 else [right[0]] * count

    answers = answer(Miscounting(), units(4), 3)
    assert [got.listing_id for _, got in answers if isinstance(got, Result)] == ["0", "1", "2", "3"]


def test_a_model_that_mixes_listings_up_is_not_believed() -> None:
    class Mixing(StubModel):
        def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
            return super().categorize_prepared(batch, top_k)[::-1]

    answers = answer(Mixing(), units(4), 3)
    assert [(unit.prepared.listing_id, got.listing_id) for unit, got in answers if isinstance(got, Result)] == [
        (name, name) for name in "0123"
    ]


class Run:
    """An engine thread, one batch through it."""

    def __init__(self, model: StubModel) -> None:
        self.batches: list[list[bool]] = []
        self.deaths: list[BaseException] = []
        batcher: Batcher[Unit] = Batcher(8, 100, 0)
        for unit in units(8):
            batcher.put([(unit, 1)])
        thread = EngineThread(model, batcher, 3, self._told, self.deaths.append)
        thread.start()
        eventually(lambda: self.batches or self.deaths, "the batch is over")
        thread.stop()
        thread.join(10)

    def _told(self, answers: Answers[Unit], seconds: float) -> None:
        self.batches.append([isinstance(got, Exception) for _, got in answers])


class Device(StubModel):
    """Fails on one listing; afterwards on everything, when it is broken for good."""

    def __init__(self, *, for_good: bool) -> None:
        super().__init__()
        self.for_good, self.broken = for_good, False

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        if (self.broken and self.for_good) or any(one.listing_id == "5" for one in batch):
            self.broken = True
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().categorize_prepared(batch, top_k)

    def warm_up(self) -> None:
        self.categorize_prepared([Prepared("", "warm up", None, ImageStatus.ABSENT)])


def test_a_device_that_is_broken_for_good_blames_no_listing() -> None:
    run = Run(Device(for_good=True))
    assert run.batches == []
    assert [type(death) for death in run.deaths] == [SickModelError]
    assert "device-side assert" in str(run.deaths[0])


def test_a_device_that_fails_on_one_listing_answers_the_others_in_the_same_pass() -> None:
    run = Run(Device(for_good=False))
    assert run.deaths == []
    assert run.batches == [[number == 5 for number in range(8)]]


def test_a_thread_that_dies_tells() -> None:
    deaths: list[BaseException] = []

    def broken(answers: object, seconds: float) -> None:
        raise OSError("disk full")

    batcher: Batcher[Unit] = Batcher(1, 10, 0)
    thread = EngineThread(StubModel(), batcher, 3, broken, deaths.append)
    thread.start()
    batcher.put([(units(1)[0], 1)])
    thread.join(10)
    assert [str(death) for death in deaths] == ["disk full"]
