"""What the peers' programs share: arguments, photos, model and result are the same for all, the library alone differs.

Photos are decoded, titles cut and paths found by `mmcat.Categorizer`, as in the service: so answers can be compared,
and a peer has the faster JPEG decoder too. Its results are plainer than the service's: no identity, rank or hash.
Comes before the programs, which are what a user of each library would write.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import urllib3

from mmcat.categorizer import Categorizer
from mmcat.cli.bundles import ENGINES, home
from mmcat.listing import Listing, Prepared, Result

BATCH: Final = 32  # listings per model call: the service's `batch.max_listings`
EAGER_BATCH: Final = 32  # listings at once through eager PyTorch: the quickest of 8, 16 and 32, on a busy machine
BATCH_S: Final = 0.05  # longest wait for a full batch: the service's `batch.max_age_ms`
AHEAD: Final = 6 * BATCH  # listings held at once, by the service's `limits.in_flight_listings` and by peers' own bounds
FETCHES: Final = 64  # at once from the host, where they take no thread each; the service is given as many
THREADS: Final = 16  # that fetch and decode, where they do: more only take the cores from the model
PHOTO_S: Final = 30.0  # longest wait for a photo; long, so that a busy machine changes no answer
SESSION_MS: Final = 1_800_000  # of group membership, the broker's most: a peer stands still in the turns of others


@dataclass(frozen=True, slots=True)
class Job:
    """The arguments of a peer's program, in this order."""

    bootstrap: str
    group: str
    source: str
    target: str
    bundle: str
    engine: str

    @classmethod
    def given(cls) -> "Job":
        """From the command line."""
        return cls(*sys.argv[1:])

    def model(self) -> Categorizer:
        """The model, warm; blocks for seconds."""
        model = Categorizer.load(self.bundle, engine=self.engine, cache=home() / ENGINES)
        model.warm_up()
        return model


class Photos:
    """Photos over kept connections, from any thread."""

    def __init__(self) -> None:
        self._pool = urllib3.PoolManager(maxsize=THREADS, timeout=PHOTO_S, retries=False)

    def fetch(self, url: str) -> bytes:
        """The bytes of a photo; blocks.

        Raises:
            OSError: the host did not answer with a photo.
        """
        answer = self._pool.request("GET", url)
        if answer.status != 200:
            raise OSError(f"{url} answered {answer.status}")
        return answer.data


def listing(event: dict[str, Any], photo: bytes) -> Listing:
    """An event and its photo as the library takes them."""
    return Listing(event["product_id"], title=event["title"], brand=event.get("brand") or "", image=photo)


def prepared(model: Categorizer, photos: Photos, value: bytes) -> Prepared:
    """An event's bytes to what the model takes: parsed, its photo fetched and decoded. Thread-safe; blocks."""
    event = json.loads(value)
    return model.prepare(listing(event, photos.fetch(event["image_url"])))


def results(model: Categorizer, batch: Sequence[Prepared]) -> list[tuple[bytes, bytes]]:
    """Key and value of each result, in order."""
    size = EAGER_BATCH if model.info.engine.startswith("eager") else BATCH
    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    return [(result.listing_id.encode(), value(result)) for part in parts for result in model.categorize_prepared(part)]


def value(result: Result) -> bytes:
    """A result as JSON."""
    path = [{"level": n.level, "id": n.id, "name": n.name, "probability": n.probability} for n in result.path]
    alternatives = [
        {"path": [node.id for node in one.path], "probability": one.probability} for one in result.alternatives
    ]
    said = {
        "product_id": result.listing_id,
        "path": path,
        "probability": result.probability,
        "alternatives": alternatives,
        "safe_level": result.safe_level,
        "decision": result.decision,
        "image": result.image,
    }
    return json.dumps(said, ensure_ascii=False).encode()
