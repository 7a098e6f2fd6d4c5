"""The topics the service needs, on a broker: making them, and saying what is wrong with those that are there.

`plan` (from `topic_plan`) says what is wanted, `create` makes what is missing and touches nothing else, `check`
compares what the broker has and gives with each finding the command that mends it. `mmcat topics` prints what they say.
Comes before the service starts; the service itself only looks whether its topics are there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from consumer.kafka import AdminClient, ConfigResource, KafkaException, NewTopic
from consumer.topic_plan import (
    FOREVER_MS,
    HEADROOM_BYTES,
    INPUT_RETENTION_MS,
    Plan,
    Wanted,
    deletion_memory_ms,
    plan,
)

__all__ = ["Finding", "Found", "Made", "Plan", "Severity", "Wanted", "check", "create", "describe", "judge", "plan"]

TIMEOUT_S = 15.0


class Severity(StrEnum):
    """ERROR breaks a promise; WARNING is a choice that someone should know of, or something that cannot be seen."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Made:
    """What `create` did with one topic: `created`, `exists`, `would_create` or `failed` (then `detail` says why)."""

    topic: str
    action: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in one sentence, and the command that mends it ("" where none can)."""

    topic: str
    severity: Severity
    problem: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One topic as the broker describes it; `config` holds only what the broker tells."""

    partitions: int
    replication: int
    config: dict[str, str]


def create(admin: AdminClient, plan: Plan, *, dry_run: bool = False, timeout_s: float = TIMEOUT_S) -> list[Made]:
    """Make the topics that are missing; blocks until the broker has answered for each. What exists is left as it is.

    Raises:
        KafkaException: the broker is away. A topic that it refuses is a `failed` line, not an error.
    """
    there = set(admin.list_topics(timeout=timeout_s).topics)
    made = [Made(wanted.name, "exists") for wanted in plan.topics if wanted.name in there]
    missing = [wanted for wanted in plan.topics if wanted.name not in there]
    if dry_run:
        return made + [Made(wanted.name, "would_create", _shape(wanted)) for wanted in missing]
    if not missing:
        return made
    requests = [
        NewTopic(one.name, -1 if one.partitions is None else one.partitions, one.replication, config=one.config)
        for one in missing
    ]
    answers = admin.create_topics(requests, operation_timeout=timeout_s)
    return made + [_made(wanted, answers[wanted.name], timeout_s) for wanted in missing]


def check(admin: AdminClient, plan: Plan, *, bootstrap: str, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Compare what the broker has with the plan; blocks for a few round trips.

    Args:
        admin: a client of the broker.
        plan: what is wanted.
        bootstrap: the broker's address, for the commands that mend.
        timeout_s: for each round trip.

    Raises:
        KafkaException: the broker is away.
    """
    found, mute = describe(admin, plan, timeout_s)
    brokers = sorted(admin.list_topics(timeout=timeout_s).brokers)
    return [*mute, *judge(plan, found, bootstrap=bootstrap, brokers=brokers)]


def describe(admin: AdminClient, plan: Plan, timeout_s: float = TIMEOUT_S) -> tuple[dict[str, Found], list[Finding]]:
    """Ask the broker about the plan's topics; returns those it has, and a warning for what it does not tell."""
    metadata = admin.list_topics(timeout=timeout_s).topics
    there = [wanted.name for wanted in plan.topics if wanted.name in metadata]
    if not there:
        return {}, []
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in there]
    answers = admin.describe_configs(resources, request_timeout=timeout_s)
    found, mute = {}, []
    for resource, answer in answers.items():
        name = resource.name
        try:
            entries: dict[str, Any] = answer.result(timeout_s)
        except KafkaException as error:
            mute.append(Finding(name, Severity.WARNING, f"the broker does not show its settings: {_reason(error)}"))
            entries = {}
        partitions = metadata[name].partitions
        copies = min((len(one.replicas) for one in partitions.values()), default=0)
        config = {key: entry.value for key, entry in entries.items() if entry.value is not None}
        found[name] = Found(len(partitions), copies, config)
    if not any("segment.bytes" in one.config for one in found.values()):  # Apache Kafka tells all its defaults
        mute.append(
            Finding("*", Severity.WARNING, "the broker tells only what was set: that was compared, not what it does")
        )
    return found, mute


def judge(plan: Plan, found: dict[str, Found], *, bootstrap: str, brokers: Sequence[int]) -> list[Finding]:
    """Compare without asking anybody: every finding of every topic, in the order of the data."""
    findings: list[Finding] = []
    actual_input = found[plan.input.name].config if plan.input.name in found else {}
    for wanted in plan.topics:
        if wanted.name not in found:
            findings.append(Finding(wanted.name, Severity.ERROR, "the topic is missing", _create_command(plan)))
            continue
        findings += _shape_findings(wanted, found[wanted.name], bootstrap, brokers)
        findings += _config_findings(plan, wanted, found[wanted.name].config, actual_input, bootstrap)
    return [*findings, *_marker_findings(plan, int(actual_input.get("retention.ms", INPUT_RETENTION_MS)))]


def _marker_findings(plan: Plan, input_retention_ms: int) -> list[Finding]:
    memory_ms = deletion_memory_ms(input_retention_ms, plan.retry_chain_ms)
    if plan.marker_life_ms >= memory_ms:
        return []
    life = f"the view forgets a deletion after {plan.marker_life_ms // 1_000} s"
    if memory_ms == FOREVER_MS:
        problem = f"{life}, and {plan.input.name} keeps records forever: replay nothing older than that"
        return [Finding(plan.input.name, Severity.WARNING, problem)]
    command = f"export MMCAT_VIEW__MARKER_LIFE_S={memory_ms // 1_000}"
    return [Finding(plan.input.name, Severity.ERROR, f"{life}, before the records about it are gone", command)]


def _shape_findings(wanted: Wanted, found: Found, bootstrap: str, brokers: Sequence[int]) -> list[Finding]:
    findings = []
    if wanted.partitions is not None and found.partitions < wanted.partitions:
        problem = (
            f"{found.partitions} partitions, {wanted.partitions} wanted; adding some moves keys to other partitions"
        )
        command = f"kafka-topics.sh --bootstrap-server {bootstrap} --alter --topic {wanted.name} "
        findings.append(Finding(wanted.name, Severity.ERROR, problem, f"{command}--partitions {wanted.partitions}"))
    if found.replication < wanted.replication:
        problem = f"{found.replication} replicas, {wanted.replication} wanted"
        if len(brokers) < wanted.replication:
            problem += f", and only {len(brokers)} broker(s): add brokers, or say --replication {len(brokers)} or --dev"
            findings.append(Finding(wanted.name, Severity.ERROR, problem))
        else:
            moves = _reassignment(wanted, found.partitions, brokers)
            command = f"kafka-reassign-partitions.sh --bootstrap-server {bootstrap} --execute --reassignment-json-file "
            findings.append(Finding(wanted.name, Severity.ERROR, problem, f"{command}<(echo '{moves}')"))
    return findings


def _config_findings(
    plan: Plan, wanted: Wanted, config: dict[str, str], actual_input: dict[str, str], bootstrap: str
) -> list[Finding]:
    findings = []
    for name, value in wanted.exactly.items():
        # How long the input is kept is the operator's choice: what follows from it is compared below.
        if name == "retention.ms" or name not in config or _same(config[name], value):
            continue
        severity = Severity.ERROR
        if name == "message.timestamp.type":
            if plan.order_by != "timestamp":
                continue
            severity = Severity.WARNING
        command = _alter_command(bootstrap, wanted.name, name, value)
        findings.append(Finding(wanted.name, severity, f"{name} is {config[name]}, {value} wanted", command))
    for name, least in wanted.at_least.items():
        least = _least(plan, wanted, name, least, actual_input)
        if name in config and int(config[name]) < least:
            command = _alter_command(bootstrap, wanted.name, name, str(least))
            problem = f"{name} is {config[name]}, at least {least} wanted"
            findings.append(Finding(wanted.name, Severity.ERROR, problem, command))
    return findings


def _least(plan: Plan, wanted: Wanted, name: str, least: int, actual_input: dict[str, str]) -> int:
    """What follows from the input topic as it is, not as it was planned."""
    if wanted is plan.input and name == "max.message.bytes":
        return 0  # the operator's choice too
    if name == "delete.retention.ms" and "retention.ms" in actual_input:
        return deletion_memory_ms(int(actual_input["retention.ms"]), plan.retry_chain_ms)
    if name == "max.message.bytes" and name in actual_input:
        return int(actual_input[name]) + HEADROOM_BYTES
    return least


def _same(one: str, other: str) -> bool:
    return sorted(one.split(",")) == sorted(other.split(","))


def _alter_command(bootstrap: str, topic: str, name: str, value: str) -> str:
    where = f"kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {topic}"
    return f"{where} --add-config {name}={value}"


def _create_command(plan: Plan) -> str:
    partitions = plan.input.partitions if plan.input.partitions is not None else 12
    return f"mmcat topics create --partitions {partitions} " + (
        "--dev" if plan.dev else f"--replication {plan.input.replication}"
    )


def _reassignment(wanted: Wanted, partitions: int, brokers: Sequence[int]) -> str:
    """The move that spreads each partition over `replication` brokers, starting at the next broker each time."""
    rows = [
        {
            "topic": wanted.name,
            "partition": partition,
            "replicas": [brokers[(partition + copy) % len(brokers)] for copy in range(wanted.replication)],
        }
        for partition in range(partitions)
    ]
    return json.dumps({"version": 1, "partitions": rows}, separators=(",", ":"))


def _shape(wanted: Wanted) -> str:
    partitions = "the broker's default of" if wanted.partitions is None else str(wanted.partitions)
    config = ", ".join(f"{name}={value}" for name, value in sorted(wanted.config.items()))
    return f"{partitions} partitions, {wanted.replication} replicas, {config}"


def _made(wanted: Wanted, answer: Any, timeout_s: float) -> Made:
    try:
        answer.result(timeout_s)
    except KafkaException as error:
        if error.args[0].name() == "TOPIC_ALREADY_EXISTS":  # somebody else was quicker
            return Made(wanted.name, "exists")
        return Made(wanted.name, "failed", _reason(error))
    return Made(wanted.name, "created", _shape(wanted))


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str())
