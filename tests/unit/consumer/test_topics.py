"""The plan of topics follows the design, and the comparison names each thing that breaks a promise, with its remedy."""

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.settings import Settings
from consumer.topic_plan import DAY_MS, FOREVER_MS, HEADROOM_BYTES, Plan, deletion_memory_ms
from consumer.topics import Found, Severity, judge, plan

BROKERS = [1, 2, 3]
WEEK_MS = 7 * DAY_MS
RETRY_CHAIN_MS = 1_000 * (30 + 300 + 3_600)


def _plan(**more: object) -> Plan:
    made = plan(Settings(), **{"partitions": 6, **more})  # type: ignore[arg-type]  # keyword arguments of `plan`
    return replace(made, marker_life_ms=FOREVER_MS)


def _as_planned(wanted: Plan) -> dict[str, Found]:
    return {
        one.name: Found(one.partitions or 1, one.replication, {"retention.ms": str(WEEK_MS), **one.config})
        for one in wanted.topics
    }


def _judge(wanted: Plan, found: dict[str, Found]) -> list[tuple[str, str, str]]:
    findings = judge(wanted, found, bootstrap="broker:9092", brokers=BROKERS)
    return [(one.topic, one.severity.value, one.command) for one in findings]


def test_plan_follows_the_design() -> None:
    wanted = _plan(input_limit_bytes=500_000)
    assert wanted.input.config == {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(WEEK_MS),
        "min.insync.replicas": "2",
        "max.message.bytes": "500000",
    }
    assert wanted.output.config == {
        "cleanup.policy": "compact",
        "min.insync.replicas": "2",
        "min.compaction.lag.ms": "86400000",
        "delete.retention.ms": str(WEEK_MS + RETRY_CHAIN_MS + DAY_MS),
    }
    for copy in (wanted.dead_letter, *wanted.retries):
        assert copy.config["max.message.bytes"] == str(500_000 + HEADROOM_BYTES)
    assert [one.name for one in wanted.retries] == [f"products.retry.{delay}" for delay in ("30s", "5m", "1h")]
    assert {one.replication for one in wanted.topics} == {3}


def test_dev_asks_for_one_copy_and_waits_for_no_second() -> None:
    wanted = _plan(dev=True)
    assert {one.replication for one in wanted.topics} == {1}
    assert {one.config["min.insync.replicas"] for one in wanted.topics} == {"1"}


@given(retention_ms=st.integers(min_value=1, max_value=2**50), limit=st.integers(min_value=1_000, max_value=10**8))
def test_what_was_planned_is_found_right(retention_ms: int, limit: int) -> None:
    wanted = _plan(input_retention_ms=retention_ms, input_limit_bytes=limit)
    assert _judge(wanted, _as_planned(wanted)) == []


@given(retention_ms=st.integers(min_value=1, max_value=2**50))
def test_a_deletion_is_remembered_longer_than_the_input_can_bring_it_back(retention_ms: int) -> None:
    assert deletion_memory_ms(retention_ms, RETRY_CHAIN_MS) >= retention_ms + RETRY_CHAIN_MS + DAY_MS
    wanted = _plan()
    found = _as_planned(wanted)
    found[wanted.input.name].config["retention.ms"] = str(retention_ms)
    wrong = _judge(wanted, found)
    assert bool(wrong) == (retention_ms > WEEK_MS)
    assert all(
        command.endswith(f"delete.retention.ms={deletion_memory_ms(retention_ms, RETRY_CHAIN_MS)}")
        for _, _, command in wrong
    )


@pytest.mark.parametrize(
    ("role", "name", "value", "severity"),
    [
        ("input", "cleanup.policy", "compact", "error"),
        ("input", "message.timestamp.type", "CreateTime", "warning"),
        ("input", "min.insync.replicas", "1", "error"),
        ("output", "cleanup.policy", "delete", "error"),
        ("output", "cleanup.policy", "compact,delete", "error"),
        ("output", "min.compaction.lag.ms", "0", "error"),
        ("output", "delete.retention.ms", "86400000", "error"),
        ("output", "min.insync.replicas", "1", "error"),
        ("review", "cleanup.policy", "compact", "error"),
        ("dead_letter", "max.message.bytes", "1048588", "error"),
        ("dead_letter", "cleanup.policy", "compact", "error"),
    ],
)
def test_each_wrong_setting_is_named_with_its_command(role: str, name: str, value: str, severity: str) -> None:
    wanted = _plan()
    found = _as_planned(wanted)
    topic = getattr(wanted, role)
    found[topic.name].config[name] = value
    right = topic.config[name]
    command = (
        f"kafka-configs.sh --bootstrap-server broker:9092 --alter --entity-type topics "
        f"--entity-name {topic.name} --add-config {name}={right}"
    )
    assert _judge(wanted, found) == [(topic.name, severity, command)]


def test_the_copies_must_hold_what_the_input_really_takes() -> None:
    wanted = _plan()
    found = _as_planned(wanted)
    found[wanted.input.name].config["max.message.bytes"] = "4000000"
    wrong = _judge(wanted, found)
    assert [topic for topic, _, _ in wrong] == [one.name for one in (wanted.dead_letter, *wanted.retries)]
    assert all(command.endswith("max.message.bytes=4065536") for _, _, command in wrong)


def test_better_than_planned_is_right() -> None:
    wanted = _plan()
    found = _as_planned(wanted)
    found[wanted.input.name].config["min.insync.replicas"] = "3"
    found[wanted.output.name].config["delete.retention.ms"] = str(FOREVER_MS)
    found[wanted.output.name] = replace(found[wanted.output.name], partitions=12)
    assert _judge(wanted, found) == []


def test_create_time_is_right_where_versions_order_events() -> None:
    wanted = replace(_plan(), order_by="version")
    found = _as_planned(wanted)
    found[wanted.input.name].config["message.timestamp.type"] = "CreateTime"
    assert _judge(wanted, found) == []


def test_missing_topic_is_mended_by_create() -> None:
    wanted = _plan()
    found = _as_planned(wanted)
    del found[wanted.output.name]
    command = "mmcat topics create --partitions 6 --replication 3"
    assert _judge(wanted, found) == [(wanted.output.name, "error", command)]
    assert _judge(replace(wanted, dev=True), {})[0][2] == "mmcat topics create --partitions 6 --dev"


def test_too_few_replicas_are_spread_over_the_brokers() -> None:
    wanted = _plan()
    found = _as_planned(wanted)
    found[wanted.output.name] = replace(found[wanted.output.name], replication=1, partitions=2)
    wrong = _judge(replace(wanted, output=replace(wanted.output, partitions=None)), found)
    assert wrong[0][2] == (
        "kafka-reassign-partitions.sh --bootstrap-server broker:9092 --execute --reassignment-json-file "
        '<(echo \'{"version":1,"partitions":[{"topic":"products.categorized","partition":0,"replicas":[1,2,3]},'
        '{"topic":"products.categorized","partition":1,"replicas":[2,3,1]}]}\')'
    )
    [lonely] = judge(wanted, {**_as_planned(wanted), wanted.output.name: Found(6, 1, {})}, bootstrap="b", brokers=[1])
    assert (lonely.severity, lonely.command) == (Severity.ERROR, "")
    assert "only 1 broker" in lonely.problem


def test_too_few_partitions_are_added() -> None:
    wanted = _plan()
    found = _as_planned(wanted)
    found[wanted.input.name] = replace(found[wanted.input.name], partitions=3)
    command = "kafka-topics.sh --bootstrap-server broker:9092 --alter --topic products.registered --partitions 6"
    assert _judge(wanted, found) == [(wanted.input.name, "error", command)]


def test_a_view_that_forgets_deletions_too_early_is_named() -> None:
    wanted = replace(_plan(), marker_life_ms=DAY_MS)
    command = f"export MMCAT_VIEW__MARKER_LIFE_S={deletion_memory_ms(WEEK_MS, RETRY_CHAIN_MS) // 1_000}"
    assert _judge(wanted, _as_planned(wanted)) == [(wanted.input.name, "error", command)]


def test_an_input_kept_forever_wants_deletions_kept_forever() -> None:
    wanted = replace(_plan(), marker_life_ms=DAY_MS)
    found = _as_planned(wanted)
    found[wanted.input.name].config["retention.ms"] = "-1"
    severities = [severity for _, severity, _ in _judge(wanted, found)]
    assert severities == ["error", "warning"]


def test_what_the_broker_does_not_tell_is_not_judged() -> None:
    wanted = _plan()
    mute = {name: dataclasses.replace(one, config={}) for name, one in _as_planned(wanted).items()}
    assert _judge(wanted, mute) == []


def test_default_settings_and_topics_made_by_default_fit_together() -> None:
    wanted = plan(Settings())
    assert _judge(wanted, _as_planned(wanted)) == []
