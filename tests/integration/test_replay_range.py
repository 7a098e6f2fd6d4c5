"""What a replay would read: a range fixed to offsets, whatever stands or does not stand at its edges."""

import time
import uuid

import pytest
from confluent_kafka import Producer

from consumer.errors import ConfigError
from consumer.kafka import make_consumer
from consumer.replay_range import Survey, survey
from consumer.settings import KafkaSettings
from consumer.spans import Bound, Span
from tests.support.broker import DEADLINE_S, create_topics, random_topics, read_topic, send
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


def _survey(bootstrap: str, topic: str, start: Bound | None = None, end: Bound | None = None) -> Survey:
    settings = KafkaSettings(bootstrap_servers=bootstrap)
    extra = {"enable.partition.eof": True, "fetch.wait.max.ms": 20}
    consumer = make_consumer(settings, group_id=f"test-{uuid.uuid4().hex}", extra=extra)
    try:
        return survey(consumer, topic, start or Bound(), end or Bound())
    finally:
        consumer.close()


def _transaction(bootstrap: str, topic: str, values: list[bytes], *, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"test-{uuid.uuid4().hex}"})
    producer.init_transactions(DEADLINE_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, b"k")
    producer.flush(DEADLINE_S)
    if commit:
        producer.commit_transaction(DEADLINE_S)
    else:
        producer.abort_transaction(DEADLINE_S)


@pytest.fixture
def topic(apache_kafka: str) -> str:
    """A topic of one partition: a record, two committed with their marker, three aborted with theirs."""
    name = random_topics().input
    create_topics(apache_kafka, [name], 1, {"message.timestamp.type": "LogAppendTime"})
    send(apache_kafka, name, [(b"k", b"0", {})])
    _transaction(apache_kafka, name, [b"1", b"2"], commit=True)
    _transaction(apache_kafka, name, [b"4", b"5", b"6"], commit=False)
    return name


def test_survey_fixes_the_end_and_finds_its_edges_past_what_is_not_there(apache_kafka: str, topic: str) -> None:
    found = _survey(apache_kafka, topic)
    records = read_topic(apache_kafka, topic)
    assert [one.offset for one in records] == [0, 1, 2]
    assert found.spans == (Span(0, 0, 8),)
    assert (found.first_ms, found.last_ms) == (records[0].timestamp_ms, records[-1].timestamp_ms)


def test_survey_by_time_takes_what_came_in_it(apache_kafka: str) -> None:
    name = random_topics().input  # no transaction here: the broker stamps a marker when it gets round to writing it
    create_topics(apache_kafka, [name], 1, {"message.timestamp.type": "LogAppendTime"})
    send(apache_kafka, name, [(b"k", b"0", {}), (b"k", b"1", {})])
    between_ms = time.time_ns() // 1_000_000 + 1
    eventually(lambda: time.time_ns() // 1_000_000 > between_ms, "the clock moves", every_s=0.001)
    send(apache_kafka, name, [(b"k", b"2", {})])
    assert _survey(apache_kafka, name, Bound(time_ms=between_ms)).spans == (Span(0, 2, 3),)
    assert _survey(apache_kafka, name, end=Bound(time_ms=between_ms)).spans == (Span(0, 0, 2),)
    assert _survey(apache_kafka, name, Bound(time_ms=2**45)).spans == ()


def test_survey_of_nothing_says_so(apache_kafka: str, topic: str) -> None:
    found = _survey(apache_kafka, topic, Bound(offset=4), Bound(offset=7))
    assert found.spans == (Span(0, 4, 7),)
    assert (found.first_ms, found.last_ms) == (None, None)
    assert found.summary() == {
        "topic": topic,
        "records_at_most": 3,
        "first_at": None,
        "last_at": None,
        "partitions": [{"partition": 0, "start": 4, "end": 7}],
    }


def test_unknown_topic_is_one_sentence(apache_kafka: str) -> None:
    with pytest.raises(ConfigError, match=r"the topic no\.such cannot be replayed: .*[Uu]nknown topic"):
        _survey(apache_kafka, "no.such")


def test_the_embedded_broker_cannot_and_says_so(tansu: str) -> None:
    name = random_topics().input
    create_topics(tansu, [name], 1)
    with pytest.raises(ConfigError, match="replay needs Apache Kafka"):
        _survey(tansu, name)
