"""The main job, from outside: listings from one process, the consumer in another, the broker and the view read back."""

import signal
from collections import Counter

import pytest

from tests.integration.conftest import Bench
from tests.support.broker import committed, end_offsets
from tests.support.listings import Kind, Mix, events
from tests.support.outcomes import (
    Stream,
    check_last_is_newest,
    check_outcomes,
    check_ranks,
    counts,
    drained,
    read_stream,
    wait_for_view,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DRAIN_S = 120.0


def _committed(bench: Bench) -> int:
    return sum(max(0, offset) for offset in committed(bench.bootstrap, bench.group, bench.topics.input).values())


def _drain(bench: Bench, mix: Mix) -> Stream:
    bench.service.until(lambda: drained(bench.bootstrap, bench.topics, bench.group), "all is committed", DRAIN_S)
    return read_stream(bench.bootstrap, bench.topics, events(mix))


def test_two_thousand_listings_come_back_once_and_in_their_place(bench: Bench) -> None:
    mix = Mix(2_000, updates=300, deletions=25, bad=18, photos=bench.photos)
    with bench.service as service:
        sender = bench.send(mix)
        service.wait_ready()
        assert sender.wait(60) == 0
        stream = _drain(bench, mix)
        wait_for_view(stream, bench.view_url, bench.view_prefix)
        assert service.metric("mmcat_view_up") == 1
        assert service.metric("mmcat_listings_total", outcome="dead_letter") == 18
        assert service.terminate() == 0
    check_outcomes(stream, bench.topics, exactly_once=True)
    check_ranks(stream)
    check_last_is_newest(stream)
    sent = Counter(event.kind for event in stream.sent)
    assert counts(stream) == {"result": 2_000, "tombstone": sent[Kind.DELETION], "dead_letter": 18}
    images = Counter(b'"image":"used"' in (one.value or b"").replace(b" ", b"") for one in stream.output)
    assert images[True] > 400


def test_sigterm_in_the_middle_and_a_restart_lose_nothing_and_repeat_nothing(slow_bench: Bench) -> None:
    bench = slow_bench
    mix = Mix(800, updates=200, deletions=10, bad=9, photos=bench.photos, seed=8)
    bench.send_and_wait(mix)
    with bench.service as service:
        service.until(lambda: _committed(bench) > 100, "some work is done and committed")
        assert service.terminate() == 0
        at_stop = sum(end_offsets(bench.bootstrap, bench.topics.output).values())
        assert at_stop < 800, "it was stopped in the middle"
        service.start()
        stream = _drain(bench, mix)
        wait_for_view(stream, bench.view_url, bench.view_prefix)
    check_outcomes(stream, bench.topics, exactly_once=True)
    check_ranks(stream)
    check_last_is_newest(stream)


def test_kill_in_the_middle_and_a_restart_lose_nothing(slow_bench: Bench) -> None:
    bench = slow_bench
    mix = Mix(800, updates=200, deletions=10, bad=9, photos=bench.photos, seed=9)
    bench.send_and_wait(mix)
    with bench.service as service:
        service.until(lambda: _committed(bench) > 100, "some work is done and committed")
        service.process.send_signal(signal.SIGKILL)
        assert service.wait() == -signal.SIGKILL
        assert _committed(bench) < 800, "it was killed in the middle"
        service.start()
        stream = _drain(bench, mix)
        wait_for_view(stream, bench.view_url, bench.view_prefix)
    check_outcomes(stream, bench.topics, exactly_once=False)
    check_ranks(stream)
    check_last_is_newest(stream)
