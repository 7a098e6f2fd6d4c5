"""How much of large photos is held each time one is decoded: for tests of the bound that all who fetch photos keep."""

import asyncio

from consumer.fetch import LargeBodies
from mmcat.listing import Listing, Prepared
from tests.support.stub_model import StubModel


class HeldPhotos(StubModel):
    """A model that looks at the bound whenever it decodes; `bodies` is to be put in the place of `LargeBodies`."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[int] = []

    def bodies(self, max_bytes: float) -> LargeBodies:
        """The bound; called where the photos are fetched, in the loop."""
        self._loop, self._bodies = asyncio.get_running_loop(), LargeBodies(max_bytes)
        return self._bodies

    def prepare(self, listing: Listing) -> Prepared:
        """Once whatever was let go of has been given back."""
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(60)
        self.held.append(self._bodies.bytes)
        return super().prepare(listing)
