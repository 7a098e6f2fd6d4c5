"""Sums over changes are the sums of what a reader would see."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from consumer.rank import Rank
from consumer.records import Outgoing
from consumer.replay_diff import Change, Changes

RANK = Rank(1, 0, 1, 2)
PATHS = st.none() | st.lists(st.sampled_from("xy"), min_size=1, max_size=4)


def _value(path: list[str] | None, decision: str = "accept") -> bytes | None:
    if path is None:
        return None
    nodes = [{"level": level, "id": one, "name": one.upper(), "probability": 0.5} for level, one in enumerate(path, 1)]
    return json.dumps({"path": nodes, "probability": 0.5, "decision": decision, "image": "absent"}).encode()


def _sums(pairs: list[tuple[list[str] | None, list[str] | None]]) -> tuple[dict[str, Any], list[Change]]:
    told: list[Change] = []
    changes = Changes(told.append)
    for number, (old, new) in enumerate(pairs):
        changes.add(Outgoing("out", b"p%d" % number, _value(new), []), (RANK, _value(old)) if old else None)
    return changes.summary(), told


@given(st.lists(st.tuples(PATHS, PATHS), max_size=30))
def test_every_answer_is_counted_once_and_each_level_by_its_prefix(
    pairs: list[tuple[list[str] | None, list[str] | None]],
) -> None:
    found, told = _sums(pairs)
    assert found["compared"] == len(pairs) == sum(found[kind] for kind in ("same", "changed", "new", "deleted"))
    assert [(one.old and list(one.old.ids), one.new and list(one.new.ids)) for one in told] == [
        pair for pair in pairs if pair[0] != pair[1]
    ]
    both = [(old, new) for old, new in pairs if old and new]
    for level, line in enumerate(found["levels"], 1):
        assert line["compared"] == sum(max(len(old), len(new)) >= level for old, new in both)
        assert line["changed"] == sum(
            old[:level] != new[:level] for old, new in both if max(len(old), len(new)) >= level
        )
    assert sum(one["answers"] for one in found["categories"]) == len(told)
    assert all(1 <= len(one["examples"]) <= 3 for one in found["categories"])


def test_a_line_for_each_pair_of_main_categories() -> None:
    found, _ = _sums([(["x"], ["y", "x"]), (["x"], ["y"]), (["x"], ["x"]), (None, ["x"]), (["y"], None)])
    assert [(one["from"], one["to"], one["answers"], one["of"]) for one in found["categories"]] == [
        ({"id": "x", "name": "X"}, {"id": "y", "name": "Y"}, 2, 3),
        (None, {"id": "x", "name": "X"}, 1, 1),
        ({"id": "y", "name": "Y"}, None, 1, 1),
    ]
    assert found["categories"][0]["examples"][0] == {
        "product_id": "p0", "from": "X", "to": "Y > X", "probability": 0.5
    }  # fmt: skip
