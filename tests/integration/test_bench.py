"""`mmcat bench` for real and small: the broker, the service as a process, photos over HTTP."""

import json

import pytest

from mmcat.cli import main

pytestmark = pytest.mark.integration


def test_transport_says_what_an_event_costs_and_what_holds_it_up(
    apache_kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "transport", "--events", "2000", "--runs", "1", "--bootstrap", apache_kafka, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["events/s"]["median"] > 0
    assert set(found["stages"]) == {"take", "fetch", "decode", "model", "publish"}
    assert found["bottleneck"]


def test_latency_counts_every_event_of_the_steady_part(apache_kafka: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "latency", "--rate", "50", "--seconds", "2", "--bootstrap", apache_kafka, "--json"]
    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert 0 <= figures["p50 ms"]["median"] <= figures["p99 ms"]["median"]


def test_fetch_goes_through_the_services_own_fetcher(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fetch", "--count", "100", "--runs", "1"]) == 0
    assert "photos/s" in capsys.readouterr().out
