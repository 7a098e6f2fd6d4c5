"""Which answers a replay would change, by category, from what it would write and what the view holds. Pure.

`Changes.add` is what `replay_sinks.Comparing` tells of each record; the command line shows the sums and keeps each
change if it is asked to. What counts is what a reader sees: the path. An answer with the same path is `same`, though it
would be written again.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from consumer.records import Outgoing
from consumer.view_guard import Held

LEVELS: Final = (1, 2, 3, 4)
EXAMPLES: Final = 3
"""Changes kept for each pair of main categories."""


class Kind(StrEnum):
    """What a reader would see."""

    SAME = "same"
    CHANGED = "changed"  # another path
    NEW = "new"  # none is held, or the product was deleted before and registered again
    DELETED = "deleted"  # an answer is held, and the product is gone


@dataclass(frozen=True, slots=True)
class Answer:
    """What is read of a result."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    probability: float
    decision: str
    image: str

    @classmethod
    def parse(cls, value: bytes | None) -> "Answer | None":
        """Of a result record; None of a deletion."""
        if value is None:
            return None
        found: dict[str, Any] = json.loads(value)
        path = found["path"]
        ids, names = tuple(one["id"] for one in path), tuple(one["name"] for one in path)
        return cls(ids, names, found["probability"], found["decision"], found["image"])


@dataclass(frozen=True, slots=True)
class Change:
    """What would become of one product."""

    product_id: str
    kind: Kind
    old: Answer | None
    new: Answer | None


Category = tuple[str, str] | None
"""Id and name of a main category; None: no answer."""


class Changes:
    """Sums over what it is told. Not thread-safe.

    Args:
        on_change: gets each answer that would not be the same.
    """

    def __init__(self, on_change: Callable[[Change], None] | None = None) -> None:
        self._on_change = on_change
        self._kinds: Counter[Kind] = Counter()
        self._decisions = 0
        self._levels = {level: [0, 0] for level in LEVELS}
        self._held: Counter[Category] = Counter()
        self._moves: Counter[tuple[Category, Category]] = Counter()
        self._examples: dict[tuple[Category, Category], list[Change]] = {}

    def add(self, record: Outgoing, held: Held | None) -> None:
        """A record would be written where this is held."""
        old, new = Answer.parse(held[1] if held else None), Answer.parse(record.value)
        change = Change((record.key or b"").decode(), _kind(old, new), old, new)
        self._kinds[change.kind] += 1
        self._held[_main(old)] += 1
        if old and new:
            self._decisions += old.decision != new.decision
            for level, counted in self._levels.items():
                if max(len(old.ids), len(new.ids)) >= level:
                    counted[0] += 1
                    counted[1] += old.ids[:level] != new.ids[:level]
        if change.kind is not Kind.SAME:
            self._note(change)

    def _note(self, change: Change) -> None:
        move = _main(change.old), _main(change.new)
        self._moves[move] += 1
        examples = self._examples.setdefault(move, [])
        if len(examples) < EXAMPLES:
            examples.append(change)
        if self._on_change is not None:
            self._on_change(change)

    def summary(self) -> dict[str, Any]:
        """As JSON: counts by kind, by level, and by main category from → to, most answers first."""
        return {
            "compared": self._kinds.total(),
            **{kind.value: self._kinds[kind] for kind in Kind},
            "decision_changed": self._decisions,
            "levels": [
                {"level": level, "compared": of, "changed": changed, "share": round(changed / of, 4) if of else None}
                for level, (of, changed) in self._levels.items()
            ],
            "categories": [
                {
                    "from": _named(move[0]),
                    "to": _named(move[1]),
                    "answers": answers,
                    "of": self._held[move[0]],
                    "examples": [_example(change) for change in self._examples[move]],
                }
                for move, answers in self._moves.most_common()
            ],
        }


def _kind(old: Answer | None, new: Answer | None) -> Kind:
    if old is None:
        return Kind.SAME if new is None else Kind.NEW
    if new is None:
        return Kind.DELETED
    return Kind.SAME if old.ids == new.ids else Kind.CHANGED


def _main(answer: Answer | None) -> Category:
    return (answer.ids[0], answer.names[0]) if answer and answer.ids else None


def _named(category: Category) -> dict[str, str] | None:
    return None if category is None else {"id": category[0], "name": category[1]}


def _example(change: Change) -> dict[str, Any]:
    paths = {side: " > ".join(answer.names) if answer else None for side, answer in _sides(change)}
    return {"product_id": change.product_id, **paths, "probability": change.new.probability if change.new else None}


def _sides(change: Change) -> tuple[tuple[str, Answer | None], ...]:
    return ("from", change.old), ("to", change.new)
