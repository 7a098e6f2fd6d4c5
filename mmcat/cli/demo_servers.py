"""What the demo runs on: a broker, a cache, and the real consumer in a process of its own, all gone when it ends.

Before this: `demo_bundle`. After this: `demo_stream`, which finds everything ready.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmcat.cli.processes import free_port, log_tail, spawn, stop_process
from mmcat.cli.texts import CommandError

if TYPE_CHECKING:
    from consumer.settings import Settings

__all__ = ["Broker", "broker_and_view", "consumer_process", "consumer_variables"]

READY_S = 180.0
"""Importing torch takes 7–9 s on an idle machine; a minute was seen where six programs did so at once."""
STOP_S = 20.0
FETCH_WAIT_MS = 10
"""The embedded broker answers a fetch after half the longest wait, whatever there is (facts: 10 ms gives 1 ms)."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the demo's broker and view are, and what they are called in the summary."""

    kind: str
    bootstrap: str
    view_url: str

    @property
    def embedded(self) -> bool:
        """Whether the broker is the one inside a wheel, which lacks a few things."""
        return self.kind == "tansu"


@contextmanager
def broker_and_view(broker: str, logs: Path) -> Iterator[Broker]:
    """Start a broker (`tansu`, `kafka`, or take the one at HOST:PORT) and a cache; stops what it started."""
    from mmcat.cli.servers import LocalKafka, LocalTansu, LocalValkey

    with ExitStack() as stack:
        if broker == "tansu":
            bootstrap = stack.enter_context(LocalTansu(logs=logs)).bootstrap
        elif broker == "kafka":
            bootstrap = stack.enter_context(LocalKafka(logs=logs)).bootstrap
        elif ":" in broker:
            bootstrap = broker
        else:
            raise CommandError(f"--broker is tansu, kafka or HOST:PORT, not {broker!r}")
        view = stack.enter_context(LocalValkey(logs=logs))
        yield Broker(broker if broker in ("tansu", "kafka") else "external", bootstrap, view.url)


def consumer_variables(place: Broker, bundle: Path, photo_port: int, run: str, device: str) -> dict[str, str]:
    """The consumer's settings for one demo, as environment variables.

    Args:
        run: part of group and topic names on a broker that was there before us; empty on our own.
    """
    variables = {
        "MMCAT_KAFKA__BOOTSTRAP_SERVERS": place.bootstrap,
        "MMCAT_KAFKA__GROUP_ID": f"mmcat-demo{run}",
        "MMCAT_VIEW__URL": place.view_url,
        "MMCAT_MODEL__BUNDLE": str(bundle),
        "MMCAT_MODEL__DEVICE": device,
        "MMCAT_PHOTO__ALLOW": json.dumps(["127.0.0.1/32"]),  # our own photo host, and no other private address
        "MMCAT_PHOTO__PORTS": json.dumps([photo_port]),
        "MMCAT_HTTP__HOST": "127.0.0.1",
        "MMCAT_HTTP__PORT": str(free_port()),
        "MMCAT_LOG__FORMAT": "json",
    }
    if place.embedded:
        variables["MMCAT_KAFKA__FETCH_WAIT_MAX_MS"] = str(FETCH_WAIT_MS)
    if run:
        for name, topic in (("INPUT", "registered"), ("OUTPUT", "categorized"), ("REVIEW", "review")):
            variables[f"MMCAT_TOPICS__{name}"] = f"products.{topic}{run}"
        variables["MMCAT_TOPICS__DEAD_LETTER"] = f"products.dead-letter{run}"
        variables["MMCAT_TOPICS__RETRY_PREFIX"] = f"products.retry{run}"
    return variables


@contextmanager
def consumer_process(settings: "Settings", variables: Mapping[str, str], logs: Path) -> Iterator[Callable[[], None]]:
    """Run `mmcat consume` as its users do; yields a function that raises when it has ended.

    The variables of ours that are set outside do not reach it, nor does an `mmcat.toml`: a demo is the same everywhere.
    """
    log = logs / "consumer.log"
    empty = logs / "mmcat.toml"
    empty.write_text("")
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MMCAT_")}
    environment = {**outside, **variables, "MMCAT_CONFIG": str(empty)}
    process = spawn([sys.executable, "-m", "mmcat.cli", "consume"], log, environment)

    def alive() -> None:
        if process.poll() is not None:
            raise CommandError(f"the consumer ended with status {process.returncode}; {log} ends:\n{log_tail(log)}")

    try:
        _wait_ready(f"http://127.0.0.1:{settings.http.port}/readyz", alive, log)
        yield alive
    finally:
        stop_process(process, STOP_S)


def _wait_ready(url: str, alive: Callable[[], None], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        alive()
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - an http address of our own making
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise CommandError(f"the consumer was not ready within {READY_S:.0f} s; {log} ends:\n{log_tail(log)}")
