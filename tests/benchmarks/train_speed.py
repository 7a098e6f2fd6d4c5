"""How much quicker a fusion learns on cached features than with its text encoder run in each step.

    python -m tests.benchmarks.train_speed [--small] [--pairs 5] [--steps 40] [--device auto] [--json]

Two ways to train one model, the shape of the research code (BERT-base, 30 tokens, pooled; photo vectors given; 57 /
552 / 3,190 / 404 classes; 6 blocks, 4 heads, width 768): `cached` reads text vectors computed once; `research`
runs the frozen text encoder on each batch, as the research code does. Both go through training.engine. Runs come in
interleaved pairs; the ratio's median has a 95 % bootstrap interval over pairs. `--small` is for seeing that it runs.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel, TextEncoder
from mmcat.taxonomy import Taxonomy
from training.engine import fit
from training.features import Features
from training.fusion import Inputs, learn
from training.hardware import device_of
from training.order import Dice, Rows
from training.progress import Quiet
from training.recipe import FusionRecipe, Tune
from training.task import Arguments, Task
from training.tune import Tuned

TOKENS, RESAMPLES = 30, 10_000
BERT: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 42_000, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3_072, "max_position_embeddings": 512,
}  # fmt: skip
SMALL_BERT = BERT | {
    "vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
}  # fmt: skip


class _Clock(Quiet):
    """Time from the first step that is told of to the last: what comes before them is not learning."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []
        self.step = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.step += count
        self.marks.append((self.step, time.perf_counter()))

    def rows_per_s(self, batch: int) -> float:
        (first, begun), (last, ended) = self.marks[0], self.marks[-1]
        return (last - first) * batch / (ended - begun)


class Bench:
    """The data and the model's shape, made once."""

    def __init__(self, small: bool, batch: int, steps: int, device: str) -> None:
        self.bert, self.device = SMALL_BERT if small else BERT, device
        rows, text_width = 40 * batch, self.bert["hidden_size"]
        generator = np.random.default_rng(0)
        paths = [(f"b{n % 57}", f"m{n % 551}", f"s{n}", f"d{n % 403}") for n in range(300 if small else 3_189)]
        there = np.ones(rows, np.bool_)
        text = Features(generator.normal(size=(rows, text_width)).astype(np.float16), there)
        image = Features(generator.normal(size=(rows, 2_048)).astype(np.float16), there)
        self.inputs = Inputs(Taxonomy.from_names(paths), generator.integers(0, len(paths), rows), text, image)
        self.ids = generator.integers(5, self.bert["vocab_size"], (rows, TOKENS))
        width, blocks, heads = (64, 2, 2) if small else (768, 6, 4)
        self.recipe = FusionRecipe(
            width=width, blocks=blocks, heads=heads, steps=steps, batch=batch, patience=None, few_steps=True,
            optimizer="radam",
        )  # fmt: skip
        self.config = ModelConfig(
            tuple(map(len, self.inputs.taxonomy.classes)), text_encoder=self.bert, text_pooling="pooler",
            width=width, blocks=blocks, heads=heads,
        )  # fmt: skip
        self.rows = np.arange(rows)

    def cached(self) -> float:
        """Rows per second on features."""
        clock = _Clock()
        learn(
            self.config, self.inputs, self.rows, self.rows[:0], self.recipe,
            seed=0, progress=clock, stage="cached", device=self.device,
        )  # fmt: skip
        return clock.rows_per_s(self.recipe.batch)

    def research(self) -> float:
        """Rows per second with the text encoder run on every batch."""
        model = CategoryModel(self.config, encoders=False)
        model.text_encoder = TextEncoder(self.bert, "pooler").requires_grad_(False)

        def arguments(rows: Rows, _: Dice | None) -> Arguments:
            ids_BT = torch.from_numpy(self.ids[rows])
            found = self.inputs.take(rows, self.config) | {"text_BTD": None, "text_mask_BT": None}
            return found | {"ids_BT": ids_BT, "mask_BT": torch.ones_like(ids_BT)}

        clock = _Clock()
        task = Task(
            Tuned(model, Tune(), None), arguments, self.inputs.taxonomy, self.inputs.targets, self.rows, self.rows[:0]
        )
        fit(task, self.recipe, seed=0, stage="research", progress=clock, device=self.device)
        return clock.rows_per_s(self.recipe.batch)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training on cached features against running BERT in each step.")
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of each run, the first 10 of which warm up")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    bench = Bench(given.small, given.batch, given.steps, device_of(given.device))
    pairs = np.array([(bench.cached(), bench.research()) for _ in range(given.pairs)])
    found = summary(pairs) | {"device": bench.device, "threads": torch.get_num_threads(), "small": given.small}
    if given.json:
        print(json.dumps(found))
        return
    print(f"cached   {found['cached_rows_per_s']:>10,.0f} rows/s")
    print(f"research {found['research_rows_per_s']:>10,.0f} rows/s")
    print(f"ratio    {found['ratio']:>10.1f}  95 % interval {found['interval'][0]:.1f} to {found['interval'][1]:.1f}")


def summary(pairs: np.ndarray) -> dict[str, Any]:
    """Medians, and the median ratio with its interval: pairs resampled with replacement."""
    ratios = pairs[:, 0] / pairs[:, 1]
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "cached_rows_per_s": float(np.median(pairs[:, 0])),
        "research_rows_per_s": float(np.median(pairs[:, 1])),
        "ratio": float(np.median(ratios)),
        "interval": [float(low), float(high)],
        "pairs": len(pairs),
    }


if __name__ == "__main__":
    main()
