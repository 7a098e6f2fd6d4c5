"""How many bytes a listing costs where it is kept: in Kafka's topics and in the view.

    python -m tests.benchmarks.record_sizes [--listings 20000] [--json]

Listings of the simulated shop as its stream sends them; results as the service builds them (three candidates, drawn
probabilities, no evidence). Both go through the service's own producer (lz4) into a local Apache Kafka, whose segments
are then measured; the results also into a local Valkey, by the script that the view's writer uses, and then a deletion
of each. tests.benchmarks.capacity reckons with these figures.
"""

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from consumer.events import Event, parse
from consumer.kafka import make_producer
from consumer.rank import Rank
from consumer.records import Incoming, Origin, Outgoing
from consumer.results import Answered, Audit, result_record, tombstone
from consumer.settings import KafkaSettings
from consumer.view import RANK_HEADER, Ranked, View
from mmcat.cli.servers import LocalKafka, LocalValkey
from mmcat.listing import Candidate, Decision, ImageStatus, ModelInfo, PathNode, Result
from mmcat.taxonomy import Path
from tests.support.broker import create_topics
from training.shop import catalogue
from training.shop.shop import Shop, ShopConfig
from training.shop.stream import events

INPUT, OUTPUT, PARTITIONS, BATCH = "input", "output", 4, 500
MODEL = ModelInfo("cross", "5" * 64, "cpu", "fp32", "7" * 64, 1_767_225_600_000)
NOW_MS, NOW = 1_767_225_600_000, "2026-01-01T00:00:00.123Z"


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes of a listing in Kafka and in the view.")
    parser.add_argument("--listings", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.listings)
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<24} {value:>10,.0f}")


def measure(listings: int) -> dict[str, float]:
    """Mean bytes a listing, by where it is; and how many results a second one connection puts into the view."""
    incoming = list(registered(listings))
    results = list(answers(incoming))
    gone = [tombstone(one, name_of(one), NOW_MS + 1, MODEL.created_ms, OUTPUT) for one in incoming]
    inputs = [Outgoing(INPUT, one.key, one.value, one.headers) for one in incoming]
    return {
        "event_value_bytes": _mean(len(one.value or b"") for one in inputs),
        "result_value_bytes": _mean(len(one.value or b"") for one in results),
        **_in_kafka(inputs, results),
        **_in_view(results, gone),
    }


def registered(count: int) -> Iterable[Incoming]:
    """The shop's events, as they are polled."""
    shop = Shop(ShopConfig(split="demo"))
    for offset, event in enumerate(events(shop, count, "https://photos.example.com/listings/2026/01")):
        yield Incoming(Origin("products.registered", offset % 96, offset, NOW_MS), event.key, event.value, [])


def answers(incoming: Iterable[Incoming]) -> Iterable[Outgoing]:
    """A result for each: a path of the shop's with drawn probabilities, and two alternatives."""
    dice = random.Random(0)
    paths = catalogue.taxonomy().paths
    for one in incoming:
        event = parse(one.key, one.value, max_bytes=2**20)
        assert isinstance(event, Event)
        candidates = [_candidate(path, dice) for path in dice.sample(paths, 3)]
        result = Result(
            event.product_id, candidates[0].path, candidates[0].probability, 3, Decision.ACCEPT, None,
            tuple(candidates[1:]), ImageStatus.USED,
        )  # fmt: skip
        answered = Answered(one, event, result, NOW_MS, MODEL.created_ms, 0, NOW)
        yield result_record(answered, MODEL, OUTPUT, Audit(0.0))[0]


def name_of(incoming: Incoming) -> str:
    """The product's id."""
    return (incoming.key or b"").decode()


def _candidate(path: Path, dice: random.Random) -> Candidate:
    return Candidate(tuple(PathNode(node.level, node.id, node.name, dice.random()) for node in path), dice.random())


def _in_kafka(inputs: Sequence[Outgoing], results: Sequence[Outgoing]) -> dict[str, float]:
    with LocalKafka() as broker:
        create_topics(broker.bootstrap, [INPUT, OUTPUT], PARTITIONS)
        producer = make_producer(KafkaSettings(bootstrap_servers=broker.bootstrap))
        for one in itertools.chain(inputs, results):
            producer.produce(one.topic, one.value, one.key, headers=list(one.headers))
            producer.poll(0)
        assert producer.flush(60) == 0
        sizes = {
            topic: sum(file.stat().st_size for file in broker.data.glob(f"**/{topic}-*/*.log"))
            for topic in (INPUT, OUTPUT)
        }
    return {"event_kept_bytes": sizes[INPUT] / len(inputs), "result_kept_bytes": sizes[OUTPUT] / len(results)}


def _in_view(results: Sequence[Outgoing], gone: Sequence[Outgoing]) -> dict[str, float]:
    with LocalValkey() as server:
        client = redis.Redis.from_url(server.url)
        view = View(server.url, "mmcat", 777_600)
        view.connect()

        def used() -> float:
            memory: dict[str, Any] = client.info("memory")
            return float(memory["used_memory"])

        def grown(records: Sequence[Outgoing], since: float) -> float:
            for start in range(0, len(records), BATCH):
                view.apply([_ranked(one, start) for one in records[start : start + BATCH]])
            return (used() - since) / len(records)

        empty = used()
        started = time.perf_counter()
        held = grown(results, empty)
        took_s = time.perf_counter() - started
        markers = grown(gone, empty)
        view.close()
        client.close()
    applied = len(results) / took_s
    return {"view_product_bytes": held, "view_marker_bytes": markers, "view_applied_per_s": applied}


def _ranked(record: Outgoing, offset: int) -> Ranked:
    rank = Rank.parse(dict(record.headers)[RANK_HEADER].decode())
    return Ranked((record.key or b"").decode(), rank, record.value, 7, 10_000_000 + offset, record.headers)


def _mean(values: Iterable[int]) -> float:
    found = list(values)
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
