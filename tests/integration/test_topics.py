"""Topics made on a real broker are what the plan says; what is broken by hand is found, and its command mends it."""

import shlex

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from consumer.kafka import make_admin
from consumer.settings import Settings
from consumer.topics import Finding, Plan, Severity, check, create, plan
from tests.support.broker import TopicNames, random_topics, read_topic, send
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
FORTNIGHT_S = 14 * 86_400


def _settings(bootstrap: str, names: TopicNames) -> Settings:
    topics = {field: getattr(names, field) for field in ("input", "output", "review", "dead_letter", "retry_prefix")}
    return Settings.model_validate(
        {"kafka": {"bootstrap_servers": bootstrap}, "topics": topics, "view": {"marker_life_s": FORTNIGHT_S}}
    )


def _made(bootstrap: str) -> tuple[AdminClient, Plan]:
    settings = _settings(bootstrap, random_topics())
    admin = make_admin(settings.kafka)
    wanted = plan(settings, partitions=2, dev=True)
    assert [one.action for one in create(admin, wanted, dry_run=True)] == ["would_create"] * 7
    assert [(one.action, one.detail) for one in create(admin, wanted) if one.action != "created"] == []
    return admin, wanted


def _follow(admin: AdminClient, command: str) -> None:
    """Do what the command for kafka-configs.sh would do."""
    words = shlex.split(command)
    assert words[0] == "kafka-configs.sh"
    topic = words[words.index("--entity-name") + 1]
    name, value = words[words.index("--add-config") + 1].split("=")
    _set(admin, topic, name, value)


def _set(admin: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(10)


def test_created_topics_pass_the_check_and_creating_again_changes_nothing(apache_kafka: str) -> None:
    admin, wanted = _made(apache_kafka)
    eventually(lambda: check(admin, wanted, bootstrap=apache_kafka) == [], "the new topics are right")
    assert {one.action for one in create(admin, wanted)} == {"exists"}


def test_what_is_broken_is_found_and_its_command_mends_it(apache_kafka: str) -> None:
    admin, wanted = _made(apache_kafka)
    _set(admin, wanted.output.name, "cleanup.policy", "delete")
    _set(admin, wanted.dead_letter.name, "max.message.bytes", "1000")
    _set(admin, wanted.input.name, "message.timestamp.type", "CreateTime")
    found = [
        (wanted.input.name, Severity.WARNING),
        (wanted.output.name, Severity.ERROR),
        (wanted.dead_letter.name, Severity.ERROR),
    ]

    def findings() -> list[Finding]:
        return check(admin, wanted, bootstrap=apache_kafka)

    eventually(lambda: [(one.topic, one.severity) for one in findings()] == found, "each is found, and no more")
    for one in findings():
        _follow(admin, one.command)
    eventually(lambda: findings() == [], "following the commands mends it")


def test_the_largest_input_fits_into_the_dead_letters_with_its_headers(apache_kafka: str) -> None:
    _, wanted = _made(apache_kafka)
    largest = b"x" * (1_048_588 - 100)
    send(apache_kafka, wanted.input.name, [(b"k", largest, {})])
    send(
        apache_kafka,
        wanted.dead_letter.name,
        [(b"k", largest, {"mmcat-error-detail": b"d" * 1_024, "ce_x": b"y" * 16_384})],
    )
    assert [len(one.value or b"") for one in read_topic(apache_kafka, wanted.dead_letter.name)] == [len(largest)]


def test_more_replicas_than_brokers_is_a_line_and_not_a_crash(apache_kafka: str) -> None:
    settings = _settings(apache_kafka, random_topics())
    lines = create(make_admin(settings.kafka), plan(settings, partitions=1, replication=3))
    assert {one.action for one in lines} == {"failed"}
    assert "replication factor" in lines[0].detail.lower()


def test_missing_topics_are_all_named(apache_kafka: str) -> None:
    settings = _settings(apache_kafka, random_topics())
    wanted = plan(settings, partitions=1, dev=True)
    findings = check(make_admin(settings.kafka), wanted, bootstrap=apache_kafka)
    assert [one.topic for one in findings] == [one.name for one in wanted.topics]
    assert {one.command for one in findings} == {"mmcat topics create --partitions 1 --dev"}


def test_the_embedded_broker_is_served_and_not_believed(tansu: str) -> None:
    admin, wanted = _made(tansu)
    findings = check(admin, wanted, bootstrap=tansu)
    assert {one.severity for one in findings} <= {Severity.WARNING}
    assert any("compared, not what it does" in one.problem for one in findings)
