"""The three endpoints say what the service knows."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any

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


@dataclass(frozen=True)
class Commanded:
    """A server with one command, and what it was asked."""

    url: str
    asked: list[object]

    def post(
        self, body: bytes = b"{}", kind: str = "application/json", path: str = "/resume", **headers: str
    ) -> tuple[int, str]:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind, **headers})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 (an address of this test)
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def commanded(host: str, token: str | None) -> Iterator[Commanded]:
    asked: list[object] = []

    def resume(given: Any) -> object:
        asked.append(given.get("partitions"))
        return {"resumed": []}

    server = HealthServer(Health(), Metrics().registry, host, 0, commands={"/resume": resume}, token=token)
    port = server.start()
    yield Commanded(f"http://127.0.0.1:{port}", asked)
    server.stop()


@pytest.fixture
def local() -> Iterator[Commanded]:
    yield from commanded("127.0.0.1", None)


@pytest.fixture
def guarded() -> Iterator[Commanded]:
    yield from commanded("127.0.0.1", "open sesame")


def test_a_command_is_taken_from_this_machine(local: Commanded) -> None:
    assert local.post(b'{"partitions": [3]}') == (200, '{"resumed": []}\n')
    assert local.post(b"") == (200, '{"resumed": []}\n')
    assert local.asked == [[3], None]


def test_what_is_no_command_is_refused(local: Commanded) -> None:
    assert local.post(path="/readyz")[0] == 404
    assert local.post(b"[1]")[0] == 400
    assert local.post(b"{")[0] == 400
    assert local.post(b'{"partitions": [' + b"1," * 100_000 + b"1]}")[0] == 400
    assert local.asked == []


def test_a_page_in_a_browser_of_this_machine_cannot_command(local: Commanded) -> None:
    """It can post forms and text to any address without being asked; JSON only after the server has agreed."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert local.post(kind=kind)[0] == 403
    assert local.asked == []


def test_where_there_is_a_token_nobody_commands_without_it(guarded: Commanded) -> None:
    assert guarded.post()[0] == 403
    assert guarded.post(Authorization="Bearer open")[0] == 403
    assert guarded.post(Authorization="open sesame")[0] == 403
    assert guarded.asked == []
    assert guarded.post(Authorization="Bearer open sesame")[0] == 200


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("10.0.0.7", False), ("192.168.1.2", False)],
)
def test_without_a_token_only_this_machine_commands(peer: str, allowed: bool) -> None:
    server = HealthServer(Health(), Metrics().registry, "0.0.0.0", 0)
    headers = Message()
    headers["Content-Type"] = "application/json"
    assert server._allowed(peer, headers) == allowed
