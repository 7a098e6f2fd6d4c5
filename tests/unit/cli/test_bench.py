"""What `mmcat bench` and `mmcat top` calculate and print."""

import io
import json
import os
import urllib.request

import numpy as np
import pytest
from prometheus_client import generate_latest
from rich.console import Console

from consumer.last_results import LastResults
from consumer.metrics import Metrics
from mmcat.cli.benchmarks import parts, transport
from mmcat.cli.benchmarks.intervals import Ratio, median, ratio
from mmcat.cli.benchmarks.photo_host import PhotoHost
from mmcat.cli.benchmarks.report import Report, bar, number
from mmcat.cli.benchmarks.scrape import Snapshot
from mmcat.cli.benchmarks.transport import event
from mmcat.cli.top import figures, view
from mmcat.listing import Decision, ImageStatus, PathNode, Result
from mmcat.photos import decode


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """The machine was twice as slow in the second pair: its ratio is the same."""
    found = ratio([60.0, 30.0, 60.0], [100.0, 50.0, 100.0])
    assert (found.median, found.low, found.high, found.pairs) == (0.6, 0.6, 0.6, 3)


def test_an_interval_holds_its_median_and_lies_within_the_runs() -> None:
    found = median([1.0, 2.0, 3.0, 4.0, 50.0, 6.0, 7.0, 8.0, 9.0])
    assert 1.0 <= found.low <= found.median == 6.0 <= found.high <= 50.0


def test_runs_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("high", "met"), [(0.59, False), (0.6, True), (0.7, True)])
def test_a_target_is_met_unless_the_interval_is_wholly_below_it(high: float, met: bool) -> None:
    assert Ratio(0.55, 0.5, high, 9).meets(0.6) is met


def test_the_table_has_figures_stages_and_the_bottleneck() -> None:
    report = Report(
        "transport",
        {"events/s": Ratio(12_345.6, 12_000, 13_000, 3)},
        {"model": 0.002},
        {"model": 0.5},
        (10.0, 2_000.0),
        "no bottleneck",
    )
    text = report.as_text()
    assert "12,346" in text
    assert "95 % 12,000 to 13,000, 3 runs" in text
    assert "2.000 ms per listing" in text
    assert text.endswith("no bottleneck")
    assert report.as_json()["stages"] == {"model": {"seconds_per_listing": 0.002, "busy_share": 0.5}}


def test_bars_and_numbers_stay_in_their_bounds() -> None:
    assert (bar(2.0, 4), bar(0.5, 4), bar(-1.0, 4)) == ("████", "██··", "····")
    assert (number(1234.5), number(0.12345)) == ("1,234", "0.123")


def test_two_looks_at_a_service_become_rates_means_and_one_line() -> None:
    metrics = Metrics()
    metrics.watch({"in_flight": lambda: 2_000.0, "limit": lambda: 2_000.0})
    metrics.lag.labels("in", "0", "live").set(7)
    metrics.lag.labels("in", "1", "live").set(3)
    metrics.busy.labels("model").set(0.96)
    before = Snapshot(Snapshot.parse(generate_latest(metrics.registry).decode()).samples, at=10.0)
    metrics.listings.labels("result").inc(40)
    for _ in range(2):
        metrics.batch.observe(20)
    now = Snapshot(Snapshot.parse(generate_latest(metrics.registry).decode()).samples, at=12.0)
    found = figures(before, now)
    assert found["lag"] == {"live": 10.0}
    assert found["listings_per_s"] == {"result": 20.0}
    assert found["batch"] == 20.0
    assert found["bottleneck"] == "model is the bottleneck: 96% busy, 2,000 of 2,000 listings held"


def test_a_service_that_does_not_poll_what_waits_is_not_said_to_wait_for_events() -> None:
    metrics = Metrics()
    metrics.watch({"in_flight": lambda: 0.0, "limit": lambda: 2_000.0})
    metrics.lag.labels("in", "0", "live").set(5_000)
    metrics.lag.labels("retry", "0", "retry").set(7_000)
    look = Snapshot.parse(generate_latest(metrics.registry).decode())
    assert look.line().startswith("polling is the bottleneck: 5,000 events wait in the topic")
    metrics.paused.set(1)
    assert Snapshot.parse(generate_latest(metrics.registry).decode()).line().startswith("memory is the bottleneck")


def test_the_last_results_and_the_bottleneck_stand_below_the_table() -> None:
    look = Snapshot.parse(generate_latest(Metrics().registry).decode())
    console = Console(width=100, file=io.StringIO(), record=True)
    last, path = LastResults(), (PathNode(1, "1", "shoes", 0.9), PathNode(2, "2", "boots", 0.8))
    for count in range(12):
        last.add([Result(f"p{count}", path, 0.75, count % 2, Decision.ACCEPT, None, (), ImageStatus.USED)])
    console.print(view("http://127.0.0.1:9464", look, look, last.as_json()))
    said = " ".join(console.export_text().split())
    assert said.endswith(look.line())
    assert "p11 │ shoes › boots │ 0.75 │ safe to level 1" in said
    assert said.index("p11") < said.index("p10") < said.index("p2 ")
    assert "p1 " not in said
    console.print(view("http://127.0.0.1:9464", look, look, None))
    assert "with the token of http.token" in console.export_text()


def test_a_service_that_was_started_anew_has_no_negative_rate() -> None:
    metrics, anew = Metrics(), Metrics()
    metrics.listings.labels("result").inc(100)
    anew.listings.labels("result").inc(10)
    before = Snapshot(Snapshot.parse(generate_latest(metrics.registry).decode()).samples, at=0.0)
    now = Snapshot(Snapshot.parse(generate_latest(anew.registry).decode()).samples, at=1.0)
    assert figures(before, now)["listings_per_s"] == {"result": 10.0}


def test_the_photos_that_are_measured_are_what_shops_send() -> None:
    sizes = [len(body) for body in parts.photos()]
    assert 20_000 < min(sizes) <= max(sizes) < 400_000
    assert parts.photos((600,)) == parts.photos((600,))


def test_the_photo_host_answers_each_number_with_bytes_of_its_own_and_the_pixels_of_its_photo() -> None:
    """Equal bytes are fetched, decoded and encoded once; a benchmark of them would measure that."""
    drawn = parts.photos((40, 50))
    with PhotoHost(drawn) as host:
        bodies = []
        for number in (0, 2, 3, 0):
            with urllib.request.urlopen(host.url.format(number)) as answer:  # noqa: S310 (our own host)
                bodies.append(answer.read())
    assert bodies[0] == bodies[3]
    assert len(set(bodies)) == 3
    pixels = [decode(body, 32) for body in bodies]
    assert np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])


def test_no_two_listings_of_a_backlog_have_one_title() -> None:
    assert len({json.loads(event(number))["title"] for number in range(500)}) == 500


def test_all_processes_together_used_at_least_what_this_one_did() -> None:
    own, all_ = transport._cpu_s(os.getpid()), transport._cpu_s(transport.MACHINE)
    assert 0.0 < own < all_
