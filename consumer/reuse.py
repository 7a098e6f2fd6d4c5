"""Work that changes nothing: an event whose answer the view holds is answered from there, without photo or model.

Between submit and the photos, in a thread of its own: it asks the view for all events of a poll at once, waits for a
short bound, and gives each back with what can be reused, or with nothing. A view that is away or slow is left alone for
a while: then everything is inferred.

An answer is a function of the text, the photo and the model. The text and the photo's address are in `input_hash`, the
model with its thresholds in the fingerprint of the bundle; the photo behind the address may change, which `max_age_s`
bounds, counted from when the model answered, however often it was reused since.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from pydantic_core import from_json

from consumer.errors import ViewError
from consumer.events import Event
from consumer.metrics import Metrics
from consumer.results import SCHEMA_VERSION, input_hash
from consumer.settings import Settings
from consumer.view import View, ViewAwayError
from consumer.work import Work
from mmcat.listing import ImageStatus, ModelInfo

log = structlog.get_logger("mmcat.reuse")

AWAY_S: Final = 1.0  # how long a view that did not answer in time is not asked
SEEN: Final = (ImageStatus.USED, ImageStatus.ABSENT)

Answer = Mapping[str, Any]
"""A result as the view holds it: `consumer.results.ResultRecord`."""
Asked = Callable[[Sequence[tuple[Work, Answer | None]]], None]


class Reuse:
    """The thread that asks. Constructed, `start`ed, `stop`ped once.

    Args:
        on_asked: gets the events back, in the order they came, each with the answer to reuse or None; in this thread.
        on_death: gets what ended the thread.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelInfo,
        metrics: Metrics,
        on_asked: Asked,
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._settings, self._model, self._metrics = settings, model, metrics
        self._on_asked, self._on_death = on_asked, on_death
        self._view = View.from_settings(settings.view, timeout_s=settings.reuse.timeout_s)
        self._connected, self._again_at = False, 0.0
        self._queue: queue.SimpleQueue[list[Work] | None] = queue.SimpleQueue()  # what is in it is in the budget
        self._thread = threading.Thread(target=self._run, name="reuse", daemon=True)

    def start(self) -> None:
        """Start the thread; does not wait for the view."""
        self._thread.start()

    def stop(self) -> None:
        """End it; what was not asked yet is dropped. Blocks for a few bounds of the view at most."""
        self._queue.put(None)
        self._thread.join(5.0)

    def ask(self, works: list[Work]) -> None:
        """Take events; does not block."""
        self._queue.put(works)

    def _run(self) -> None:
        try:
            while (works := self._queue.get()) is not None:
                self._on_asked(self._look(works))
        except BaseException as error:  # events that nobody asks for would hold their offsets for ever: tell
            self._on_death(error)
        finally:
            self._view.close()

    def _look(self, works: list[Work]) -> list[tuple[Work, Answer | None]]:
        now = time.monotonic()
        if now < self._again_at:
            return self._all_away(works)
        try:
            if not self._connected:
                self._view.connect()
                self._connected = True
            held = self._view.mget([work.product_id for work in works])
        except (ViewAwayError, ViewError) as error:
            log.warning("reuse_view_away", detail=str(error)[:200])
            self._connected, self._again_at = False, time.monotonic() + AWAY_S
            return self._all_away(works)
        if time.monotonic() - now > self._settings.reuse.timeout_s:  # answers that trickle: use these, then leave it
            self._again_at = time.monotonic() + AWAY_S
        results = [None if one is None else one[1] for one in held]
        return [self._judged(work, result) for work, result in zip(works, results, strict=True)]

    def _all_away(self, works: list[Work]) -> list[tuple[Work, Answer | None]]:
        self._metrics.reuse.labels("away").inc(len(works))
        return [(work, None) for work in works]

    def _judged(self, work: Work, result: bytes | None) -> tuple[Work, Answer | None]:
        held = None if result is None else _read(result)
        outcome = "none"
        if held is not None and isinstance(work.parsed, Event):
            try:
                outcome = judge(held, work.parsed, self._model, self._settings, time.time())
            except (KeyError, TypeError, ValueError, AttributeError):  # somebody else wrote what is none of ours
                log.warning("reuse_entry_unreadable", product_id=work.product_id)
        self._metrics.reuse.labels(outcome).inc()
        return work, held if outcome == "reused" else None


def judge(held: Answer, event: Event, model: ModelInfo, settings: Settings, now_s: float) -> str:
    """Whether this answer is the event's too: `reused`, or `changed` or `old`, why not. Pure.

    Args:
        now_s: seconds since 1970.
    """
    mine = (SCHEMA_VERSION, input_hash(event), model.fingerprint, model.precision)
    theirs = (held["schema_version"], held["input_hash"], held["model"]["fingerprint"], held["model"]["precision"])
    # What settings add to an answer: it must be there, or the answer is not what the model would give now.
    enough = len(held["alternatives"]) >= settings.model.top_k - 1 and ("evidence" in held) == settings.model.evidence
    if mine != theirs or held["image"] not in SEEN or not enough:
        return "changed"
    answered = datetime.fromisoformat(held.get("inferred_at", held["categorized_at"]))
    age_s = now_s - answered.astimezone(UTC).timestamp()
    return "reused" if 0 <= age_s < settings.reuse.max_age_s else "old"


def _read(result: bytes) -> Answer | None:
    """A result of the view; None for what is none of ours."""
    try:
        held = from_json(result)
    except ValueError:
        return None
    wanted = ("schema_version", "input_hash", "model", "alternatives", "image", "categorized_at", "decision")
    return held if isinstance(held, dict) and all(name in held for name in wanted) else None
