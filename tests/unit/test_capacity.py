"""The arithmetic of docs/capacity.md: by round numbers, by what must hold for any, and the page itself."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.benchmarks.capacity import Inputs, capacity, main, need, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "capacity.md"
ROUND = Inputs(
    per_day=8_640_000, peak=10, products=1e6, backfill_days=1,
    cpu_rate=4, slow_rate=2, host_ms=250, gpu_rate=1_000, cores=10, busy=0.5,
    photo_bytes=1e5, event_bytes=400, result_bytes=1_000, event_kept_bytes=100, result_kept_bytes=200,
    view_product_bytes=2_000, view_marker_bytes=500, replication=3, retention_days=7, review_share=0.5, retry_share=1,
    deleted_share=0.01, marker_days=10,
)  # fmt: skip


def test_round_numbers_give_what_one_reckons_by_hand() -> None:
    found = capacity(ROUND)
    assert (found.mean.rate, found.peak.rate) == (100, 1_000)
    assert (found.mean.cores, found.mean.instances, found.mean.gpus) == (100, 10, 1)
    assert (found.peak.instances, found.peak.gpus) == (100, 2)
    assert found.peak.photo_bytes_s == 1e8
    assert found.mean.kafka_bytes_s == 100 * (100 * 2 + 200 * 1.5) * 3
    assert found.partitions == 192  # at the peak 150 instances that take 0.75 s of a core for each listing
    assert found.growing_bytes == 3 * 7 * 8_640_000 * (100 * 2 + 200 * 0.5)
    assert found.growing_bytes_plain == 3 * 7 * 8_640_000 * (400 * 2 + 1_000 * 0.5)
    assert found.resting_bytes == 3 * 200 * 9_640_000
    assert found.view_bytes == 1e6 * 2_000 + 8_640_000 * 0.01 * 10 * 500
    assert found.backfill.rate == pytest.approx(1e6 / 86_400)


def test_partitions_are_never_fewer_than_instances_at_the_peak() -> None:
    for per_day in (1e3, 1e6, 20e6, 3e8):
        found = capacity(replace(Inputs(), per_day=per_day))
        assert found.partitions >= found.peak.instances


def test_half_the_rate_needs_twice_the_cores() -> None:
    given = replace(Inputs(), host_ms=0)
    whole, half = need(given, 500), need(replace(given, cpu_rate=given.cpu_rate / 2), 500)
    assert half.cores == pytest.approx(2 * whole.cores)


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    printed = capsys.readouterr().out.rstrip()
    assert printed == table(capacity(Inputs()))
    assert printed in PAGE.read_text("utf-8"), "run python -m tests.benchmarks.capacity and paste what it prints"


def test_the_page_names_every_input() -> None:
    text = PAGE.read_text("utf-8")
    missing = [field.name for field in fields(Inputs) if f"`{field.name}`" not in text]
    assert not missing


@pytest.mark.parametrize("wrong", [["--busy", "0"], ["--review-share", "1.5"], ["--per-day", "nan"]])
def test_impossible_inputs_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err
