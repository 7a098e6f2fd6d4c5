"""`mmcat cache-writer` as operators run it: a process with endpoints, exit codes, and one clear sentence."""

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from consumer.rank import Rank
from mmcat.cli.servers import LocalValkey
from tests.support.broker import TopicNames, send
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.integration

COMMAND = (sys.executable, "-m", "mmcat.cli", "cache-writer")


def environment(bootstrap: str, topics: TopicNames, url: str, group: str) -> dict[str, str]:
    return {
        "MMCAT_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "MMCAT_KAFKA__GROUP_ID": group,
        "MMCAT_VIEW__URL": url,
        **topics.env(),
    }


def ended(process: ServiceProcess) -> tuple[int, str]:
    with process:
        status = process.wait(60)
        return status, process.log.read_text(encoding="utf-8")


def test_it_writes_the_view_outlives_its_absence_and_ends_on_sigterm(
    kafka: str, topics: TopicNames, tmp_path: Path, group_id: str
) -> None:
    headers = {"mmcat-rank": Rank(5, 0, 1, 2).format().encode()}
    with LocalValkey(logs=tmp_path) as valkey, redis.Redis.from_url(valkey.url) as client:

        def held(key: str) -> bytes | None:
            value = client.hget(f"mmcat:product:{{{key}}}", "result")
            assert value is None or isinstance(value, bytes)
            return value

        with ServiceProcess(environment(kafka, topics, valkey.url, group_id), tmp_path, COMMAND) as process:
            process.wait_ready()
            send(kafka, topics.output, [(b"a", b"1", headers)])
            process.until(lambda: held("a") == b"1", "the record is in the view")
            valkey.kill()
            process.until(lambda: process.status("/readyz") == 503, "it says that the view is away")
            assert process.metric("mmcat_view_up") == 0
            send(kafka, topics.output, [(b"b", b"2", headers)])
            valkey.start()
            process.until(lambda: process.status("/readyz") == 200, "the view is back")
            process.until(lambda: held("a") == b"1" and held("b") == b"2", "all is in the new view")
            assert process.terminate() == 0


def test_evicting_view_ends_it_at_start(kafka: str, topics: TopicNames, tmp_path: Path, group_id: str) -> None:
    with LocalValkey(logs=tmp_path) as valkey, redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory-policy", "volatile-lru")
        status, said = ended(ServiceProcess(environment(kafka, topics, valkey.url, group_id), tmp_path, COMMAND))
    assert status == 1
    assert "maxmemory-policy is volatile-lru" in said
    assert "Traceback" not in said


def test_missing_topic_ends_it_at_start(
    kafka: str, topics: TopicNames, tmp_path: Path, group_id: str, valkey_url: str
) -> None:
    wrong = environment(kafka, topics, valkey_url, group_id) | {"MMCAT_TOPICS__OUTPUT": f"{topics.output}.none"}
    status, said = ended(ServiceProcess(wrong, tmp_path, COMMAND))
    assert status == 1
    assert "mmcat topics create" in said


def test_wrong_view_address_ends_it_without_telling_the_password(
    kafka: str, topics: TopicNames, tmp_path: Path, group_id: str
) -> None:
    wrong = environment(kafka, topics, "redis:/user:hidden@host", group_id)
    env = {"PATH": "/usr/bin:/bin", "MMCAT_HTTP__PORT": "0", **wrong}
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "view.url" in done.stderr
    assert "hidden" not in done.stdout + done.stderr
