"""What is wrong before the first record: one sentence and exit 1, or patience, as the design says for each."""

import pytest

from mmcat.cli.processes import free_port
from mmcat.cli.servers import LocalKafka, LocalTansu, LocalValkey
from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import create_topics, random_topics
from tests.support.listings import Mix, events
from tests.support.outcomes import check_outcomes, drained, read_stream, wait_for_view

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def _last_lines(bench: Bench) -> str:
    return bench.service.log.read_text(encoding="utf-8")


def test_a_missing_topic_ends_it_with_one_sentence(kafka: str, make_bench: MakeBench) -> None:
    names = random_topics()
    create_topics(kafka, [names.input, names.review, names.dead_letter], 1)
    bench = make_bench(kafka, names, stub=True)
    with bench.service as service:
        assert service.wait() == 1
    said = _last_lines(bench)
    assert names.output in said
    assert "mmcat topics create" in said
    assert "Traceback" not in said


def test_an_unreachable_broker_is_waited_for(make_bench: MakeBench) -> None:
    broker = LocalTansu(port=free_port())
    names = random_topics()
    bench = make_bench(broker.address, names, stub=True)
    with bench.service as service:
        service.until(lambda: service.status("/healthz") == 200, "it lives", 90)
        service.until(lambda: service.status("/readyz") == 503, "it is not ready")
        with broker:
            create_topics(broker.bootstrap, [names.input, names.output, names.review, names.dead_letter], 1)
            service.wait_ready()
            mix = Mix(20)
            bench.send_and_wait(mix)
            service.until(lambda: len(read_stream(broker.bootstrap, names, []).output) == 20, "all is categorized")
            assert service.terminate() == 0


def test_a_view_that_is_away_stops_nothing_and_catches_up(kafka: str, make_bench: MakeBench) -> None:
    names = random_topics()
    create_topics(kafka, [names.input, names.output, names.review, names.dead_letter], 3)
    cache = LocalValkey(port=free_port())
    with cache:
        bench = make_bench(kafka, names, stub=True, MMCAT_VIEW__URL=cache.url)
        mix = Mix(200, updates=50, deletions=5, seed=3)
        with bench.service as service:
            service.wait_ready()
            service.until(lambda: service.metric("mmcat_view_up") == 1, "the view is up")
            cache.stop()
            bench.send_and_wait(mix)
            service.until(lambda: drained(kafka, names, bench.group), "it categorizes without the view")
            service.until(lambda: service.metric("mmcat_view_up") == 0, "the view is reported down")
            assert service.status("/readyz") == 200
            stream = read_stream(kafka, names, events(mix))
            cache.start()
            wait_for_view(stream, cache.url, bench.view_prefix)
            service.until(lambda: service.metric("mmcat_view_up") == 1, "the view is reported up")
            assert service.terminate() == 0
    check_outcomes(stream, names, exactly_once=True)


def test_a_broker_that_goes_and_comes_back_ends_nothing(apache_kafka: str, make_bench: MakeBench) -> None:
    with LocalKafka() as broker:
        names = random_topics()
        create_topics(broker.bootstrap, [names.input, names.output, names.review, names.dead_letter], 3)
        bench = make_bench(broker.bootstrap, names, stub=True)
        first, second = Mix(100, seed=1), Mix(100, seed=2)
        with bench.service as service:
            service.wait_ready()
            bench.send_and_wait(first)
            broker.stop()
            service.until(lambda: service.status("/readyz") == 503, "it says that the broker is away", 60)
            assert service.status("/healthz") == 200
            broker.start()
            service.wait_ready()
            bench.send_and_wait(second)
            service.until(lambda: drained(broker.bootstrap, names, bench.group), "all is committed", 60)
            assert service.terminate() == 0
        stream = read_stream(broker.bootstrap, names, [*events(first), *events(second)])
        check_outcomes(stream, names, exactly_once=False)
