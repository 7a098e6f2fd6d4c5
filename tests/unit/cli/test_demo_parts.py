"""The demo's parts by themselves: the plan of events, the figures, where bundles are kept."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcat.cli import bundles
from mmcat.cli.demo_stream import Item, Outcomes, plan
from mmcat.cli.demo_summary import percentile, summarize
from mmcat.cli.demo_table import LiveTable
from mmcat.cli.texts import CommandError


def items(count: int) -> list[Item]:
    return [Item(f"p{n}", f"title {n}", f"{n}.jpg" if n % 2 else None, ("1", str(n % 3))) for n in range(count)]


def result(*ids: str, image: str = "used") -> dict[str, Any]:
    return {"path": [{"id": one, "name": one} for one in ids], "image": image, "probability": 0.5}


@given(count=st.integers(1, 40))
def test_a_plan_holds_every_listing_one_deletion_and_two_bad_events(count: int) -> None:
    sent = items(count + 1)
    events = plan(sent, "http://photos")
    assert len(events) == count + 4
    assert sorted(event.item.product_id for event in events if event.item) == sorted(item.product_id for item in sent)
    deleted = sent[-1].product_id.encode()
    mine = [event for event in events if event.key == deleted]
    assert [event.value is None for event in mine] == [False, True]
    bad = [event for event in events if event.item is None and event.value is not None]
    assert len(bad) == 2


def test_an_event_says_where_its_photo_is_and_no_truth() -> None:
    events = plan(items(3), "http://photos")
    values = [json.loads(event.value) for event in events if event.item is not None and event.value is not None]
    assert {value.get("image_url") for value in values} == {None, "http://photos/1.jpg"}
    assert all(set(value) <= {"product_id", "title", "image_url"} for value in values)


@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=50), share=st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_at_least_the_share_does_not_exceed(values: list[float], share: float) -> None:
    ascending = sorted(values)
    found = percentile(ascending, share)
    assert found in ascending
    assert sum(value <= found for value in ascending) >= share * len(ascending) - 1e-9
    assert sum(value < found for value in ascending) < share * len(ascending)


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_the_summary_scores_what_stays_and_counts_what_came() -> None:
    sent = items(4)  # the last is deleted again
    outcomes = Outcomes(events=7, tombstones={"p3"}, dead_letters=[b"{", b"7"])
    answers = [result("1", "0"), result("1", "1"), result("1"), result("1", "0", image="absent")]
    for place, answer in enumerate(answers):
        outcomes.results[f"p{place}"] = answer
        outcomes.sent_s[f"p{place}"] = float(place)
        outcomes.seen_s[f"p{place}"] = place + 0.25
    summary = summarize(outcomes, sent, cached=3)
    assert summary["path_accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    counts = ("events", "listings", "categorized", "tombstones", "dead_lettered", "cached")
    assert [summary[name] for name in counts] == [7, 3, 4, 1, 2, 3]
    assert summary["image"] == {"absent": 1, "used": 3}
    assert summary["latency_ms"] == {"p50": 250.0, "p99": 250.0}
    assert summary["listings_per_second"] == pytest.approx(4 / 3.25, abs=0.1)


def test_off_a_terminal_progress_is_a_line_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveTable(20) as table:
        for item in items(20):
            table.add(item, result(*item.truth))
    shown = capsys.readouterr()
    assert not shown.out
    assert len(shown.err.splitlines()) == 10
    assert "20/20 listings" in shown.err
    assert "100% of paths right" in shown.err


def test_a_bundles_folder_changes_with_what_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    one = bundles.demo_folder("shop", {"seed": 1})
    assert one.is_relative_to(tmp_path)
    assert one == bundles.demo_folder("shop", {"seed": 1})
    assert one != bundles.demo_folder("shop", {"seed": 2})


def test_the_bundle_named_wins_over_the_setting_and_the_setting_over_the_demos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    monkeypatch.delenv("MMCAT_MODEL__BUNDLE", raising=False)
    with pytest.raises(CommandError, match="no bundle"):
        bundles.find_bundle(None)
    made = tmp_path / "demo" / "shop-1" / "cross"
    made.mkdir(parents=True)
    (made / "bundle.json").touch()
    assert bundles.find_bundle(None) == made
    monkeypatch.setenv("MMCAT_MODEL__BUNDLE", "/set")
    assert bundles.find_bundle(None) == Path("/set")
    assert bundles.find_bundle(Path("/named")) == Path("/named")
