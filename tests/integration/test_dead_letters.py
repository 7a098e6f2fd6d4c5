"""`mmcat dead-letter` on a real broker: what is listed, shown and sent again, and that nothing is sent twice."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.dead_letters import dead_letter
from consumer.letter_reader import LetterReader
from consumer.letter_replay import LetterReplay
from consumer.letters import Choice
from consumer.loading import load
from consumer.records import Incoming, Origin
from consumer.settings import Settings
from consumer.spans import Bound
from mmcat.cli import main
from tests.support.broker import Record, TopicNames, create_topics, read_topic, send

pytestmark = pytest.mark.integration

BELL = b'{"product_id": "p7", "title": "\xff\x1b[2J\x07"'
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def dead(
    apache_kafka: str, topics: TopicNames, group_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> TopicNames:
    """Thirty dead letters of three codes in three partitions, one of them cut, one with bytes that are no text."""
    monkeypatch.chdir(tmp_path)
    create_topics(apache_kafka, [f"{topics.retry_prefix}.30s"], 3)
    records = []
    for number in range(30):
        code = ("event.schema", "event.not_json", "model.failed")[number % 3]
        value = BELL if number == 7 else b'{"product_id": "p%d", "title": %d}' % (number, number)
        value = b"x" * 70_000 if number == 9 else value
        origin = Origin(topics.input, number % 3, 100 + number, 1_700_000_000_000 + number)
        incoming = Incoming(origin, b"p%d" % number, value, [("traceparent", b"00-%d" % number), ("other", b"x")])
        letter = dead_letter(incoming, code, "title: wrong", topic="", version="1", max_bytes=66_000)
        records.append((letter.key, letter.value, dict(letter.headers)))
    send(apache_kafka, topics.dead_letter, records)
    for name, setting in {**topics.env(), "MMCAT_KAFKA__BOOTSTRAP_SERVERS": apache_kafka}.items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("MMCAT_KAFKA__GROUP_ID", group_id)
    monkeypatch.setenv("MMCAT_RETRY__DELAYS", "30s")
    return topics


@pytest.fixture
def run(dead: TopicNames, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `mmcat dead-letter …`: its exit code and what it put on stdout."""

    def command(*arguments: str) -> tuple[int, str]:
        code = main(["dead-letter", *arguments])
        return code, capsys.readouterr().out

    return command


def _place(bootstrap: str, names: TopicNames, key: bytes) -> str:
    found = next(one for one in read_topic(bootstrap, names.dead_letter) if one.key == key)
    return f"{found.partition}:{found.offset}"


def _sent(bootstrap: str, names: TopicNames) -> list[Record]:
    return read_topic(bootstrap, f"{names.retry_prefix}.30s")


def test_they_are_listed_by_code_product_and_time(run: Command) -> None:
    code, table = run("list", "--limit", "4")
    assert code == 0
    assert len(table.splitlines()) == 1 + 4 + 1
    assert "30 dead letters: 10 event.schema, 10 event.not_json, 10 model.failed; 0 of them were sent again" in table
    _, lines = run("list", "--json", "--code", "model.failed", "--code", "event.schema")
    listed = [json.loads(line) for line in lines.splitlines()]
    assert Counter(one["code"] for one in listed) == {"model.failed": 10, "event.schema": 10}
    assert [one["product"] for one in listed if one["truncated"]] == ["p9"]
    _, one = run("list", "--json", "--product", "p8")
    assert json.loads(one)["origin"]["offset"] == 108
    assert len(run("list", "--json", "--from", "1h")[1].splitlines()) == 30
    assert run("list", "--json", "--to", "1h")[1] == ""


def test_one_is_shown_without_tricking_the_terminal_and_written_byte_for_byte(
    run: Command, apache_kafka: str, dead: TopicNames, tmp_path: Path
) -> None:
    place = _place(apache_kafka, dead, b"p7")
    code, text = run("show", place)
    assert code == 0
    assert {"\x1b", "\x07"}.isdisjoint(text)
    assert r"\xff\x1b[2J\x07" in text
    assert "mmcat-error: event.not_json" in text
    shown = json.loads(run("show", place, "--json")[1])
    assert shown["value"] == {"base64": "eyJwcm9kdWN0X2lkIjogInA3IiwgInRpdGxlIjogIv8bWzJKByI="}
    assert run("show", place, "--raw", str(tmp_path / "raw"))[0] == 0
    assert (tmp_path / "raw").read_bytes() == BELL
    assert run("show", "0:999")[0] == 1
    assert run("show", "nowhere")[0] == 1


def test_what_is_sent_again_is_the_record_it_was_with_its_origin(
    run: Command, apache_kafka: str, dead: TopicNames
) -> None:
    code, dry = run("replay", "--code", "event.schema", "--dry-run", "--json")
    assert (code, json.loads(dry)) == (
        0,
        {"chosen": 9, "codes": {"event.schema": 9}, "refused": {"truncated": 1}, "already": 0},
    )
    assert _sent(apache_kafka, dead) == []
    assert run("replay", "--code", "event.schema")[0] == 1, "nobody can be asked"
    assert _sent(apache_kafka, dead) == []
    code, said = run("replay", "--code", "event.schema", "--yes", "--json")
    assert (code, json.loads(said)["sent"], json.loads(said)["complete"]) == (0, 9, True)
    numbers = [number for number in range(0, 30, 3) if number != 9]
    sent = {one.key: one for one in _sent(apache_kafka, dead)}
    assert set(sent) == {b"p%d" % number for number in numbers}
    for number in numbers:
        one = sent[b"p%d" % number]
        assert one.value == b'{"product_id": "p%d", "title": %d}' % (number, number)
        due = one.headers.pop("mmcat-due")
        assert abs(int(due) - one.timestamp_ms) < 60_000
        assert one.headers == {
            "mmcat-attempt": b"1",
            "mmcat-replayed": b"1",
            "mmcat-origin-topic": dead.input.encode(),
            "mmcat-origin-partition": b"%d" % (number % 3),
            "mmcat-origin-offset": b"%d" % (100 + number),
            "mmcat-origin-timestamp": b"%d" % (1_700_000_000_000 + number),
            "traceparent": b"00-%d" % number,
        }


def test_nothing_is_sent_twice_by_whatever_filter_unless_it_is_asked_for(
    run: Command, apache_kafka: str, dead: TopicNames
) -> None:
    def replay(*more: str) -> dict[str, object]:
        code, said = run("replay", "--yes", "--json", *more)
        assert code == 0
        found: dict[str, object] = json.loads(said)
        return found

    assert replay("--code", "model.failed", "--from", "1h")["sent"] == 10
    assert replay("--code", "model.failed") | {"seconds": 0} == {
        "topic": f"{dead.retry_prefix}.30s", "chosen": 0, "sent": 0, "codes": {}, "refused": {}, "already": 10,
        "seconds": 0, "complete": True,
    }  # fmt: skip
    assert replay("--product", "p2", "--product", "p3")["sent"] == 1
    everything = replay()
    assert (everything["sent"], everything["already"], everything["refused"]) == (18, 11, {"truncated": 1})
    assert max(Counter(one.key for one in _sent(apache_kafka, dead)).values()) == 1
    assert "29 of them were sent again" in run("list")[1]
    assert replay("--product", "p2", "--again")["sent"] == 1
    assert Counter(one.key for one in _sent(apache_kafka, dead))[b"p2"] == 2


def test_one_that_was_stopped_goes_on_where_it_was(apache_kafka: str, dead: TopicNames) -> None:
    settings: Settings = load()[0]
    with LetterReader(settings) as reader:
        first = LetterReplay(
            settings, reader, Choice(), rate=20.0, on_progress=lambda sent, _: first.stop() if sent >= 5 else None
        )
        done = first.run(first.plan(Bound(), Bound()))
        assert not done.complete
        assert 5 <= done.sent < 29
        second = LetterReplay(settings, reader, Choice())
        rest = second.run(second.plan(Bound(), Bound()))
    assert (rest.already, rest.sent, rest.complete) == (done.sent, 29 - done.sent, True)
    assert set(Counter(one.key for one in _sent(apache_kafka, dead)).values()) == {1}


def test_without_a_topic_to_send_to_it_says_how_to_make_it(
    run: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_TOPICS__RETRY_PREFIX", "nothing.here")
    assert main(["dead-letter", "replay", "--yes"]) == 1
    assert "no topic nothing.here.30s that we may see: make it with `mmcat topics create`" in capsys.readouterr().err
