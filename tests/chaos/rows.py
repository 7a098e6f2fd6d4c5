"""The rows of the matrix: one function per fault. Each gets a trial under which it starts, loads, strikes and heals.

A row ends when the fault is over and whoever is to work on is running; the reckoning comes after it (matrix.py).
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import redis

from mmcat.cli.servers import LocalValkey
from tests.chaos.points import MODES, POINTS, modes_of
from tests.chaos.trial import DELAYS, DRAIN_S, Member, Trial
from tests.support.broker import read_topic
from tests.support.waiting import eventually
from training.shop.photo_host import Body, Fault

LISTINGS: Final = 240
RATE: Final = 120.0
SESSION_S: Final = 2.0
MAX_POLL_S: Final = 4.0
OUTAGE_S: Final = 8.0
OUTAGE_RATE: Final = 80.0
OUTAGE_DELAYS: Final = ("1s", "2s", "8s")
"""30 s, 5 min and 1 h, as far as whole seconds go."""


@dataclass(frozen=True, slots=True)
class Row:
    """A fault.

    Args:
        run: does it; gets the trial and its number.
        trials: how many the full matrix has.
        brokers: one or three.
        real: on the real engine with a tiny bundle, instead of a model without torch.
        modes: in which the fault can strike.
        delays: of late photos.
    """

    name: str
    run: Callable[[Trial, int], None]
    trials: int = 5
    brokers: int = 1
    real: bool = False
    modes: Sequence[str] = MODES
    delays: Sequence[str] = DELAYS


def _loaded(trial: Trial, listings: int = LISTINGS, rate: float = RATE, **env: str) -> Member:
    """A service under load, with work committed and work in flight."""
    service = trial.service("a", **env)
    service.wait_ready()
    trial.load(listings, rate)
    trial.wait_busy()
    return service


# kill -9 at a marked point ──────────────────────────────────────────────────────────────────────────────────────────


def kill(point: str, trial: Trial, number: int) -> None:
    """Killed at a pass that differs from trial to trial, started again at once."""
    passes = 1 if point == "in_revoke" else 1 + number % 5  # there is one revoke
    service = trial.service("a", strike=f"{point}:{passes}")
    service.wait_ready()
    trial.load(LISTINGS, RATE)
    if point == "in_revoke":
        trial.wait_busy()
        with trial.intruder():
            service.process.wait(DRAIN_S)
    service.process.wait(DRAIN_S)
    trial.struck(trial.evidence().strikes[-1].at)
    trial.service("a").wait_ready()


# stalls and members ─────────────────────────────────────────────────────────────────────────────────────────────────


def stall(seconds: float, trial: Trial, number: int) -> None:
    """SIGSTOP for longer than the group waits, another member takes over, SIGCONT."""
    trial.service("b").wait_ready()
    service = _loaded(trial, 2 * LISTINGS)
    service.stall()
    trial.struck()
    time.sleep(seconds)
    service.resume()


def churn(trial: Trial, number: int) -> None:
    """Members come, are asked to go, and are killed, under load."""
    _loaded(trial, 4 * LISTINGS)
    trial.service("b").wait_ready()
    trial.service("c").wait_ready()
    trial.struck()
    trial.services["b"].terminate()
    trial.service("b")
    trial.services["c"].kill()
    trial.services["b"].wait_ready()


def static_return(trial: Trial, number: int) -> None:
    """A member with a stable name is killed and comes back under it before its session ends."""
    service = _loaded(trial, MMCAT_KAFKA__INSTANCE_ID="one")
    service.kill()
    trial.struck()
    trial.service("a", MMCAT_KAFKA__INSTANCE_ID="one").wait_ready()


# brokers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def broker_killed(trial: Trial, number: int) -> None:
    """The broker that leads a partition of the output topic is killed, and comes back later."""
    assert trial.site.cluster is not None
    _loaded(trial, 4 * LISTINGS)
    node = trial.site.cluster.leader(trial.topics.output, number % 3)
    node.kill()
    trial.struck()
    time.sleep(4.0)
    node.start()
    trial.site.cluster.wait()


def brokers_restarted(trial: Trial, number: int) -> None:
    """All three are killed at once and started again."""
    assert trial.site.cluster is not None
    _loaded(trial, 4 * LISTINGS)
    for node in trial.site.cluster.nodes:
        node.kill()
    trial.struck()
    for node in trial.site.cluster.nodes:
        node.start()
    trial.site.cluster.wait()


def coordinator_moved(trial: Trial, number: int) -> None:
    """The broker that coordinates the group is killed: another one takes the group over."""
    assert trial.site.cluster is not None
    _loaded(trial, 4 * LISTINGS)
    node = trial.site.cluster.coordinator()
    node.kill()
    trial.struck()
    moved = trial.site.cluster
    eventually(lambda: moved.coordinator() is not node, "another broker coordinates", DRAIN_S, every_s=0.5)
    time.sleep(2.0)
    node.start()
    trial.site.cluster.wait()


# the view ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def view_killed(trial: Trial, number: int) -> None:
    """The view is killed; it comes back with nothing, as it keeps nothing on disk."""
    assert trial.site.valkey is not None
    _loaded(trial)
    trial.site.valkey.kill()
    trial.struck()
    time.sleep(1.0)
    trial.site.valkey.start()


def view_emptied(trial: Trial, number: int) -> None:
    """FLUSHALL while it is being written."""
    _loaded(trial)
    with redis.Redis.from_url(trial.site.view_url) as client:
        client.flushall()
    trial.struck()


def view_failed_over(trial: Trial, number: int) -> None:
    """The view is killed, and its address is taken over by a replica that lacks the last moments."""
    valkey = trial.site.valkey
    assert valkey is not None
    with LocalValkey() as replica, redis.Redis.from_url(replica.url) as second:
        second.replicaof("127.0.0.1", valkey.port)
        eventually(lambda: _in_step(second), "the replica is in step", DRAIN_S)
        _loaded(trial)
        second.replicaof("NO", "ONE")
        time.sleep(0.3)
        valkey.kill()
        trial.struck()
        valkey.start()
        with redis.Redis.from_url(valkey.url) as client:
            client.replicaof("127.0.0.1", replica.port)
            eventually(lambda: _in_step(client), "the new one has what the replica had", DRAIN_S)
            client.replicaof("NO", "ONE")


def view_behind(trial: Trial, number: int) -> None:
    """Nobody writes the view: retries and a replay that ask it publish what is outdated. Then it is written again."""
    _loaded(trial, MMCAT_VIEW__ENABLED="false").kill()
    trial.struck()
    service = trial.service("a", MMCAT_VIEW__ENABLED="false")
    service.wait_ready()
    trial.settle(view=False)
    trial.replay()
    service.terminate()
    trial.service("a").wait_ready()


def _in_step(client: "redis.Redis") -> bool:
    with suppress(redis.RedisError):
        told = client.info("replication")
        return told.get("master_link_status") == "up" and not told.get("master_sync_in_progress")
    return False


# photos ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def photo_slow(trial: Trial, number: int) -> None:
    """Every photo takes longer than a listing waits."""
    trial.photo_faults = lambda _: Fault(delay_s=3.0)
    _loaded(trial)
    trial.struck()


def photo_dead(trial: Trial, number: int) -> None:
    """The photo host is gone in the middle."""
    _loaded(trial)
    trial.photos.stop()
    trial.struck()


def photo_flapping(trial: Trial, number: int) -> None:
    """The photo host answers 503 every other half second."""
    trial.photo_faults = lambda _: Fault(status=503) if int(time.monotonic() * 2) % 2 else None
    _loaded(trial)
    trial.struck()


def photo_outage(trial: Trial, number: int) -> None:
    """An hour without photos in 8 s: events and two later attempts of theirs fall into it, the last one does not."""
    _loaded(trial, 4 * LISTINGS, OUTAGE_RATE)
    trial.photos.stop()
    trial.struck()
    time.sleep(OUTAGE_S)
    trial.open_photos(trial.photos.port)
    trial.settle()
    answers = [json.loads(one.value) for one in read_topic(trial.site.bootstrap, trial.topics.output) if one.value]
    assert any(one["attempt"] and one["image"] == "used" for one in answers), "no late photo was seen after the outage"


def photo_malicious(trial: Trial, number: int) -> None:
    """Bodies without end, cut bodies, garbage, pages."""
    bodies = [Body.ENDLESS, Body.CUT, Body.GARBAGE, Body.HTML, Body.PHOTO]
    trial.photo_faults = lambda name: Fault(body=bodies[int(name.partition(".")[0]) % len(bodies)])
    _loaded(trial, MMCAT_PHOTO__MAX_BYTES="1000000")
    trial.struck()


_KILLS = [Row(f"kill -9 {point}", partial(kill, point), trials=20, modes=modes_of(point)) for point in POINTS]
ROWS: Final = {
    row.name: row
    for row in [
        *_KILLS,
        Row("kill -9 on the real engine", partial(kill, "after_inference"), real=True),
        Row("SIGSTOP past session", partial(stall, SESSION_S + 1.0)),
        Row("SIGSTOP past max.poll", partial(stall, MAX_POLL_S + 1.5)),
        Row("group churn", churn),
        Row("static return", static_return),
        Row("broker killed", broker_killed, brokers=3),
        Row("all brokers restarted", brokers_restarted, brokers=3),
        Row("coordinator moved", coordinator_moved, brokers=3),
        Row("view killed", view_killed),
        Row("view emptied", view_emptied),
        Row("view failed over", view_failed_over),
        Row("view not written", view_behind),
        Row("photo host slow", photo_slow),
        Row("photo host dead", photo_dead),
        Row("photo host flapping", photo_flapping),
        Row("photo host malicious", photo_malicious),
        Row("an hour without photos, compressed", photo_outage, delays=OUTAGE_DELAYS),
    ]
}
