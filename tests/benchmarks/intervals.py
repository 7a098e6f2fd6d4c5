"""What all benchmarks of pairs have in common: turns that are interleaved, ratios with their interval, and print."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.cli.benchmarks.intervals import Ratio, median
from mmcat.cli.benchmarks.report import number

RESAMPLES = 10_000


def rounds(runs: Mapping[str, Callable[[], object]], count: int, warm_ups: int = 1) -> dict[str, npt.NDArray[Any]]:
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
    return {name: np.array(seconds) for name, seconds in took.items()}


def ratio(slower: npt.NDArray[Any], faster: npt.NDArray[Any]) -> dict[str, Any]:
    """Median of the pairs' ratios, and its 95 % bootstrap interval over pairs."""
    ratios = slower / faster
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {"ratio": float(np.median(ratios)), "interval": [float(low), float(high)], "pairs": len(ratios)}


def best(took: Mapping[str, npt.NDArray[Any]]) -> str:
    """The name with the smallest median."""
    return min(took, key=lambda name: float(np.median(took[name])))


def show(figures: Mapping[str, Sequence[float]], share: Ratio, *, as_json: bool) -> None:
    """Prints the median of each figure (unit in its name) and the ratio, as a table or as JSON."""
    medians = {name: median(runs) for name, runs in figures.items()}
    if as_json:
        print(json.dumps({name: asdict(one) for name, one in medians.items()} | {"ratio": asdict(share)}))
        return
    width = max(map(len, figures))
    for name, one in medians.items():
        print(f"{name:<{width}}  {number(one.median):>9}")
    interval = f"95 % interval {share.low:.3f} to {share.high:.3f}, {share.pairs} pairs"
    print(f"{'ratio':<{width}}  {share.median:>9.3f}   {interval}")
