"""A model without torch, for what has nothing to do with models."""

from collections.abc import Callable, Sequence

from mmcat.listing import Decision, ImageStatus, Listing, ModelInfo, PathNode, PhotoVectors, Prepared, Result, Store


def accept(prepared: Prepared) -> Result:
    """The same certain answer for everybody."""
    node = PathNode(1, "1", "everything", 0.9)
    return Result(prepared.listing_id, (node,), 0.9, 1, Decision.ACCEPT, None, (), prepared.image)


class StubModel:
    """Keeps `consumer.worker.Model`. `answer` may raise, to be the guilty listing."""

    def __init__(self, answer: Callable[[Prepared], Result] = accept) -> None:
        self.info = ModelInfo("stub", "f" * 64, "stub", "fp32", "d" * 64, 1_700_000_000_000)
        self.batches: list[list[str]] = []
        self._answer = answer

    def prepare(self, listing: Listing) -> Prepared:
        """No pixels: the text and what became of the photo."""
        status = listing.image_status or (ImageStatus.USED if listing.image else ImageStatus.ABSENT)
        return Prepared(listing.id, listing.title, None, status)

    def keep_features(self, store: Store | None) -> None:
        """Keeps nothing."""

    def known_photos(self, digests: Sequence[bytes]) -> list[PhotoVectors | None]:
        """Knows none."""
        return [None] * len(digests)

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        """One answer each; remembers who was together."""
        self.batches.append([prepared.listing_id for prepared in batch])
        return [self._answer(prepared) for prepared in batch]

    def warm_up(self) -> None:
        """Always warm."""
