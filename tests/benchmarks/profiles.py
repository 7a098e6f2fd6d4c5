"""Where time goes: the stream's own work by function (py-spy), the model's by operation (PyTorch, OpenVINO).

    python -m tests.benchmarks.profiles transport [--events 150000] [--seconds 6]     # py-spy must be on the PATH
    python -m tests.benchmarks.profiles engine [--small]

`transport`: the service on a null model without photos, a backlog in hand; shares of the samples (200 a second) in
which a thread held the interpreter's lock, by the function it was in. `engine`: the seed-shaped model of engine.py, 32
listings on all cores: eager PyTorch as it comes and in channels-last, and the CPU engine's encoders.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from torch.profiler import ProfilerActivity, profile

from mmcat.cli.benchmarks.transport import Backlog, work_off
from mmcat.cli.servers import LocalKafka
from mmcat.engines import graphs
from mmcat.engines.base import Batch, logits
from mmcat.engines.eager import EagerEngine
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from tests.benchmarks import engine
from tests.benchmarks.transport import SERVICE
from tests.support.broker import warm_groups

MOST: Final = 12  # lines told of each
SAMPLES: Final = 200  # a second
STARTED_S: Final = 6.0  # until the service works
LISTINGS, SMALL_LISTINGS, TOKENS = 32, 4, 30
FRAME: Final = re.compile(r"(?P<name>.*) \((?:.*site-packages/)?(?P<file>.*?):\d+\)$")


def told(title: str, seconds: "Counter[str]") -> None:
    """Prints the largest shares."""
    whole = seconds.total()
    print(title)
    for name, one in seconds.most_common(MOST):
        print(f"  {one / whole:6.1%}  {name}")


def transport(events: int, watched_s: int) -> None:
    """The service works a backlog off while py-spy looks on."""
    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        warm_groups(broker.bootstrap)
        pid, stacks = Path(folder) / "pid", Path(folder) / "stacks"
        watching: list[subprocess.Popen[bytes]] = []
        backlog = Backlog(broker.bootstrap, events)
        begun = time.monotonic()

        def look() -> None:
            if not watching and pid.exists() and time.monotonic() > begun + STARTED_S:
                py_spy = ["py-spy", "record", "--pid", pid.read_text().strip(), "--duration", str(watched_s)]
                py_spy += ["--rate", str(SAMPLES), "--format", "raw", "--threads", "--gil", "--output", str(stacks)]
                watching.append(subprocess.Popen(py_spy, stdout=subprocess.DEVNULL))

        named = ("sh", "-c", 'echo $$ > "$0"; exec "$@"', str(pid), *SERVICE)
        speed = work_off(backlog, named, backlog.env(), Path(folder) / "log", look=look)
        if not watching or watching[0].wait(watched_s):
            sys.exit("py-spy did not look on: more --events, or the right to watch a process")
        lines = [line.rsplit(" ", 1) for line in stacks.read_text("utf-8").splitlines()]
    print(f"{speed.events_per_s:,.0f} events/s, {speed.cpu_ms * 1e3:.0f} µs of CPU each, py-spy beside them")
    by_thread: Counter[str] = Counter()
    by_function: Counter[str] = Counter()
    for stack, count in lines:
        frames = stack.split(";")
        by_thread[re.sub(r"thread \(\d+\):? ?", "", frames[0])] += int(count)
        found = FRAME.match(frames[-1])
        by_function[f"{found['file']} {found['name']}" if found else frames[-1]] += int(count)
    held = by_thread.total() / (watched_s * SAMPLES)
    told(f"the lock is held {held:.0%} of the time; by thread", by_thread)
    told("by function", by_function)


def model(small: bool) -> None:
    """One batch in each engine."""
    bert, px = (engine.SMALL_BERT, 64) if small else (engine.BERT, 224)
    listings = SMALL_LISTINGS if small else LISTINGS
    config = ModelConfig((57, 552, 3_190, 404), text_encoder=bert, text_pooling="cls", px=px)
    seeded, other = (CategoryModel(config).eval().requires_grad_(False) for _ in range(2))
    preprocessing = Preprocessing(px=px, max_tokens=TOKENS)
    batch = engine.drawn(config, listings, TOKENS, bert["vocab_size"])
    eager = EagerEngine(seeded, preprocessing, "cpu", "fp32")
    runs: dict[str, Callable[[], object]] = {
        "as it comes": engine.as_it_comes(other, preprocessing, batch),
        "channels-last": partial(logits, eager, batch),
    }
    for name, run in runs.items():
        run()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            run()
        spent = Counter({one.key: one.self_cpu_time_total / 1e6 for one in seen.key_averages()})
        told(f"eager, {name}: {spent.total() / listings * 1e3:.1f} ms a listing", spent)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in graphs.parts(seeded, preprocessing).items():
            graphs.export(part, Path(folder) / f"{name}.onnx")
        for precision in ("f32", "bf16") if graphs.has_bf16() else ("f32",):
            spent = encoded(Path(folder), precision, batch)
            told(f"the CPU engine's encoders, {precision}: {spent.total() / listings * 1e3:.1f} ms a listing", spent)


def encoded(folder: Path, precision: str, batch: Batch) -> "Counter[str]":
    """Seconds by type of operation, of both encoders."""
    spent: Counter[str] = Counter()
    inputs = {"image": {"pixels_KXXC": batch.pixels}, "text": {"ids_KT": batch.ids, "mask_KT": batch.mask}}
    for name, given in inputs.items():
        options = {"PERF_COUNT": True, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
        request = graphs.core().compile_model(str(folder / f"{name}.onnx"), "CPU", options).create_infer_request()
        for _ in range(2):  # the first run of a shape takes longer
            request.infer(given)
        for one in request.profiling_info:
            spent[one.node_type] += one.real_time.total_seconds()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time goes.")
    parser.add_argument("what", choices=("transport", "engine"))
    parser.add_argument("--events", type=int, default=150_000, help="of transport")
    parser.add_argument("--seconds", type=int, default=6, help="of transport: for how long it is watched")
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    given = parser.parse_args()
    if given.what == "engine":
        model(given.small)
    elif shutil.which("py-spy") is None:
        sys.exit("py-spy is not on the PATH: pip install py-spy")
    else:
        transport(given.events, given.seconds)


if __name__ == "__main__":
    main()
