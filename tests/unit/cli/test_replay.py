"""What `mmcat replay` understands, and how it shows what would change."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.records import Outgoing
from consumer.replay_diff import Answer, Change, Changes, Kind
from consumer.spans import Bound
from mmcat.cli import main
from mmcat.cli.replay_changes import change_file, draw_changes
from mmcat.cli.replay_words import read_bound
from mmcat.cli.texts import CommandError

NOW = datetime(2026, 5, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "bound"),
    [
        ("", Bound()),
        ("0", Bound(offset=0)),
        ("1200", Bound(offset=1200)),
        ("0:5,3:990", Bound(offsets={0: 5, 3: 990})),
        ("2026-05-01T00:00:00Z", Bound(time_ms=1_777_593_600_000)),
        ("2026-05-01T09:00:00+09:00", Bound(time_ms=1_777_593_600_000)),
        ("15m", Bound(time_ms=int((NOW - timedelta(minutes=15)).timestamp() * 1000))),
        ("7d", Bound(time_ms=int((NOW - timedelta(days=7)).timestamp() * 1000))),
    ],
)
def test_a_bound_is_a_time_a_while_ago_or_offsets(word: str, bound: Bound) -> None:
    assert read_bound(word, NOW) == bound


@pytest.mark.parametrize("word", ["yesterday", "-5", "1:2:3", "5w", "2026-05-01T00:00:00", "0:5,"])
def test_what_is_no_bound_is_told_what_one_is(word: str) -> None:
    with pytest.raises(CommandError, match=r"is not a time|time zone"):
        read_bound(word, NOW)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--as-of"], "writes into a shadow topic only"),
        (["--into", "elsewhere"], "without --as-of a replay writes the live topic"),
        (["--diff", "--dry-run"], "neither with --dry-run nor with --as-of"),
        (["--diff", "--as-of", "--into", "x"], "neither with --dry-run nor with --as-of"),
        (["--sample", "5"], "belong to --diff"),
        (["--plan", "{plan}", "--from", "6h", "--allow-blind"], "leave out --from, --allow-blind"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    plan.touch()
    assert main(["replay", *(word.format(plan=plan) for word in words)]) == 1
    assert sentence in capsys.readouterr().err


def test_each_change_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "changes.tsv"
    old, new = (
        Answer(("1", id_), ("Home", name), 0.5, "accept", "used") for id_, name in (("2", "Mugs"), ("3", "a\tb"))
    )
    with change_file(file) as line:
        assert line is not None
        line(Change("p1", Kind.CHANGED, old, new))
        line(Change("p2", Kind.DELETED, old, None))
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines, dialect="excel-tab"))
    assert [(one["product_id"], one["change"], one["old_ids"], one["new_path"]) for one in rows] == [
        ("p1", "changed", "1/2", "Home > a\tb"),
        ("p2", "deleted", "1/2", ""),
    ]


def test_the_sums_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    changes = Changes()
    value = {"path": [{"id": "1", "name": "Home"}], "probability": 0.5, "decision": "review", "image": "used"}
    changes.add(Outgoing("out", b"p1", json.dumps(value).encode(), []), None)
    draw_changes(changes.summary())
    said = capsys.readouterr().out
    assert "1 answers compared: 0 same, 0 changed, 1 new, 0 deleted" in said
    assert "p1: none → Home" in said
