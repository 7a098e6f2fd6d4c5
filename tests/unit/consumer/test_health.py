"""The three endpoints say what the service knows."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from consumer.health import Health, HealthServer
from consumer.metrics import Metrics


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def served() -> Iterator[tuple[Health, Clock, str]]:
    clock = Clock()
    health = Health(30.0, clock)
    server = HealthServer(health, Metrics().registry, "127.0.0.1", 0)
    yield health, clock, f"http://127.0.0.1:{server.start()}"
    server.stop()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 (an address of this test)
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_alive_while_the_poll_loop_moves(served: tuple[Health, Clock, str]) -> None:
    health, clock, url = served
    assert get(f"{url}/healthz")[0] == 200
    clock.now = 31.0
    assert get(f"{url}/healthz")[0] == 503
    health.beat()
    assert get(f"{url}/healthz")[0] == 200


def test_ready_when_nothing_is_missing_and_else_says_what_is(served: tuple[Health, Clock, str]) -> None:
    health, _, url = served
    health.set("broker", "no broker can be reached")
    status, body = get(f"{url}/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, "missing": {"broker": "no broker can be reached"}}
    health.set("broker", None)
    assert get(f"{url}/readyz")[0] == 200


def test_metrics_are_the_design_s(served: tuple[Health, Clock, str]) -> None:
    body = get(f"{served[2]}/metrics")[1]
    for name in (
        "mmcat_listings_total", "mmcat_photo_total", "mmcat_stage_seconds", "mmcat_queue_listings",
        "mmcat_batch_listings", "mmcat_end_to_end_seconds", "mmcat_consumer_lag", "mmcat_view_up",
        "mmcat_view_writes_total", "mmcat_model_info", "mmcat_path_probability",
    ):  # fmt: skip
        assert f"# TYPE {name.removesuffix('_total')}" in body


def test_another_address_is_not_there(served: tuple[Health, Clock, str]) -> None:
    assert get(f"{served[2]}/secrets")[0] == 404
