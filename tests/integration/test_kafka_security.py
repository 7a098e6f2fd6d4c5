"""The whole path to a broker that wants TLS and a password, and what becomes of one who has the wrong one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from consumer.kafka import make_admin, make_consumer, make_producer
from consumer.settings import KafkaSettings
from mmcat.cli import main
from tests.integration.conftest import MakeBench
from tests.support.broker import DEADLINE_S, TopicNames, create_topics, random_topics, read_topic, send, warm_groups
from tests.support.listings import Event, Kind, Mix, events
from tests.support.outcomes import check_outcomes, drained, read_stream, wait_for_view
from tests.support.secure_kafka import PASSWORD, Doors, change_password, forbid_writing, secure_kafka, token_endpoint
from tests.support.service import ServiceProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WRONG = "wrong horse"


@pytest.fixture(scope="module")
def doors(apache_kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A broker with locks; there is none where there is no Apache Kafka."""
    with secure_kafka(tmp_path_factory.mktemp("secure")) as found:
        warm_groups(found.plaintext)
        yield found


@pytest.fixture
def names(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> TopicNames:
    """Names of topics, not made yet; and the environment of commands, without the password."""
    found = random_topics()
    env = {**doors.scram_env(), **found.env()}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MMCAT_KAFKA__SASL_PASSWORD")
    return found


def test_everything_works_through_tls_and_scram_with_the_password_in_a_file(
    doors: Doors,
    names: TopicNames,
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n", encoding="utf-8")
    monkeypatch.setenv("MMCAT_KAFKA__SASL_PASSWORD_FILE", str(secret))
    monkeypatch.setenv("MMCAT_RETRY__DELAYS", "30s")
    assert main(["topics", "create", "--dev", "--partitions", "2"]) == 0
    assert main(["topics", "check", "--dev", "--partitions", "2"]) == 0
    env = {key: value for key, value in doors.scram_env().items() if key != "MMCAT_KAFKA__SASL_PASSWORD"}
    env |= {"MMCAT_RETRY__DELAYS": "30s"}
    bench = make_bench("", names, stub=True, **env, MMCAT_KAFKA__SASL_PASSWORD_FILE=str(secret))
    monkeypatch.setenv("MMCAT_KAFKA__GROUP_ID", bench.group)
    sent = [*events(Mix(60, updates=10, deletions=3, seed=6)), Event(Kind.BAD, b"b", b"not json", {})]
    send(doors.plaintext, names.input, [(one.key, one.value, one.headers) for one in sent])
    with bench.service as service:
        service.wait_ready()
        service.until(lambda: drained(doors.plaintext, names, bench.group), "all is categorized")
        stream = read_stream(doors.plaintext, names, sent)
        check_outcomes(stream, names, exactly_once=True)
        wait_for_view(stream, bench.view_url, bench.view_prefix)
        capsys.readouterr()
        assert main(["dead-letter", "replay", "--yes", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sent"] == 1
        assert service.terminate() == 0
    assert PASSWORD not in bench.service.log.read_text(encoding="utf-8")
    assert [one.value for one in read_topic(doors.plaintext, f"{names.retry_prefix}.30s")] == [b"not json"]


def test_a_wrong_password_is_one_sentence_before_anything_starts(
    doors: Doors,
    names: TopicNames,
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    create_topics(doors.plaintext, [names.input, names.output, names.review, names.dead_letter], 1)
    bench = make_bench("", names, stub=True, **doors.scram_env(WRONG))
    command = (sys.executable, "-m", "mmcat.cli", "cache-writer")
    alone = ServiceProcess({**names.env(), **doors.scram_env(WRONG)}, tmp_path / "alone", command)
    alone.folder.mkdir()
    with bench.service as service, alone as writer:
        monkeypatch.setenv("MMCAT_KAFKA__SASL_PASSWORD", WRONG)
        for arguments in (["topics", "check"], ["dead-letter", "list"]):
            assert main(arguments) == 1
            assert "SASL authentication error" in capsys.readouterr().err
        assert service.wait() == 1
        assert writer.wait() == 1
    for process in (bench.service, alone):
        said = process.log.read_text(encoding="utf-8")
        assert "does not let us in: " in said.splitlines()[-1]
        assert "check kafka.security.protocol, kafka.sasl.* and kafka.ssl.*" in said.splitlines()[-1]
        assert "Traceback" not in said
        assert WRONG not in said


def test_a_password_that_is_changed_ends_a_running_service_with_exit_code_three(
    doors: Doors, names: TopicNames, make_bench: MakeBench
) -> None:
    create_topics(doors.plaintext, [names.input, names.output, names.review, names.dead_letter], 1)
    bench = make_bench("", names, stub=True, **doors.scram_env())
    with bench.service as service:
        service.wait_ready()
        change_password(doors, WRONG)
        try:
            assert service.wait() == 3
        finally:
            change_password(doors, PASSWORD)
    assert "authentication" in bench.service.log.read_text(encoding="utf-8").splitlines()[-1].lower()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_right_that_is_taken_away_ends_a_running_service_with_one_sentence(
    doors: Doors, names: TopicNames, make_bench: MakeBench, delivery: str
) -> None:
    create_topics(doors.plaintext, [names.input, names.output, names.review, names.dead_letter], 1)
    more = {"MMCAT_DELIVERY": delivery, "MMCAT_KAFKA__INSTANCE_ID": "one", "MMCAT_COMMIT_INTERVAL_S": "0.1"}
    bench = make_bench("", names, stub=True, **doors.scram_env(), **more)
    first, second = events(Mix(20, seed=1)), events(Mix(20, seed=2))
    with bench.service as service:
        service.wait_ready()
        send(doors.plaintext, names.input, [(one.key, one.value, one.headers) for one in first])
        service.until(lambda: drained(doors.plaintext, names, bench.group), "it works")
        forbid_writing(doors, names.output)
        send(doors.plaintext, names.input, [(one.key, one.value, one.headers) for one in second])
        assert service.wait() == 3
    last = bench.service.log.read_text(encoding="utf-8").splitlines()[-1]
    assert f"the broker does not let us write {names.output}" in last
    assert len(read_topic(doors.plaintext, names.output)) == 20


def test_plain_passwords_go_through_tls_and_a_stranger_s_certificate_is_not_trusted(
    doors: Doors, names: TopicNames, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_KAFKA__SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("MMCAT_KAFKA__SASL_PASSWORD", PASSWORD)
    assert main(["topics", "create", "--dev", "--partitions", "1"]) == 0
    monkeypatch.setenv("MMCAT_KAFKA__SSL_CA_LOCATION", "probe")  # what this machine trusts by itself
    capsys.readouterr()
    assert main(["topics", "check", "--dev"]) == 1
    assert "certificate verify failed" in capsys.readouterr().err


def test_tokens_come_from_the_endpoint_and_let_every_client_in(doors: Doors, names: TopicNames, group_id: str) -> None:
    create_topics(doors.plaintext, [names.input], 1)
    with token_endpoint("sesame") as (url, given):
        settings = KafkaSettings.model_validate(
            {
                "bootstrap_servers": doors.oauth,
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": "categorizer",
                "sasl.oauthbearer.client.secret": "sesame",
                "sasl.oauthbearer.token.endpoint.url": url,
            }
        )
        assert names.input in make_admin(settings).list_topics(timeout=DEADLINE_S).topics
        producer = make_producer(settings)
        producer.produce(names.input, b"value")
        assert producer.flush(DEADLINE_S) == 0
        consumer = make_consumer(settings, group_id=group_id)
        consumer.assign([TopicPartition(names.input, 0, 0)])
        (message,) = consumer.consume(1, DEADLINE_S)
        assert message.value() == b"value"
        consumer.close()
    assert given.count("categorizer") == 3


def test_no_secret_is_shown(names: TopicNames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    monkeypatch.setenv("MMCAT_KAFKA__SASL_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("MMCAT_KAFKA__SASL_OAUTHBEARER_CLIENT_SECRET", PASSWORD)
    monkeypatch.setenv("MMCAT_KAFKA__SSL_KEY_PASSWORD", PASSWORD)
    shown = subprocess.run([sys.executable, "-m", "mmcat.cli", "config", "show"], capture_output=True, check=True)
    assert str(tmp_path / "password").encode() in shown.stdout
    assert PASSWORD.encode() not in shown.stdout
