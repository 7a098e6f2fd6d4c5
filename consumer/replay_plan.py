"""A replay as it was decided once: which offsets, under which group, by which model, into which topic. Kept as a file.

A run with the plan goes on where its group committed, so that a backfill of days can be stopped, and started elsewhere.
Whatever would make it another replay (another model, the topic made anew) is refused: half of its answers would be
another's. After `replay_range`, which pins the offsets; before `replay`, which works them.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from consumer.errors import ConfigError
from consumer.kafka import Consumer, KafkaError, KafkaException, TopicPartition, make_admin, topic_identity
from consumer.order import OrderBy
from consumer.replay_range import Range, Survey, look, open_consumer, refuse_source
from consumer.settings import KafkaSettings, Settings
from consumer.spans import Span
from mmcat.listing import ModelInfo

BROKER_S: Final = 15.0


class Plan(BaseModel):
    """What a replay works; the file is this object as JSON."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    topic: str = Field(description="that is replayed")
    topic_id: str = Field(description="the broker's id of it: one that was made anew has another")
    topic_partitions: int = Field(ge=1)
    order_by: OrderBy
    output: str = Field(description="topic of the answers")
    group: str = Field(min_length=1, description="where progress is kept")
    model: str = Field(description="fingerprint of the bundle that answers")
    model_name: str
    spans: tuple[Span, ...] = Field(description="offsets of each partition, pinned; end is not included")
    first_ms: int | None = Field(None, description="time of the first record, since 1970")
    last_ms: int | None = Field(None, description="time of the last record")
    rate: float | None = Field(None, gt=0, description="records a second at most")
    as_of: bool = Field(False, description="answer events as they were, newer ones or not; into a shadow topic only")
    allow_blind: bool = Field(False, description="an answer without its photo may replace one that saw it")

    @model_validator(mode="after")
    def _spans_are_spans(self) -> Self:
        if len({span.partition for span in self.spans}) != len(self.spans):
            raise ValueError("a partition stands twice in spans")
        if not all(0 <= span.start < span.end and 0 <= span.partition < self.topic_partitions for span in self.spans):
            raise ValueError("a span is no range of offsets of the topic")
        return self

    def summary(self) -> dict[str, object]:
        """As JSON, for the operator."""
        found = Survey(self.topic, self.spans, self.first_ms, self.last_ms)
        chosen = ("group", "output", "model_name", "model", "rate", "as_of", "allow_blind")
        return found.summary() | {name: getattr(self, name) for name in chosen}


@dataclass(frozen=True, slots=True)
class Summary:
    """What one run of a plan did.

    Args:
        plan: that it worked.
        outcomes: how many of each.
        superseded: how many for each reason.
        seconds: how long it took.
        complete: whether the whole plan has its outcomes; False when it was stopped.
    """

    plan: Plan
    outcomes: dict[str, int]
    superseded: dict[str, int]
    seconds: float
    complete: bool

    def summary(self) -> dict[str, object]:
        """As JSON."""
        records = sum(self.outcomes.values())
        return {
            **self.plan.summary(),
            "records": records,
            "outcomes": self.outcomes,
            "superseded": self.superseded,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(records / self.seconds, 1) if self.seconds else None,
            "complete": self.complete,
        }


def make_plan(
    settings: Settings,
    wanted: Range,
    model: ModelInfo,
    *,
    rate: float | None = None,
    into: str | None = None,
    as_of: bool = False,
    allow_blind: bool = False,
) -> Plan:
    """Pin a range; blocks for some round trips and changes nothing.

    Args:
        into: topic of the answers; None: the live one.

    Raises:
        ConfigError: it cannot be replayed so.
        KafkaException: the broker is away.
    """
    found = look(settings, wanted)
    topic_id, partitions = topic_identity(make_admin(settings.kafka), wanted.topic, BROKER_S)
    plan = Plan(
        topic=wanted.topic,
        topic_id=topic_id,
        topic_partitions=partitions,
        order_by=settings.order_by,
        output=into or settings.topics.output,
        group=wanted.group_id,
        model=model.fingerprint,
        model_name=model.name,
        spans=found.spans,
        first_ms=found.first_ms,
        last_ms=found.last_ms,
        rate=rate,
        as_of=as_of,
        allow_blind=allow_blind,
    )
    refuse_unfit(settings, plan, model)
    return plan


def read_plan(file: Path) -> Plan:
    """Read a plan.

    Raises:
        ConfigError: the file is none.
    """
    try:
        return Plan.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"the plan {file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise ConfigError(f"{file} is no plan of a replay: {where}: {problem['msg']}") from None


def write_plan(plan: Plan, file: Path) -> None:
    """Write a plan beside `file` and rename it into place.

    Raises:
        ConfigError: it cannot be written there.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(plan.model_dump_json(indent=2) + "\n", "utf-8")
        beside.replace(file)
    except OSError as error:
        raise ConfigError(f"the plan {file} cannot be written: {error.strerror}") from None


def refuse_unfit(settings: Settings, plan: Plan, model: ModelInfo) -> None:
    """Stop before a plan that these settings or this model cannot work. Asks the broker for the topics' ids.

    Raises:
        ConfigError: with what differs.
        KafkaException: the broker is away.
    """
    refuse_source(settings, plan.topic, plan.group)
    if plan.model != model.fingerprint:
        raise ConfigError(
            f"the plan was made for the model {plan.model_name} ({plan.model[:12]}…), not for {model.name} "
            f"({model.fingerprint[:12]}…): give that bundle, or make a plan of its own for this one"
        )
    if plan.order_by != settings.order_by:
        raise ConfigError(f"the plan orders events by {plan.order_by}, the settings by {settings.order_by} (order_by)")
    _refuse_output(settings, plan)
    if _identity(settings.kafka, plan.topic) != (plan.topic_id, plan.topic_partitions):
        raise ConfigError(
            f"the plan was made for another topic {plan.topic}: it was deleted (and made again) or has other "
            "partitions now, so its offsets mean something else; make a new plan"
        )


def left(consumer: Consumer, plan: Plan) -> tuple[Span, ...]:
    """What the plan's group has not done yet. The consumer (`replay_range.open_consumer`) joins no group for it.

    Raises:
        KafkaException: the broker is away.
    """
    asked = [TopicPartition(plan.topic, span.partition) for span in plan.spans]
    done = {one.partition: one.offset for one in consumer.committed(asked, timeout=BROKER_S)} if asked else {}
    begun = [Span(one.partition, max(one.start, done.get(one.partition, 0)), one.end) for one in plan.spans]
    return tuple(one for one in begun if one.start < one.end)


def look_again(settings: Settings, plan: Plan) -> dict[str, object]:
    """A plan's summary, with how many records at most its group has left; changes nothing."""
    consumer = open_consumer(settings, plan.group)
    try:
        return plan.summary() | {"left_at_most": sum(span.at_most for span in left(consumer, plan))}
    finally:
        consumer.close()


def _refuse_output(settings: Settings, plan: Plan) -> None:
    names = settings.topics
    if plan.as_of and plan.output == names.output:
        raise ConfigError(
            f"as it was then, a product may be older than in {names.output}: --as-of writes into a shadow topic only "
            "(--into TOPIC)"
        )
    if not plan.as_of and plan.output != names.output:
        raise ConfigError(
            f"a replay writes {names.output}, not {plan.output}: only --as-of writes into another topic (--into)"
        )
    if plan.as_of:
        ours = {plan.topic, names.input, names.review, names.dead_letter}
        if plan.output in ours or plan.output.startswith(f"{names.retry_prefix}."):
            raise ConfigError(f"{plan.output} is a topic of the service: --into wants one of its own")
        if _identity(settings.kafka, plan.output) is None:
            raise ConfigError(f"the shadow topic {plan.output} does not exist: create it, compacted or not")


def _identity(settings: KafkaSettings, topic: str) -> tuple[str, int] | None:
    """None where there is no such topic."""
    admin = make_admin(settings)
    try:
        return topic_identity(admin, topic, BROKER_S)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise
