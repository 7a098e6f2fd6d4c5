"""Redis killed, emptied, full: the service categorizes on, says so, and the view catches up from its own positions."""

from pathlib import Path

import pytest
import redis

from mmcat.cli.servers import LocalValkey
from tests.integration.conftest import MakeBench
from tests.support.broker import TopicNames, read_topic
from tests.support.listings import Mix, events
from tests.support.outcomes import check_ranks, drained, read_stream, wait_for_view

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_categorization_goes_on_while_the_view_is_killed_emptied_and_full(
    kafka: str, topics: TopicNames, make_bench: MakeBench, tmp_path: Path
) -> None:
    mixes = [Mix(150, updates=50, deletions=5, seed=seed) for seed in range(31, 35)]
    with LocalValkey(logs=tmp_path / "valkey") as valkey, redis.Redis.from_url(valkey.url) as client:
        bench = make_bench(kafka, topics, stub=True, MMCAT_VIEW__URL=valkey.url)
        with bench.service as service:

            def categorized(mix: Mix) -> None:
                bench.send_and_wait(mix)
                service.until(lambda: drained(kafka, topics, bench.group), "all is categorized and committed")

            service.wait_ready()
            categorized(mixes[0])
            valkey.kill()
            categorized(mixes[1])
            service.until(lambda: service.metric("mmcat_view_up") == 0, "it says that the view is away")
            assert service.status("/readyz") == 200
            valkey.start()  # empty
            service.until(lambda: service.metric("mmcat_view_up") == 1, "the view is back")
            client.config_set("maxmemory", 1)
            categorized(mixes[2])
            service.until(lambda: service.metric("mmcat_view_up") == 0, "it says that the view is full")
            client.config_set("maxmemory", 0)
            service.until(lambda: service.metric("mmcat_view_up") == 1, "there is room again")
            client.flushall()
            categorized(mixes[3])
            stream = read_stream(kafka, topics, [event for mix in mixes for event in events(mix)])
            wait_for_view(stream, bench.view_url, bench.view_prefix, 60)
            assert service.terminate() == 0
    check_ranks(stream)
    assert len(read_topic(kafka, topics.dead_letter)) == 0
    assert sum(one.value is not None for one in stream.output) == 600
