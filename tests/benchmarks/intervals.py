"""What all benchmarks of pairs have in common: turns that are interleaved, and print."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from mmcat.cli.benchmarks.intervals import Ratio, median
from mmcat.cli.benchmarks.report import number


def rounds(runs: Mapping[str, Callable[[], object]], count: int, warm_ups: int = 1) -> dict[str, list[float]]:
    """Seconds of each run, [count]: all of them in turns, so that what else the machine does meets all alike."""
    for _ in range(warm_ups):
        for run in runs.values():
            run()
    took: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(count):
        names = list(runs) if turn % 2 == 0 else list(runs)[::-1]
        for name in names:
            started = time.perf_counter()
            runs[name]()
            took[name].append(time.perf_counter() - started)
    return took


def best(took: Mapping[str, Sequence[float]]) -> str:
    """The name with the smallest median."""
    return min(took, key=lambda name: median(took[name]).median)


def show(figures: Mapping[str, Sequence[float]], share: Ratio, *, as_json: bool) -> None:
    """Prints the median of each figure (unit in its name) and the ratio, as a table or as JSON."""
    medians = {name: median(runs) for name, runs in figures.items()}
    if as_json:
        print(json.dumps({name: asdict(one) for name, one in medians.items()} | {"ratio": asdict(share)}))
        return
    width = max(map(len, figures))
    for name, one in medians.items():
        print(f"{name:<{width}}  {number(one.median):>9}")
    print(f"{'ratio':<{width}}  {share}")
