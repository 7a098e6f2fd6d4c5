"""What the demo runs on: a broker, a cache, a photo host, and the real consumer in a process of its own.

All of it is gone when the context ends. Before this: `demo_data`. After this: `demo_stream`, which finds all ready.
"""

import json
import os
import secrets
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmcat.cli.demo_probe import UNSEEN, missing
from mmcat.cli.processes import free_port, log_tail, spawn, stop_process
from mmcat.cli.texts import CommandError

if TYPE_CHECKING:
    import subprocess

    from consumer.settings import Settings

__all__ = ["Stage", "consumer_variables", "set_stage"]

PARTITIONS = 4
READY_S = 180.0
"""Importing torch takes 7–9 s on an idle machine; a minute was seen where six programs did so at once."""
STOP_S = 25.0
"""A little more than the consumer takes for finishing what it holds (shutdown_s)."""
FOR_THE_EMBEDDED = {
    # It answers a fetch after half the longest wait, whatever there is: with 10 ms after one.
    "MMCAT_KAFKA__FETCH_WAIT_MAX_MS": "10",
    # It lets a new group wait for half a session: 23 s with librdkafka's 45 s, 3 s with these (measured).
    "MMCAT_KAFKA__SESSION_TIMEOUT_MS": "6000",
}
VIEW_S = 15.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs.

    Args:
        settings: the consumer's.
        broker, view: for the summary.
        photo_base: where the photo host serves.
        alive: raises when the consumer has ended.
    """

    settings: "Settings"
    broker: dict[str, object]
    view: str
    photo_base: str
    alive: Callable[[], None]

    def cached(self, expected: int) -> int:
        """How many products the view has a result of; waits a while for as many as expected."""
        import redis

        client = redis.Redis.from_url(self.settings.view.url.get_secret_value(), socket_timeout=5)
        pattern = f"{self.settings.view.prefix}:product:*"
        deadline = time.monotonic() + VIEW_S
        try:
            while True:
                keys = list(client.scan_iter(match=pattern, count=1000))
                pipeline = client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hexists(key, "result")
                found = sum(map(int, pipeline.execute()))
                if found == expected or time.monotonic() > deadline:
                    return found
                time.sleep(0.05)
        finally:
            client.close()


@contextmanager
def set_stage(broker: str, bundle: Path, photo: Callable[[str], bytes | None], device: str) -> Iterator[Stage]:
    """Start everything; blocks until the consumer is ready.

    Args:
        broker: `tansu` or `kafka`, started here, or the HOST:PORT of one that runs.
        photo: bytes of a photo by name.

    Raises:
        CommandError, ServerError: something did not start.
    """
    from consumer.loading import load
    from mmcat.cli.servers import LocalValkey
    from training.shop.photo_host import PhotoHost

    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mmcat-demo-", ignore_cleanup_errors=True)))
        (logs / "mmcat.toml").touch()  # an empty settings file: a demo is the same wherever it is started
        host = stack.enter_context(PhotoHost(photo))
        bootstrap = stack.enter_context(_broker(broker, logs))
        view = stack.enter_context(LocalValkey(logs=logs))
        ours = broker in ("tansu", "kafka")
        variables = consumer_variables(bootstrap, view.url, bundle, host.port, device)
        variables |= {"MMCAT_CONFIG": str(logs / "mmcat.toml")} | ({} if ours else _names_of_our_own())
        if broker == "tansu":
            variables |= FOR_THE_EMBEDDED
        settings, _ = load(environment=variables)
        stack.enter_context(_topics(settings, forget=not ours))
        process = stack.enter_context(_consumer(variables, logs / "consumer.log"))
        lacks = [*missing(settings.kafka), *(UNSEEN if broker == "tansu" else ())]  # while the consumer starts

        def alive() -> None:
            if process.poll() is not None:
                raise CommandError(
                    f"the consumer ended with status {process.returncode}:\n{log_tail(logs / 'consumer.log')}"
                )

        _wait_ready(f"http://127.0.0.1:{settings.http.port}/readyz", alive, logs / "consumer.log")
        kind = broker if ours else "external"
        yield Stage(settings, {"kind": kind, "lacks": lacks}, "valkey", host.base_url, alive)


def consumer_variables(bootstrap: str, view_url: str, bundle: Path, photo_port: int, device: str) -> dict[str, str]:
    """The consumer's settings for one demo, as environment variables."""
    return {
        "MMCAT_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "MMCAT_KAFKA__GROUP_ID": "mmcat-demo",
        "MMCAT_VIEW__URL": view_url,
        "MMCAT_MODEL__BUNDLE": str(bundle),
        "MMCAT_MODEL__DEVICE": device,
        "MMCAT_PHOTO__ALLOW": json.dumps(["127.0.0.1/32"]),  # our own photo host, and no other private address
        "MMCAT_PHOTO__PORTS": json.dumps([photo_port]),
        "MMCAT_HTTP__PORT": str(free_port()),
        "MMCAT_LOG__FORMAT": "json",
    }


def _names_of_our_own() -> dict[str, str]:
    """Group and topics on a broker that is not ours, so that nobody's are touched."""
    run = f"mmcat-demo-{secrets.token_hex(3)}"
    topics = {"INPUT": "registered", "OUTPUT": "categorized", "REVIEW": "review", "DEAD_LETTER": "dead-letter"}
    names = {f"MMCAT_TOPICS__{setting}": f"{run}.{name}" for setting, name in topics.items()}
    return {**names, "MMCAT_TOPICS__RETRY_PREFIX": f"{run}.retry", "MMCAT_KAFKA__GROUP_ID": run}


@contextmanager
def _broker(broker: str, logs: Path) -> Iterator[str]:
    from mmcat.cli.servers import LocalKafka, LocalTansu

    if broker not in ("tansu", "kafka"):
        if not broker.rpartition(":")[2].isdigit():
            raise CommandError(f"--broker is tansu, kafka or HOST:PORT, not {broker!r}")
        yield broker
        return
    with LocalTansu(logs=logs) if broker == "tansu" else LocalKafka(logs=logs) as server:
        yield server.bootstrap


@contextmanager
def _topics(settings: "Settings", *, forget: bool) -> Iterator[None]:
    """Make the topics; with `forget` delete them at the end."""
    from consumer.kafka import KafkaException, make_admin
    from consumer.topics import create, plan

    wanted = plan(settings, partitions=PARTITIONS, dev=True)
    admin = make_admin(settings.kafka)
    try:
        made = create(admin, wanted)
    except KafkaException as error:
        raise CommandError(f"no broker answers at {settings.kafka.bootstrap_servers}: {error.args[0].str()}") from error
    if failed := next((one for one in made if one.action == "failed"), None):
        raise CommandError(f"the topic {failed.topic} cannot be made: {failed.detail}")
    try:
        yield
    finally:
        if forget:
            for answer in admin.delete_topics([one.topic for one in made]).values():
                answer.exception(10)


@contextmanager
def _consumer(variables: Mapping[str, str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run `mmcat consume` as its users do; none of our own MMCAT_ variables reaches it."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MMCAT_")}
    process = spawn([sys.executable, "-m", "mmcat.cli", "consume"], log, {**outside, **variables})
    try:
        yield process
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
    raise CommandError(f"the consumer was not ready within {READY_S:.0f} s; its log ends:\n{log_tail(log)}")
