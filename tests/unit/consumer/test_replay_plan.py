"""A plan's file is what was planned, and nothing else passes for one."""

from pathlib import Path
from typing import Any

import pytest

from consumer.errors import ConfigError
from consumer.loading import load
from consumer.replay_plan import Plan, read_plan, refuse_unfit, write_plan
from consumer.spans import Span
from tests.support.stub_model import StubModel


def _plan(**other: Any) -> Plan:
    fields: dict[str, Any] = {
        "topic": "products.registered",
        "topic_id": "abc",
        "topic_partitions": 4,
        "order_by": "timestamp",
        "output": "products.categorized",
        "group": "june",
        "model": "f" * 64,
        "model_name": "stub",
        "spans": (Span(0, 5, 9), Span(3, 0, 1)),
        "rate": 2.5,
    }
    return Plan.model_validate(fields | other)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(_plan(), file)
    assert read_plan(file) == _plan()
    assert [one.name for one in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        _plan().model_dump_json().replace('"format":1', '"format":2'),
        _plan().model_dump_json().replace('"start":5', '"start":9'),
        _plan().model_dump_json().replace('"partition":3', '"partition":0'),
        _plan().model_dump_json().replace('"partition":3', '"partition":4'),
        _plan().model_dump_json().replace('"rate":2.5', '"rate":0'),
        _plan().model_dump_json().replace('"as_of"', '"as_off"'),
    ],
)
def test_what_is_no_plan_is_told_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.json is no plan of a replay: "):
        read_plan(file)


def test_where_nothing_can_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: "):
        write_plan(_plan(), tmp_path / "nowhere" / "plan.json")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"model": "e" * 64}, r"made for the model stub \(eeeeeeeeeeee…\), not for stub \(ffffffffffff…\)"),
        ({"order_by": "version"}, "orders events by version, the settings by timestamp"),
        ({"group": "mmcat"}, "belongs to the live service"),
        ({"topic": "products.dead-letter"}, "mmcat dead-letter replay"),
        ({"output": "elsewhere"}, "only --as-of writes into another topic"),
        ({"as_of": True}, "into a shadow topic only"),
        ({"as_of": True, "output": "products.retry.5m"}, "is a topic of the service"),
    ],
)
def test_another_replay_than_was_planned_is_refused_before_the_broker_is_asked(
    other: dict[str, Any], sentence: str
) -> None:
    settings, _ = load(environment={})
    with pytest.raises(ConfigError, match=sentence):
        refuse_unfit(settings, _plan(**other), StubModel().info)
