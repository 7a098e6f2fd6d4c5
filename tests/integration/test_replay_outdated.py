"""What a replay leaves out because something newer or better is known: without photo, without model, without harm."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from consumer.errors import ConfigError
from consumer.rank import Rank
from consumer.replay import Replay
from consumer.settings import Settings
from consumer.spans import Bound
from consumer.view import Ranked
from mmcat.cli.processes import free_port
from tests.support.broker import TopicNames, create_topics, end_offsets, read_topic, send
from tests.support.outcomes import last_per_key, rank_of
from tests.support.replays import a_model, a_plan, a_range, a_replay, fill_view, hold, register, replay_settings
from training.shop.photo_host import PhotoHost

pytestmark = pytest.mark.integration
PHOTO = b"the stub takes any bytes"
BAD: tuple[bytes, bytes, dict[str, bytes]] = (b"c", b'{"product_id": "c", "title": 5}', {})


@dataclass
class Photos:
    """A real host that has a photo at every address until it is `gone`."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def get(self, name: str) -> bytes | None:
        self.asked.append(name.removesuffix(".jpg"))
        return None if self.gone.is_set() else PHOTO


@pytest.fixture
def photo_host() -> Iterator[Photos]:
    photos = Photos()
    with PhotoHost(photos.get, kept=0) as host:
        photos.url = host.base_url
        yield photos


@pytest.fixture
def settings(apache_kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, photo_host: Photos) -> Settings:
    photo = {"allow": ["127.0.0.1"], "ports": [urlsplit(photo_host.url).port]}
    return replay_settings(apache_kafka, topics, valkey_url, view_prefix, photo=photo)


def _keys(settings: Settings, topic: str | None = None) -> list[str]:
    written = read_topic(settings.kafka.bootstrap_servers, topic or settings.topics.output)
    return sorted((one.key or b"").decode() for one in written)


def test_what_was_updated_or_deleted_beyond_the_range_costs_neither_photo_nor_model(
    settings: Settings, photo_host: Photos
) -> None:
    register(settings, "updated", "deleted", "untouched", "answered", photos=photo_host.url)
    model = a_model(1)
    plan = a_plan(settings, model)
    register(settings, "updated", photos=photo_host.url)
    send(settings.kafka.bootstrap_servers, settings.topics.input, [(b"deleted", None, {})])
    last = last_per_key(read_topic(settings.kafka.bootstrap_servers, settings.topics.input))
    time_of = {key.decode(): one.timestamp_ms for key, one in last.items()}
    hold(
        settings,
        [
            Ranked("updated", Rank(time_of["updated"], 0, 1, 1), b"{}"),
            Ranked("deleted", Rank(time_of["deleted"], 2, 1, 0), None),
            Ranked("answered", Rank(time_of["answered"], 0, model.info.created_ms + 1, 0), b"{}"),  # by a newer model
        ],
    )
    done = Replay(settings, model, plan).run()
    assert photo_host.asked == ["untouched"]
    assert model.batches == [["untouched"]]
    assert _keys(settings) == ["untouched"]
    assert done.superseded == {"later_in_range": 0, "newer_in_view": 3, "photo_seen": 0, "outranked": 0}
    assert done.outcomes == {"result": 1, "tombstone": 0, "dead_letter": 0, "superseded": 3}


def test_of_a_product_only_the_last_good_event_of_the_range_is_worked(settings: Settings, photo_host: Photos) -> None:
    register(settings, "a", "b", "c", photos=photo_host.url, title="first")
    register(settings, "a", "b", photos=photo_host.url, title="second")
    send(settings.kafka.bootstrap_servers, settings.topics.input, [(b"b", None, {}), BAD])
    model = a_model(1)
    done = a_replay(settings, model).run()
    assert sorted(photo_host.asked) == ["a", "c"]
    assert sorted(one for batch in model.batches for one in batch) == ["a", "c"]
    assert done.outcomes == {"result": 2, "tombstone": 1, "dead_letter": 1, "superseded": 3}
    assert done.superseded["later_in_range"] == 3


def test_an_answer_that_saw_the_photo_stays_unless_told_otherwise(settings: Settings, photo_host: Photos) -> None:
    register(settings, "seen", "changed", photos=photo_host.url)
    a_replay(settings, a_model(1)).run()
    fill_view(settings, read_topic(settings.kafka.bootstrap_servers, settings.topics.output))
    register(settings, "changed", photos=photo_host.url, title="another listing")
    photo_host.gone.set()
    before = end_offsets(settings.kafka.bootstrap_servers, settings.topics.output)
    same_model = a_replay(settings, a_model(1), a_range(settings, end=Bound(offset=1)), allow_blind=True).run()
    assert same_model.superseded["outranked"] == sum(same_model.outcomes.values()) > 0  # by completeness alone
    foretold = Replay(settings, a_model(2), a_plan(settings, a_model(2)), compare=lambda *_: None).run()
    newer = a_replay(settings, a_model(2)).run()
    assert foretold.superseded == newer.superseded
    assert newer.superseded == {"later_in_range": 1, "newer_in_view": 0, "photo_seen": 1, "outranked": 0}
    assert newer.outcomes["result"] == 1
    assert _keys(settings) == ["changed", "changed", "seen"]
    told = a_replay(settings, a_model(2), allow_blind=True).run()
    assert told.outcomes["result"] == 2
    ends = end_offsets(settings.kafka.bootstrap_servers, settings.topics.output)
    assert sum(ends.values()) - sum(before.values()) == 3


def test_as_of_answers_everything_into_a_shadow_topic_and_asks_no_view(
    apache_kafka: str, topics: TopicNames, view_prefix: str
) -> None:
    settings = replay_settings(apache_kafka, topics, f"redis://127.0.0.1:{free_port()}/0", view_prefix)  # none there
    shadow = f"{topics.output}.shadow"
    create_topics(apache_kafka, [shadow], 3)
    register(settings, "a", "b", "a")
    send(apache_kafka, topics.input, [(b"b", None, {}), BAD])
    done = a_replay(settings, a_model(1), as_of=True, into=shadow).run()
    assert done.outcomes == {"result": 3, "tombstone": 1, "dead_letter": 1, "superseded": 0}
    assert _keys(settings, shadow) == ["a", "a", "b", "b"]
    written = read_topic(apache_kafka, shadow)
    for key, last in last_per_key(written).items():
        assert rank_of(last) == max(rank_of(one) for one in written if one.key == key)
    for topic in (topics.output, topics.review, topics.dead_letter):
        assert read_topic(apache_kafka, topic) == []


def test_as_of_goes_nowhere_else(settings: Settings) -> None:
    def refused(sentence: str, **options: Any) -> None:
        with pytest.raises(ConfigError, match=sentence):
            a_plan(settings, a_model(1), **options)

    names = settings.topics
    refused("writes into a shadow topic only", as_of=True)
    refused("writes into a shadow topic only", as_of=True, into=names.output)
    refused("only --as-of writes into another topic", into="elsewhere")
    for ours in (names.input, names.review, names.dead_letter, f"{names.retry_prefix}.1h"):
        refused("is a topic of the service", as_of=True, into=ours)
    refused("does not exist: create it", as_of=True, into=f"{names.output}.nowhere")
