"""Runs the benchmarks and rewrites the table of RESULTS.md, each row by what was just seen (`make bench`).

    python -m tests.benchmarks.results [ROW]...

A row that is not asked for, or fails, keeps its last figure. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BESIDE: Final = "needed, beside model and decode ms"  # of work_conserving.py
RESULTS: Final = Path(__file__).with_name("RESULTS.md")
NOT_RUN: Final = "not run"


@dataclass(frozen=True, slots=True)
class Row:
    """A claim, the command that shows it, and how its output becomes a figure.

    Args:
        on_gpu: left out where there is no CUDA device.
    """

    claim: str
    command: tuple[str, ...]
    figure: Callable[[dict[str, Any]], str]
    on_gpu: bool = False


def interval(found: dict[str, Any]) -> str:
    """A ratio with its interval."""
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def compiled(found: dict[str, Any]) -> str:
    """The compiled engine at its best batch."""
    told = max(found["batches"].values(), key=lambda told: float(told["listings_per_s"]["compiled"]["median"]))
    rate, share = told["listings_per_s"]["compiled"]["median"], told["share"]["compiled"]
    return f"{rate:,.0f} listings/s on {found['device']}, {share:.0%} of the roofline"


ROWS: Final = {
    "transport": Row(
        "events/s, null model and no photos ÷ a bare confluent-kafka loop ≥ 0.6; CPU per listing",
        ("tests.benchmarks.transport",),
        lambda found: f"{interval(found['ratio'])}; {found['service']['cpu_ms']['median']:.3f} ms",
    ),
    "decode": Row(
        "decode and resize of 600–1,100 px photos ÷ Pillow, per core ≥ 2.2, within 1 LSB",
        ("tests.benchmarks.decode",),
        lambda found: f"{interval(found['ratio'])}; at most {found['most_apart']} apart",
    ),
    "decode_scaled": Row(
        "the same, JPEGs unpacked near the size that is wanted (`photo.scaled_decode`) ≥ 2.9",
        ("tests.benchmarks.decode", "--scaled"),
        lambda found: interval(found["ratio"]),
    ),
    "engine": Row(
        "the CPU engine, the research code's model at 224 px: ÷ the best eager PyTorch in float32 ≥ 1.3 fp32, 2.5 bf16,"
        " 4.5 int8; ÷ PyTorch as it comes, batches of 32 ≥ 1.9, 3.8, 6.5",
        ("tests.benchmarks.engine",),
        lambda found: "; ".join(
            f"{precision} {interval(told['over_eager'])}, {interval(told['over_default'])}"
            for precision, told in found["engines"].items()
        ),
    ),
    "latency": Row(
        "registered → in the log at half of what the model can do (64 ms a batch of 32, so 250/s), photo host 5 ms:"
        " p99 ≤ batch window + 2 × batch + 50 ms = 228 ms",
        ("mmcat.cli", "bench", "latency", "--rate", "250", "--model-ms", "64", "--runs", "9"),
        lambda found: "p99 {median:.0f} ms ({low:.0f} to {high:.0f})".format(**found["figures"]["p99 ms"]),
    ),
    "memory": Row(
        "anonymous memory gained over a million events, after warm-up < 2 %",
        ("tests.benchmarks.memory",),
        lambda found: f"{found['growth']:+.1%}",
    ),
    "whole_consumer": Row(
        "whole consumer, photos of 600 px from a local host ÷ an engine that holds its device 4 ms a listing ≥ 0.92",
        ("tests.benchmarks.whole_consumer",),
        lambda found: interval(found["ratio"]),
    ),
    "work_conserving": Row(
        "whole consumer, a real engine and photos of 600 px from a local host, all on the same cores ÷ what these could"
        " do if every CPU second were needed work ≥ 0.95; CPU beside model and decode ≤ 0.6 ms",
        ("tests.benchmarks.work_conserving",),
        lambda found: f"{interval(found['ratio'])}; {found[BESIDE]['median']:.2f} ms",
    ),
    "feature_cache": Row(
        "backfill with warm feature caches ÷ cold, origin answering 304 ≥ 5",
        ("tests.benchmarks.feature_cache",),
        lambda found: interval(found["warm_over_cold"]),
    ),
    "two_consumers": Row(
        "two consumers ÷ one, 4 ms a listing ≥ 1.9",
        ("tests.benchmarks.two_consumers",),
        lambda found: interval(found["ratio"]),
    ),
    "peers": Row(
        "whole consumer ÷ the same job on the best of quixstreams, faststream, sentry-arroyo and bytewax: with eager"
        " channels-last PyTorch ≥ 1.5, with our engine ≥ 1.1",
        ("tests.benchmarks.peers",),
        lambda found: "; ".join(f"{interval(found[with_])} × {found[with_]['best']}" for with_ in ("eager", "auto")),
    ),
    "start": Row(
        "the service on the CPU engine, the research code's model at 224 px, graphs made already: from start to ready"
        " < 10 s",
        ("tests.benchmarks.start",),
        lambda found: "; ".join(
            f"{precision} {told['ready_s']:.1f} s and {told['anonymous_bytes'] / 1e9:.2f} GB of anonymous memory"
            for precision, told in found.items()
        ),
    ),
    "exactly_once": Row(
        "exactly once ÷ at least once, events/s, null model, a commit every 100 ms ≥ 0.9; p99 of committed reads",
        ("tests.benchmarks.exactly_once",),
        lambda found: (
            f"{interval(found['ratio'])}; p99 {found['exactly_once']['p99_s']:.2f} s, at least once"
            f" {found['at_least_once']['p99_s']:.2f} s"
        ),
    ),
    "gpu_compute": Row(
        "H100, the research code's model compiled in bf16, inputs on the device ≥ 10,000 listings/s; share of the"
        " roofline",
        ("tests.benchmarks.gpu_compute",),
        compiled,
        on_gpu=True,
    ),
    "gpu_pipeline": Row(
        "H100 machine, whole consumer on photos of 224 px from local hosts ÷ the smaller of the row above and of"
        " fetch and decode alone ≥ 0.8; share of the time in which the device computes",
        ("tests.benchmarks.gpu_pipeline",),
        lambda found: f"{interval(found['ratio'])}; busy {found['device busy share']['median']:.0%}",
        on_gpu=True,
    ),
}


def has_gpu() -> bool:
    """Whether there is a CUDA device."""
    import torch  # seconds: only where a row needs to know

    return torch.cuda.is_available()


def line(row: Row, figure: str) -> str:
    """A row of the table."""
    return f"| {row.claim} | `python -m {' '.join(row.command)}` | {figure} |"


def rewritten(text: str, row: Row, figure: str) -> str:
    """The file with this row's figure; other rows, and the words around, as they are.

    Raises:
        ValueError: the table has no such row.
    """
    found = re.compile(rf"^\| {re.escape(row.claim)} \|.*$", re.MULTILINE)
    if not found.search(text):
        raise ValueError(f"{RESULTS.name} has no row for: {row.claim}")
    return found.sub(lambda _match: line(row, figure), text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the benchmarks, rewrite RESULTS.md.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default: all")
    failed = 0
    for name in parser.parse_args().rows or ROWS:
        row = ROWS[name]
        if row.on_gpu and not has_gpu():
            print(f"{name}: left out, no CUDA device", flush=True)
            continue
        options = () if name == "memory" else ("--json",)
        command = (sys.executable, "-m", *row.command, *options)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{name} failed", file=sys.stderr)
            failed += 1
            continue
        figure = row.figure(json.loads(done.stdout))
        RESULTS.write_text(rewritten(RESULTS.read_text("utf-8"), row, figure), "utf-8")
        print(f"{name}: {figure}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
