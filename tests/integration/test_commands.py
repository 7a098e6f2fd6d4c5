"""`mmcat topics`, `simulate`, `replay` and `cache-writer` from the command line, on a real broker."""

import json
import re
import sys
from pathlib import Path

import pytest

from mmcat.cli import main
from tests.support.broker import TopicNames, create_topics, random_topics, read_topic
from tests.support.service import ServiceProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, valkey_url: str, view_prefix: str) -> TopicNames:
    """Topics of one's own, in the environment of the commands."""
    monkeypatch.chdir(tmp_path)
    found = random_topics()
    for name, value in found.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MMCAT_VIEW__URL", valkey_url)
    monkeypatch.setenv("MMCAT_VIEW__PREFIX", view_prefix)
    return found


def test_topics_are_made_once_and_then_found_right(
    apache_kafka: str, names: TopicNames, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MMCAT_RETRY__DELAYS")  # the three delay topics are among the seven
    common = ["--bootstrap", apache_kafka, "--dev", "--partitions", "2"]
    assert main(["topics", "check", *common]) == 1
    assert "mmcat topics create" in capsys.readouterr().out
    assert main(["topics", "create", *common, "--dry-run", "--json"]) == 0
    assert {one["action"] for one in json.loads(capsys.readouterr().out)} == {"would_create"}
    assert main(["topics", "create", *common]) == 0
    assert len(re.findall(r"^created ", capsys.readouterr().out, re.MULTILINE)) == 7
    assert main(["topics", "check", *common]) == 0
    monkeypatch.setenv("MMCAT_VIEW__MARKER_LIFE_S", "60")
    assert main(["topics", "check", *common]) == 1
    assert "MMCAT_VIEW__MARKER_LIFE_S" in capsys.readouterr().out


def test_a_simulated_shop_sends_the_same_events_for_the_same_seed(
    kafka: str, names: TopicNames, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topics", "create", "--bootstrap", kafka, "--dev", "--partitions", "1"]) == 0
    capsys.readouterr()
    shop = ["simulate", "--bootstrap", kafka, "--rate", "0", "--photo-base", "http://photos/p", "--json"]
    mix = ["--count", "80", "--updates", "0.2", "--deletions", "0.2", "--bad", "0.1"]
    sent = []
    for _ in range(2):
        assert main([*shop, *mix]) == 0
        sent.append(json.loads(capsys.readouterr().out))
    total = sent[0]["sent"]
    kinds = ("registered", "updated", "deleted", "bad")
    assert sum(sent[0][kind] for kind in kinds) == total
    assert sent[0]["registered"] == 80
    assert [sent[0][kind] for kind in kinds] == [sent[1][kind] for kind in kinds]
    records = read_topic(kafka, names.input)
    first, second = records[:total], records[total:]
    assert [record.key for record in first] == [record.key for record in second]
    good = [record for record in first if record.key is not None and record.key.startswith(b"p")]
    assert len(good) == total - sent[0]["bad"]
    assert sum(record.value is None for record in good) == sent[0]["deleted"]
    values = [json.loads(record.value) for record in good if record.value is not None]
    urls = [value["image_url"] for value in values if "image_url" in value]
    assert urls
    assert all(re.fullmatch(r"http://photos/p/[0-9a-f]+\.jpg", url) for url in urls)


def test_a_rate_is_kept(kafka: str, names: TopicNames, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topics", "create", "--bootstrap", kafka, "--dev", "--partitions", "1"]) == 0
    capsys.readouterr()
    options = ["--rate", "40", "--count", "60", "--photo-base", "http://photos/p", "--json"]
    assert main(["simulate", "--bootstrap", kafka, *options]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] >= 59 / 40 - 0.1


def test_a_simulation_without_its_topic_is_one_sentence(
    apache_kafka: str, names: TopicNames, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--rate", "0", "--count", "2", "--photo-base", "http://photos/p"]
    assert main(["simulate", "--bootstrap", apache_kafka, *options]) == 1
    said = capsys.readouterr().err
    assert f"has no topic {names.input} that we may see: make it with `mmcat topics create`" in said


def test_a_simulation_says_how_much_a_broker_did_not_take(
    apache_kafka: str, names: TopicNames, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its records are larger than the topic takes."""
    create_topics(apache_kafka, [names.input], 1, {"max.message.bytes": "10"})
    options = ["--rate", "0", "--count", "2", "--photo-base", "http://photos/p"]
    assert main(["simulate", "--bootstrap", apache_kafka, *options]) == 1
    assert "the broker did not take 2 events: 2 × Broker: Message size too large" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("patience", "command"),
    [
        ("consumer.letter_reader.BROKER_S", ["dead-letter", "list"]),
        ("mmcat.cli.simulate.BROKER_S", ["simulate", "--photo-base", "http://photos/p"]),
        ("consumer.replay_range.TIMEOUT_S", ["replay", "--from", "6h", "--dry-run"]),
    ],
    ids=["dead-letter", "simulate", "replay"],
)
def test_a_broker_that_is_not_there_is_one_sentence_with_the_reason(
    patience: str,
    command: list[str],
    names: TopicNames,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, 1.0)
    assert main([*command, "--bootstrap", "127.0.0.1:1"]) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("sending to")]
    assert len(said) == 1
    assert said[0].startswith("mmcat: the broker at 127.0.0.1:1 does not answer: ")
    assert "Connection refused" in said[0]


def test_a_dry_replay_says_what_it_would_read(
    apache_kafka: str, names: TopicNames, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topics", "create", "--bootstrap", apache_kafka, "--dev", "--partitions", "1"]) == 0
    options = ["--rate", "0", "--count", "5", "--photo-base", "http://photos/p"]
    assert main(["simulate", "--bootstrap", apache_kafka, *options]) == 0
    capsys.readouterr()
    assert main(["replay", "--bootstrap", apache_kafka, "--from", "1h", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records_at_most"] == 5
    assert main(["replay", "--bootstrap", apache_kafka, "--from", "0:2", "--to", "4", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["partitions"] == [{"partition": 0, "start": 2, "end": 4}]


def test_the_cache_writer_runs_alone_and_ends_on_sigterm(
    kafka: str, names: TopicNames, valkey_url: str, tmp_path: Path
) -> None:
    assert main(["topics", "create", "--bootstrap", kafka, "--dev", "--partitions", "1"]) == 0
    env = {**names.env(), "MMCAT_KAFKA__BOOTSTRAP_SERVERS": kafka, "MMCAT_VIEW__URL": valkey_url}
    command = (sys.executable, "-m", "mmcat.cli", "cache-writer")
    with ServiceProcess(env, tmp_path, command) as writer:
        writer.wait_ready()
        eventually(lambda: writer.metric("mmcat_view_up") == 1, "the view is up")
        assert writer.terminate() == 0
