"""How long the service on the CPU engine takes from the start of its process until it is ready.

    python -m tests.benchmarks.start [--bundle FOLDER] [--engine cpu] [--precision P ...] [--starts 5] [--small] [--json]

Starts `mmcat consume` on a local Kafka and asks /readyz. The bundle has the research code's shape (ResNet50 at 224 px,
BERT-base, 30 tokens, 6 blocks, heads 57 / 552 / 3,190 / 404) and random weights; `--bundle` takes another. The first
start of each precision makes what is kept under MMCAT_HOME, here an empty folder, and is told apart; of the others the
medians are told: seconds until ready, and of them those for imports, bundle, engine and warm-up (the rest is the
interpreter, settings, broker and group), CPU seconds, and anonymous memory when ready. Target: under 10 s.
`--small` is for seeing that it runs.
"""  # noqa: E501 - one line to run it

import argparse
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from mmcat import bundle as bundles
from mmcat.calibration import Calibration
from mmcat.cli.benchmarks.transport import Backlog
from mmcat.cli.processes import log_tail, spawn, stop_process
from mmcat.cli.servers import LocalKafka
from mmcat.engines import graphs
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.text import Tokenizer
from tests.benchmarks.engine import BERT, SMALL_BERT
from tests.benchmarks.feature_cache import seed_taxonomy
from tests.benchmarks.memory import anonymous_bytes
from tests.benchmarks.start_service import PARTS
from tests.support.broker import warm_groups
from tests.support.tiny import TITLES

TOKENS: Final = 30
LATE_S, LOOK_S = 300.0, 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description="From the start of the service until it is ready.")
    parser.add_argument("--bundle", type=Path, help="instead of the one of the research code's shape")
    parser.add_argument("--engine", default="cpu", help="as model.engine")
    parser.add_argument("--precision", nargs="+", help="as model.precision; default: fp32, and bf16 where there is any")
    parser.add_argument("--starts", type=int, default=5, help="of each precision, besides the first")
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    precisions = given.precision or (["fp32", "bf16"] if graphs.has_bf16() else ["fp32"])
    found = measure(given.bundle, given.engine, precisions, given.starts, given.small)
    if given.json:
        print(json.dumps(found))
        return
    for precision, told in found.items():
        parts = ", ".join(f"{part} {told['parts_s'][part]:.2f}" for part in PARTS)
        print(f"{precision}: ready in {told['ready_s']:.2f} s ({min(told['all_s']):.2f} to {max(told['all_s']):.2f})")
        print(f"  {parts} s; {told['cpu_s']:.2f} s of CPU; {told['anonymous_bytes'] / 1e6:.0f} MB of anonymous memory")
        print(f"  the first start, which makes the graphs: {told['first_s']:.1f} s")


def measure(
    bundle: Path | None, engine: str, precisions: Sequence[str], starts: int, small: bool
) -> dict[str, dict[str, Any]]:
    """By precision: medians over `starts` starts."""
    found = {}
    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        warm_groups(broker.bootstrap)
        bundle = bundle or _bundle(Path(folder) / "bundle", small)
        for precision in precisions:
            model = {"BUNDLE": bundle, "ENGINE": engine, "PRECISION": precision, "DEVICE": "cpu"}
            env = {f"MMCAT_MODEL__{name}": str(value) for name, value in model.items()}
            env["MMCAT_HOME"] = f"{folder}/{precision}"
            first, *others = (_start(broker.bootstrap, env, Path(folder)) for _ in range(1 + starts))
            found[precision] = {
                "ready_s": _median(others, "ready_s"),
                "all_s": [one["ready_s"] for one in others],
                "parts_s": {part: _median([one["parts_s"] for one in others], part) for part in PARTS},
                "cpu_s": _median(others, "cpu_s"),
                "anonymous_bytes": _median(others, "anonymous_bytes"),
                "first_s": first["ready_s"],
            }
    return found


def _median(starts: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.median([one[name] for one in starts]))


def _start(bootstrap: str, env: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """One start of the service, and its end."""
    marks, log = folder / "marks.json", folder / "service.log"
    environment = Backlog(bootstrap, 0).env(env)
    begun = time.monotonic()
    process = spawn((sys.executable, "-m", "tests.benchmarks.start_service", str(marks)), log, environment)
    try:
        while not _ready(int(environment["MMCAT_HTTP__PORT"])):
            assert process.poll() is None, log_tail(log)
            assert time.monotonic() < begun + LATE_S, f"the service is not ready after {LATE_S} s: {log_tail(log)}"
            time.sleep(LOOK_S)
        ready_s = time.monotonic() - begun
        held = anonymous_bytes(process.pid)
    finally:
        stop_process(process, 20)
    return {"ready_s": ready_s, "anonymous_bytes": held, **json.loads(marks.read_text("utf-8"))}


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _bundle(folder: Path, small: bool) -> Path:
    torch.manual_seed(0)
    taxonomy, px = seed_taxonomy(), 64 if small else 224
    bert = SMALL_BERT if small else BERT
    bundles.write(
        folder,
        model=CategoryModel(
            ModelConfig(tuple(map(len, taxonomy.classes)), text_encoder=bert, text_pooling="cls", px=px)
        ).eval(),
        tokenizer=Tokenizer.train_wordpiece(TITLES, size=200, max_tokens=TOKENS),
        taxonomy=taxonomy,
        preprocessing=Preprocessing(px=px, max_tokens=TOKENS),
        calibration=Calibration({"both": 1.0}, {"both": 0.9}),
        name="start",
        metrics={},
        split_fingerprint="",
        data_note="random weights, for benchmarks",
        created_ms=1_750_000_000_000,
    )
    return folder


if __name__ == "__main__":
    main()
