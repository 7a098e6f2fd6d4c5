"""The whole consumer against the same job on quixstreams, faststream, sentry-arroyo and bytewax.

    python -m tests.benchmarks.peers [--events 128] [--pairs 9] [--peers quixstreams,…] [--small] [--json]

Targets: at least 1.5 times the best peer where the peers have eager channels-last PyTorch, and 1.1 times where they
have our engine too: the one that "auto" takes, as in the service (bf16 where the CPU has it). One Apache Kafka and one
host of photos (600 px, 5 ms) serve all; the model has the shape that training makes for CPUs (bundle.py). All take
turns in one run (race.py), the first not counted; the best peer is the one with the highest median, and its ratio is
taken turn by turn. What each peer was tuned with stands at the top of its program. Answers must be the same: the run
fails where fewer than 99 % of a peer's, path and probability, are those of the service. `--small` has a tiny model:
only to see that all run and agree.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, Final

from mmcat.cli.benchmarks.intervals import median, ratio
from mmcat.cli.benchmarks.parts import photos
from mmcat.cli.benchmarks.photo_host import PhotoHost
from mmcat.cli.processes import ServerError
from mmcat.cli.servers import LocalKafka
from tests.benchmarks.peers import bundle, packages
from tests.benchmarks.peers.race import SERVICE, Place, Runner, Turn, event
from tests.benchmarks.peers.work import AHEAD, BATCH
from tests.support.broker import warm_groups
from tests.support.tiny import make_tiny_bundle

OURS: Final = "auto"
ENGINES: Final = ("eager", OURS)
SAME: Final = 0.99  # of the answers: near ties may fall either way
PROBABILITY: Final = 0.1  # how far an equal answer's may be off: what is promised of bf16
DELAY_S: Final = 0.005
PX: Final = 600
DRAWN: Final = 16  # photos; the host gives each listing one with bytes of its own


def main() -> None:
    parser = argparse.ArgumentParser(description="The service against the same job on other libraries.")
    parser.add_argument(
        "--events", type=int, default=4 * BATCH, help="counted of each turn; seven batches more are sent"
    )
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--peers", default=",".join(packages.REQUIREMENTS), help="some of them, by commas")
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    turns = race(given.peers.split(","), given.events + BATCH + AHEAD, given.pairs, given.small)
    found = summary(turns)
    if given.json:
        print(json.dumps(found))
        return
    for name, rate in found["events_per_s"].items():
        print(f"{name:<22} {rate:>8.1f} events/s")
    for engine in ENGINES:
        told = found[engine]
        print(
            f"{SERVICE} ÷ {told['best']} ({engine}): {told['median']:.2f},"
            f" 95 % interval {told['low']:.2f} to {told['high']:.2f}, {told['pairs']} pairs"
        )
    print(f"equal answers: {found['equal_answers']:.1%} at least")


def race(peers: Sequence[str], listings: int, pairs: int, small: bool) -> dict[str, list[Turn]]:
    """All turns by runner, in rounds that change direction; tells each on stderr."""
    titles = [str(event(number, "")["title"]) for number in range(listings)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(LocalKafka())
        host = stack.enter_context(PhotoHost(photos((PX,) * DRAWN), DELAY_S))
        warm_groups(broker.bootstrap)
        model = make_tiny_bundle(folder / "bundle") if small else bundle.write(folder / "bundle", titles)
        place = Place(broker.bootstrap, model, host.url, folder)
        named = [(SERVICE, OURS), *((peer, engine) for engine in ENGINES for peer in peers)]
        runners = [stack.enter_context(Runner(name, engine, place)) for name, engine in named]
        turns: dict[str, list[Turn]] = {str(runner): [] for runner in runners}
        for number in range(pairs + 1):
            for runner in runners if number % 2 else runners[::-1]:
                turn = runner.turn(range(number * listings, (number + 1) * listings))
                print(f"{number}/{pairs} {runner}: {turn.events_per_s:.1f} events/s", file=sys.stderr, flush=True)
                if number:
                    turns[str(runner)].append(turn)
        return turns


def summary(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Median rates, the ratio to the best peer with each engine, and the share of equal answers where it is lowest.

    Raises:
        ServerError: too few answers are those of the service.
    """
    rates = {name: [turn.events_per_s for turn in found] for name, found in turns.items()}
    medians = {name: median(found).median for name, found in rates.items()}
    service = f"{SERVICE} ({OURS})"
    equal = {name: mean(map(_equal, turns[service], found)) for name, found in turns.items()}
    if apart := [f"{name} {share:.1%}" for name, share in equal.items() if share < SAME]:
        raise ServerError(f"too few answers are those of the service: {', '.join(apart)}")
    told: dict[str, Any] = {"events_per_s": medians, "equal_answers": min(equal.values())}
    for engine in ENGINES:
        best = max(
            (name for name in turns if name.endswith(f"({engine})") and name != service), key=medians.__getitem__
        )
        told[engine] = {"best": best.split()[0], **asdict(ratio(rates[service], rates[best]))}
    return told


def _equal(ours: Turn, theirs: Turn) -> float:
    pairs = [(answer, theirs.answers[product]) for product, answer in ours.answers.items()]
    return sum(one[0] == other[0] and abs(one[1] - other[1]) < PROBABILITY for one, other in pairs) / len(pairs)


if __name__ == "__main__":
    main()
