"""Eight million rows × 2,048 half-precision photo vectors, trained and measured on from disk: memory, loading's share.

    python -m tests.benchmarks.eight_million_rows --rows 8000000 --folder /disk     # 33 GB, deleted afterwards
    python -m tests.benchmarks.eight_million_rows --rows 500000 --steps 200

Makes rows as a reader makes them (titles, ids, paths of a made-up tree of Kakao's size) and a store of seeded vectors,
splits by group, trains the pooled photo model, validates an epoch on `select` and measures on `test` as a training
does, and prints one JSON object. `--cold` asks the system to forget the vectors before training, so that batches come
from the disk and not from its cache. Anonymous memory is RssAnon of /proc/self/status, looked at every 20 ms: what is
mapped from files is the system's to take back and is told apart.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcat.calibration import Calibration
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel, loss
from mmcat.taxonomy import Taxonomy
from training.calibrate import attained
from training.data import Dataset, Row
from training.evaluate import Metrics, measure_answers
from training.export import answers_as_served
from training.fusion import Inputs, learn
from training.progress import Quiet
from training.recipe import FusionRecipe
from training.rows import Draft
from training.splits import frozen_split
from training.store import VALUES, Block, Layout, stored

WIDTH, PATHS = 2_048, 4_215
_BLOCK = 16_384
_LOOK_S = 0.02


class Memory:
    """Peak of RssAnon in bytes, by the stage in which it was reached."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.stage = "start"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_S):
            self.peaks[self.stage] = max(self.peaks.get(self.stage, 0), anonymous_bytes())

    def stop(self) -> dict[str, float]:
        """Gigabytes by stage."""
        self._done.set()
        self._thread.join()
        return {stage: round(peak / 1e9, 2) for stage, peak in self.peaks.items()}


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell RssAnon: Linux is needed")


def taxonomy() -> Taxonomy:
    """A tree of three levels with as many paths as Kakao's."""
    return Taxonomy.from_names((f"b{n % 57}", f"m{n % 552}", f"s{n}") for n in range(PATHS))


def make_dataset(folder: Path, rows: int) -> Dataset:
    """Rows one by one, as a reader adds them; five listings in six are of a group of their own."""
    tree = taxonomy()
    paths = [tuple(node.id for node in path) for path in tree.paths]
    draft = Draft(folder, tree)
    for number in range(rows):
        group = f"group{number - number % 6 if number % 6 == 1 else number}"
        title = f"한립 토이스 직소퍼즐 {number} 피스 {number * 7919 % 104_729}"
        draft.add(
            Row(f"K{number:010d}", title, paths[number * 31 % PATHS], group, None, "한립"), photo=None, line=number
        )
    found, _, _ = draft.finish("made", str.encode)
    return Dataset("made", tree, found)


def vectors_of(rows: range) -> Block:
    """Seeded by the block: cheap to make, and no page like another."""
    noise = np.random.default_rng(rows.start).integers(0, 1 << 10, (len(rows), WIDTH), np.uint16)
    return (noise | np.uint16(0x3800)).view(np.float16), np.ones((len(rows), 1), np.int32)  # 0.5 … 1.0


def photo_model(tree: Taxonomy) -> ModelConfig:
    """The pooled photo model over all paths of the tree."""
    return ModelConfig(tuple(map(len, tree.classes)), "image", px=224, width=768, blocks=1, heads=4)


def train(inputs: Inputs, rows: np.ndarray, steps: int, batch: int) -> dict[str, float]:
    """Steps of AdamW on the pooled photo model; gives seconds of loading and of the rest, by median step."""
    config = photo_model(inputs.taxonomy)
    model = CategoryModel(config, encoders=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator = np.random.default_rng(0)
    loading, whole = [], []
    for _ in range(steps):
        begun = time.perf_counter()
        some = rows[generator.integers(0, len(rows), batch)]
        arguments = inputs.take(some, config)
        targets_B4 = torch.from_numpy(inputs.taxonomy.path_classes[inputs.targets[some]])
        loaded = time.perf_counter()
        step_loss = loss(model.fuse(**arguments), targets_B4)
        optimizer.zero_grad(set_to_none=True)
        step_loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
        loading.append(loaded - begun)
        whole.append(time.perf_counter() - begun)
    return {
        "step_ms": round(1000 * float(np.median(whole)), 2),
        "loading_ms": round(1000 * float(np.median(loading)), 2),
        "loading_share": round(sum(loading) / sum(whole), 4),
        "rows_per_second": round(batch * steps / sum(whole)),
    }


def validate(inputs: Inputs, some: np.ndarray, select: np.ndarray) -> CategoryModel:
    """An epoch of a few rows, and its accuracy on all of `select`: the engine's own way."""
    recipe = FusionRecipe(epochs=1, precision="fp32", enough_steps=1)
    config = photo_model(inputs.taxonomy)
    return learn(config, inputs, some, select, recipe, seed=0, progress=Quiet(), stage="validation").model


def measured(model: CategoryModel, inputs: Inputs, held: np.ndarray) -> Metrics:
    """All figures of the held rows, and what a promise comes to on them."""
    attained(model, inputs, held, Calibration())
    answers = answers_as_served(model, inputs, Calibration(), held)
    return measure_answers(answers, inputs.targets[held], inputs.taxonomy)


def forget(path: Path) -> None:
    """Asks the system to drop a file from its cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, rows: int, steps: int, batch: int, cold: bool) -> dict[str, Any]:
    """The whole run in `folder`; blocks for minutes per million rows."""
    memory, seconds = Memory(), dict[str, float]()

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        memory.stage, begun = stage, time.monotonic()
        result = work()
        seconds[stage] = round(time.monotonic() - begun, 1)
        return result

    data: Dataset = timed("rows", lambda: make_dataset(folder, rows))
    split = timed("split", lambda: frozen_split(data, folder, 0))
    layout = Layout(rows, WIDTH, rows, np.dtype(np.float16), block=_BLOCK)
    features = timed("vectors", lambda: stored(folder / "image-made", layout, vectors_of, Quiet(), "vectors"))
    inputs = Inputs(data.taxonomy, data.targets, image=features)
    train_rows = split.rows("train", data)
    if cold:
        forget(folder / "image-made" / VALUES)
    figures = timed("train", lambda: train(inputs, train_rows, steps, batch))
    select, held = split.rows("select", data), split.rows("test", data)
    model = timed("validate", lambda: validate(inputs, train_rows[: 2 * batch], select))
    timed("measure", lambda: measured(model, inputs, held))
    size_gb = round((folder / "image-made" / VALUES).stat().st_size / 1e9, 2)
    return {
        "rows": rows, "select": len(select), "test": len(held), "vectors_gb": size_gb, "batch": batch, "steps": steps,
        "cold": cold, **figures, "peak_anonymous_gb": memory.stop(), "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the set is made and deleted again; default: temporary files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="mmcat-bench-") as name:
        found = measure(Path(name), arguments.rows, arguments.steps, arguments.batch, arguments.cold)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
