"""How much later photos of healthy hosts come when 30 % of the hosts hang.

    python -m tests.benchmarks.hung_hosts [--rate 200] [--seconds 6] [--rounds 7] [--hang silent|drip]

A process of its own plays 40 photo hosts on 40 real sockets, which answer with 60 kB after 20 ms. The client is
`PhotoFetcher` with the settings' defaults. Photos are asked for at random moments, the same in every arm, and only
those of the 28 hosts that stay healthy are timed:

    all well   nobody hangs
    cold       12 hosts hang that were never met: their breakers are closed
    turned     12 hosts hang that had answered well until now: they may hold all their slots, breakers closed
    warm       12 hosts hang whose breakers are open

Each round runs all arms in random order; the shift is the median over rounds of (p95 of the arm / p95 of `all well` of
the same round) - 1, with a 95 % bootstrap interval over rounds.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from consumer.fetch import PhotoFetcher
from consumer.settings import PhotoSettings
from mmcat.cli.benchmarks.intervals import ratio
from mmcat.listing import ImageStatus

HOSTS, HUNG, BODY_BYTES, ANSWER_S = 40, 12, 60_000, 0.02
ARMS = ("all well", "cold", "turned", "warm")
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
PHOTO = HEAD + b"\xff" * BODY_BYTES


async def play(hang: str) -> None:
    """Be the hosts: tell the ports, then answer until killed. `/hang` never ends: it says nothing, or drips."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                if b" /hang?" not in request:
                    await asyncio.sleep(ANSWER_S)
                    writer.write(PHOTO)
                    continue
                if hang == "drip":
                    writer.write(HEAD)
                while True:
                    await asyncio.sleep(0.2)
                    if hang == "drip":
                        writer.write(b"x")
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    servers = [await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024) for _ in range(HOSTS)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Load:
    """When which host is asked; the first `HUNG` hosts are those that may hang."""

    moments: list[tuple[float, int]]

    @classmethod
    def draw(cls, rate: float, seconds: float, seed: int) -> "Load":
        """Independent arrivals over all hosts."""
        dice, moments, now = random.Random(seed), [], 0.0
        while now < seconds:
            now += dice.expovariate(rate)
            moments.append((now, dice.randrange(HOSTS)))
        return cls(moments)


async def arm(name: str, load: Load, ports: list[int]) -> list[float]:
    """Seconds that each photo of a healthy host took."""
    settings = PhotoSettings(allow=("127.0.0.0/8",), ports=tuple(ports))
    took: list[float] = []
    numbers = itertools.count()
    path = "photo" if name == "all well" else "hang"

    async with PhotoFetcher.from_settings(settings) as fetcher:

        async def ask(host: int, path: str) -> ImageStatus:
            url = f"http://127.0.0.1:{ports[host]}/{path}?{next(numbers)}"  # equal ones would be one fetch
            return (await fetcher.fetch(url, time.monotonic() + settings.deadline_s)).status

        async def timed(host: int) -> None:
            started = time.monotonic()
            assert await ask(host, "photo") is ImageStatus.USED
            took.append(time.monotonic() - started)

        # Every arm begins with healthy hosts that are known; the others as the arm says.
        known = range(HOSTS) if name in ("all well", "turned") else range(HUNG, HOSTS)
        for _ in range(settings.per_host):
            await asyncio.gather(*(ask(host, "photo") for host in known))
        if name == "warm":
            for _ in range(3):
                await asyncio.gather(*(ask(host, "hang") for host in range(HUNG) for _ in range(8)))
        began, asked = time.monotonic(), []
        for moment, host in load.moments:
            await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
            asked.append(asyncio.create_task(timed(host) if host >= HUNG else ask(host, path)))
        await asyncio.gather(*asked)
    return took


def p95(seconds: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(seconds, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200, help="photos a second")
    parser.add_argument("--seconds", type=float, default=6, help="of each arm")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hang", choices=("silent", "drip"), default="silent", help="how a host hangs")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.play:
        asyncio.run(play(asked.hang))
        return
    command = [sys.executable, "-m", "tests.benchmarks.hung_hosts", "--play", "--hang", asked.hang]
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as hosts:
        assert hosts.stdout is not None
        ports: list[int] = json.loads(hosts.stdout.readline())
        for number in range(asked.rounds):
            load = Load.draw(asked.rate, asked.seconds, number)
            for name in random.Random(number).sample(ARMS, len(ARMS)):
                found[name].append(p95(asyncio.run(arm(name, load, ports))))
        hosts.terminate()
    print(f"{asked.rounds} rounds of {asked.seconds:g} s at {asked.rate:g}/s, {HUNG} of {HOSTS} hosts {asked.hang}")
    for name, values in found.items():
        shift, p95_ms = ratio(values, found["all well"]), statistics.median(values) * 1000
        print(f"{name:9} p95 {p95_ms:6.1f} ms   ÷ all well {shift}")


if __name__ == "__main__":
    main()
