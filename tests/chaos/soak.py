"""`python -m tests.chaos.soak`: two members under steady load, struck again and again; then the oracle, and a plot.

    --minutes N   how long (30)
    --rate N      events a second (250)
    --out FOLDER  soak.json and soak.png are written there

Member a runs all along: its memory, threads and descriptors must stay flat. Member b is killed, asked to go and stalled
in turn; the view is killed and emptied; the photo host flaps. Exits with 1 where a promise is broken.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import redis

from tests.chaos.oracle import Verdict
from tests.chaos.photos import late_and_never
from tests.chaos.plot import Panel, draw
from tests.chaos.site import Site, open_site
from tests.chaos.trial import Trial
from training.shop.photo_host import Fault

EACH_S: Final = 12.0
"""From fault to fault: every one is over before the next."""
EVENTS_EACH: Final = 1 + 1 / 16 + 1 / 20
"""Of a listing, with the deletions and bad events that `Trial.load` mixes in."""
PATIENT_S: Final = 600.0
MIB: Final = 2**20


def _kill_b(trial: Trial) -> None:
    trial.services["b"].kill()
    trial.service("b")


def _stop_b(trial: Trial) -> None:
    trial.services["b"].terminate()
    trial.service("b")


def _stall_b(trial: Trial) -> None:
    trial.services["b"].stall()
    time.sleep(3.0)
    trial.services["b"].resume()


def _kill_view(trial: Trial) -> None:
    assert trial.site.valkey is not None
    trial.site.valkey.kill()
    time.sleep(1.0)
    trial.site.valkey.start()


def _empty_view(trial: Trial) -> None:
    with redis.Redis.from_url(trial.site.view_url) as client:
        client.flushall()


def _flap_photos(trial: Trial) -> None:
    trial.photo_faults = lambda _: Fault(status=503) if int(time.monotonic()) % 2 else None
    time.sleep(5.0)
    trial.photo_faults = late_and_never


FAULTS: Final[dict[str, Callable[[Trial], None]]] = {
    "b killed": _kill_b,
    "photos flap": _flap_photos,
    "b stalled": _stall_b,
    "view killed": _kill_view,
    "b stopped": _stop_b,
    "view emptied": _empty_view,
}


def soak(site: Site, folder: Path, minutes: float, rate: float) -> tuple[Trial, Verdict, list[tuple[float, str]]]:
    """Run it; returns the trial, what the oracle says, and what struck when."""
    struck: list[tuple[float, str]] = []
    env = {"MMCAT_TEST_MODEL_MS": "5", "MMCAT_BATCH__MAX_LISTINGS": "64"}
    with Trial(site, folder, env=env, drain_s=PATIENT_S) as trial:
        trial.service("a").wait_ready()
        trial.service("b").wait_ready()
        end = time.monotonic() + minutes * 60
        trial.load(int(minutes * 60 * rate / EVENTS_EACH), rate)
        for name in itertools.cycle(FAULTS):
            if time.monotonic() + EACH_S > end:
                break
            time.sleep(EACH_S)
            struck.append((time.time(), name))
            FAULTS[name](trial)
        return trial, trial.reckon(), struck


def write(folder: Path, trial: Trial, verdict: Verdict, struck: list[tuple[float, str]]) -> None:
    """The figures as JSON, and as a plot over the minutes of the soak."""
    usage, snapshots = trial.watch.usage, trial.watch.snapshots
    steady = trial.services["a"].process.pid
    began = snapshots[0].at
    life = [one for one in usage if one.pid == steady]
    series = {
        "memory of a, MiB": [((one.at - began) / 60, one.rss_bytes / MIB) for one in life],
        "descriptors of a": [((one.at - began) / 60, float(one.descriptors)) for one in life],
        "threads of a": [((one.at - began) / 60, float(one.threads)) for one in life],
        "lag, events": [((one.at - began) / 60, float(one.lag)) for one in snapshots],
    }
    marks = [((at - began) / 60, name) for at, name in struck]
    said = {
        "events": verdict.events,
        "losses": verdict.losses,
        "duplicates": verdict.duplicates,
        "objections": verdict.objections,
        "faults": [{"minute": round(minute, 2), "what": name} for minute, name in marks],
        "series": {name: [[round(x, 3), round(y, 1)] for x, y in points] for name, points in series.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.json").write_text(json.dumps(said), encoding="utf-8")
    draw([Panel(name, points) for name, points in series.items()], marks, folder / "soak.png")


def main() -> int:
    """Soak, write, say what broke."""
    home = Path(os.environ.get("MMCAT_HOME", Path.home() / ".cache" / "mmcat")) / "chaos"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=250.0)
    parser.add_argument("--out", type=Path, default=home)
    given = parser.parse_args()
    logs = Path(tempfile.mkdtemp(prefix="mmcat-soak-"))
    with open_site(logs, brokers=1) as site:
        trial, verdict, struck = soak(site, logs / "soak", given.minutes, given.rate)
    write(given.out, trial, verdict, struck)
    print(f"{verdict.events} events, {len(struck)} faults, {verdict.losses} lost, {verdict.duplicates} twice")
    print("\n".join(verdict.objections) or f"no promise broken; see {given.out}/soak.png")
    return 1 if verdict.objections else 0


if __name__ == "__main__":
    sys.exit(main())
