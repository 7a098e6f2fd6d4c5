"""A plan pins a replay: stopped and started again it does the rest of the same work, once, and nothing else."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from consumer.errors import ConfigError
from consumer.replay import Replay
from consumer.replay_plan import read_plan
from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import DEADLINE_S, TopicNames, create_topics, end_offsets, read_topic
from tests.support.listings import Mix
from tests.support.outcomes import origin_of
from tests.support.replays import a_model, a_plan, register, replay_settings
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


def _command(bench: Bench, *words: str, **more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.support.stub_service", "replay", "--json", *words]
    env = {**bench.service.whole_env(), **more}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _said(process: "subprocess.Popen[str]", status: int = 0) -> dict[str, object]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err[-3000:]
    found: dict[str, object] = json.loads(out or "{}")
    return {**found, "stderr": err}


def test_planned_tried_stopped_and_gone_on_with_each_event_is_worked_once(
    apache_kafka: str, topics: TopicNames, make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench(apache_kafka, topics, stub=True)
    bench.send_and_wait(Mix(200, seed=1))
    file, changes = tmp_path / "plan.json", tmp_path / "changes.tsv"
    tried = _said(_command(bench, "--plan", str(file), "--rate", "50", "--dry-run"))
    assert (tried["records_at_most"], tried["left_at_most"], tried["rate"]) == (200, 200, 50.0)
    bench.send_and_wait(Mix(30, seed=2))  # beyond what was planned
    foretold = _said(_command(bench, "--plan", str(file), "--rate", "100000", "--diff", "--out", str(changes)))
    assert foretold["changes"]["new"] == 200  # type: ignore[index]  # JSON
    assert len(changes.read_text().splitlines()) == 201
    assert read_topic(apache_kafka, topics.output) == []

    first = _command(bench, "--plan", str(file))
    eventually(lambda: sum(end_offsets(apache_kafka, topics.output).values()) > 20, "some work is done", 90)
    first.send_signal(signal.SIGTERM)
    assert _said(first, 130)["complete"] is False
    done = len(read_topic(apache_kafka, topics.output))
    assert 20 < done < 200
    left = _said(_command(bench, "--plan", str(file), "--dry-run"))
    assert left["left_at_most"] == 200 - done
    rest = _said(_command(bench, "--plan", str(file), "--rate", "100000"))
    assert (rest["complete"], rest["records"]) == (True, 200 - done)
    written = read_topic(apache_kafka, topics.output)
    assert len(written) == len({origin_of(one) for one in written}) == 200

    other = _said(_command(bench, "--plan", str(file), MMCAT_TEST_MODEL_FINGERPRINT="e" * 64), 1)
    assert "the plan was made for the model stub" in str(other["stderr"])


def test_a_plan_of_a_topic_that_was_made_anew_is_refused(
    apache_kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, tmp_path: Path
) -> None:
    settings = replay_settings(apache_kafka, topics, valkey_url, view_prefix)
    register(settings, "a", "b", "c")
    plan = a_plan(settings, a_model(1))
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    admin.delete_topics([topics.input])[topics.input].result(DEADLINE_S)
    eventually(lambda: topics.input not in admin.list_topics(timeout=DEADLINE_S).topics, "the topic is gone")
    create_topics(apache_kafka, [topics.input], 3)
    with pytest.raises(ConfigError, match=r"deleted \(and made again\)"):
        Replay(settings, a_model(1), plan).run()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(tmp_path / "none.json")
