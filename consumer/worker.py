"""The engine thread: owns the model and its device, takes batches, gives results or what went wrong, one per listing.

One bad listing never fails its batch: a batch that raises is halved until the guilty one is found. Where the model
afterwards cannot even answer its own warm-up, it is not a listing that is sick (a CUDA error leaves a device that fails
every call until the process ends): the thread dies, and nobody is blamed. After batching.py, before results.py.
`Model` is what a bundle's `mmcat.Categorizer` offers; tests put their own here, without torch.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

import structlog

from consumer.batching import Batcher
from consumer.errors import SickModelError
from mmcat.listing import Listing, ModelInfo, PhotoVectors, Prepared, Result, Store

log = structlog.get_logger("mmcat.engine")

IDLE_S: Final = 0.2  # how soon the thread sees that it is to stop


class Model(Protocol):
    """What the service needs of a model."""

    @property
    def info(self) -> ModelInfo:
        """Which model this is."""
        ...

    def prepare(self, listing: Listing) -> Prepared:
        """The CPU's part; thread-safe; never raises for a bad photo."""
        ...

    def keep_features(self, store: Store | None) -> None:
        """Look up there what was encoded before, and keep there what is encoded now."""
        ...

    def known_photos(self, digests: Sequence[bytes]) -> list[PhotoVectors | None]:
        """What is kept of the photos with these content hashes; thread-safe."""
        ...

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        """One call of the engine: a result per listing, in order."""
        ...

    def warm_up(self) -> None:
        """Make the first batch as fast as the others; raises where the model cannot answer at all."""
        ...


class Unit(Protocol):
    """What the batcher holds: something with a prepared listing."""

    @property
    def prepared(self) -> Prepared:
        """Set before it is put into the batcher."""
        ...


U = TypeVar("U", bound=Unit)
Answers = list[tuple[U, Result | Exception]]


class EngineThread(threading.Thread, Generic[U]):
    """Runs until `stop`; what raises outside a batch, or a sick model, ends it and is told to `on_death`.

    Args:
        on_batch: gets the units of a batch with the result or the exception of each, and the seconds it took.
        on_death: gets what ended the thread; the service then ends too.
    """

    def __init__(
        self,
        model: Model,
        batcher: Batcher[U],
        top_k: int,
        on_batch: Callable[[Answers[U], float], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="engine", daemon=True)
        self._model, self._batcher, self._top_k = model, batcher, top_k
        self._on_batch, self._on_death = on_batch, on_death
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the batch in hand."""
        self._stopping.set()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                if batch := self._batcher.take(IDLE_S):
                    started = time.perf_counter()
                    answers = answer(self._model, batch, self._top_k)
                    self._refuse_sick(answers)
                    self._on_batch(answers, time.perf_counter() - started)
        except BaseException as error:  # a thread that died unseen would stall the stream: tell, whatever it was
            self._on_death(error)

    def _refuse_sick(self, answers: Answers[U]) -> None:
        """Ask the model something harmless before a listing is blamed: once a batch, so that poison costs little.

        Raises:
            SickModelError: it cannot answer; the batch stays unfinished and is worked again by the next process.
        """
        failed = next((got for _, got in answers if isinstance(got, Exception)), None)
        if failed is None:
            return
        try:
            self._model.warm_up()
        except Exception as error:
            raise SickModelError(f"the model cannot answer any more: {error!r}, after {failed!r}"[:500]) from error


def answer(model: Model, units: Sequence[U], top_k: int) -> Answers[U]:
    """Results for `units`, in order; where the model raises, halve until the guilty listing stands alone."""
    try:
        results = model.categorize_prepared([unit.prepared for unit in units], top_k)
        _check(results, [unit.prepared.listing_id for unit in units])
    except Exception as error:  # whatever the model raises: the listing is to blame, not the stream
        if len(units) == 1:
            log.warning("model_failed", product_id=units[0].prepared.listing_id, error=repr(error)[:500])
            return [(units[0], error)]
        middle = len(units) // 2
        return answer(model, units[:middle], top_k) + answer(model, units[middle:], top_k)
    return list(zip(units, results, strict=True))


def _check(results: Sequence[Result], listing_ids: Sequence[str]) -> None:
    """A model that miscounts, mixes listings up or gives numbers that are none is not believed.

    Raises:
        RuntimeError: not one result for each listing, in order.
        ArithmeticError: a probability or an evidence that is not finite.
    """
    if len(results) != len(listing_ids):
        raise RuntimeError(f"the model gave {len(results)} results for {len(listing_ids)} listings")
    for result, listing_id in zip(results, listing_ids, strict=True):
        if result.listing_id != listing_id:
            raise RuntimeError(f"the model gave a result for {result.listing_id!r} where {listing_id!r} was asked")
        if not all(map(math.isfinite, _numbers(result))):
            raise ArithmeticError("the model gave a number that is none, or none that is finite")


def _numbers(result: Result) -> Iterator[float]:
    """All that stand in an answer."""
    yield result.probability
    yield from (node.probability for node in result.path)
    for other in result.alternatives:
        yield other.probability
        yield from (node.probability for node in other.path)
    if result.evidence is not None:
        yield from (result.evidence.text, result.evidence.image)
