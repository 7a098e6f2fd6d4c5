"""How much quicker a fusion learns on cached features than with its frozen encoders run in each step.

    python -m tests.benchmarks.train_speed [--shape seed|fashion] [--pairs 5] [--steps 40] [--device auto] [--json]

Two ways to train one model: `cached` reads features computed once; `research` runs the frozen encoders on each batch.
Both go through training.engine. Shapes:

    seed     the research code's: BERT-base, 30 tokens, pooled, run in each step; photo vectors given in both ways;
             57 / 552 / 3,190 / 404 classes; 6 blocks, 4 heads, width 768
    fashion  recipe fashion_cpu with a sequence of keys: MiniLM's 12 tokens, 4 × 4 cells of 128 px and layer3;
             `research` runs MiniLM and ResNet50
    small    tiny: for seeing that it runs

Runs come in interleaved pairs; the ratio's median has a 95 % bootstrap interval over pairs. Weights are random.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmcat.cli.benchmarks.intervals import median, ratio
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel, ImageEncoder, TextEncoder
from mmcat.taxonomy import Taxonomy
from training.engine import fit
from training.features import Features
from training.fusion import Inputs, learn
from training.hardware import device_of
from training.order import Dice, Rows
from training.progress import Quiet
from training.recipe import FusionRecipe
from training.task import Arguments, Task


@dataclass(frozen=True, slots=True)
class Shape:
    """One model and its batch."""

    bert: dict[str, Any]
    pooling: Literal["pooler", "layers"]
    tokens: int
    width: int
    blocks: int
    heads: int
    batch: int
    paths: int
    grid: int = 1

    @property
    def sequence(self) -> bool:
        return self.grid > 1


def _bert(vocabulary: int, width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "bert", "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": 4 * width, "max_position_embeddings": 512,
    }  # fmt: skip


SHAPES = {
    "seed": Shape(_bert(42_000, 768, 12, 12), "pooler", 30, 768, 6, 4, 128, 3_189),
    "fashion": Shape(_bert(30_522, 384, 6, 12), "layers", 12, 384, 2, 4, 128, 215, grid=4),
    "small": Shape(_bert(500, 64, 2, 2), "pooler", 30, 64, 2, 2, 16, 300),
}


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


class _EachStep(nn.Module):
    """A model whose frozen encoders run on each batch; a photo vector that is given is taken as it is."""

    def __init__(self, model: CategoryModel) -> None:
        super().__init__()
        self.model = model
        for encoder in (model.text_encoder, model.image_encoder):
            if encoder is not None:
                encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> "_EachStep":
        super().train(mode)
        for encoder in (self.model.text_encoder, self.model.image_encoder):
            if encoder is not None:
                encoder.eval()
        return self

    def forward(self, ids_BT: Tensor, pixels_BCXX: Tensor | None, image_BND: Tensor | None) -> list[Tensor]:
        with torch.no_grad():
            text_BTD = self.model.encode_text(ids_BT, torch.ones_like(ids_BT))
            if pixels_BCXX is not None:
                image_BND = self.model.encode_image(pixels_BCXX)
        return self.model.fuse(text_BTD, image_BND)


class Bench:
    """The data and the model's shape, made once."""

    def __init__(self, shape: Shape, steps: int, device: str) -> None:
        self.shape, self.device = shape, device
        rows = (40 if not shape.sequence else 4) * shape.batch  # a few batches of photos stand for all
        draw = np.random.default_rng(0)
        paths = [(f"b{n % 57}", f"m{n % 551}", f"s{n}", f"d{n % 403}") for n in range(shape.paths)]
        taxonomy = Taxonomy.from_names(paths)
        self.config = ModelConfig(
            tuple(map(len, taxonomy.classes)), text_encoder=shape.bert, text_pooling=shape.pooling,
            keys="sequence" if shape.sequence else "pooled", px=32 * shape.grid if shape.sequence else 224,
            grid=shape.grid, image_layers="layer3+layer4" if shape.sequence else "layer4",
            width=shape.width, blocks=shape.blocks, heads=shape.heads,
        )  # fmt: skip
        text = self._features(draw, rows, shape.tokens if shape.sequence else 1, self.config.text_width)
        image = self._features(draw, rows, self.config.image_cells, self.config.image_width)
        self.inputs = Inputs(taxonomy, draw.integers(0, len(paths), rows), text, image)
        self.ids = draw.integers(5, shape.bert["vocab_size"], (rows, shape.tokens))
        px = self.config.px if shape.sequence else 1
        self.pixels = torch.from_numpy(draw.normal(size=(rows, 3, px, px)).astype(np.float32))
        self.pixels = self.pixels.to(memory_format=torch.channels_last)
        self.recipe = FusionRecipe(
            width=shape.width, blocks=shape.blocks, heads=shape.heads, steps=steps, batch=shape.batch, patience=None,
            enough_steps=1, optimizer="radam", precision="fp32",
        )  # fmt: skip
        self.rows = np.arange(rows)

    @staticmethod
    def _features(draw: np.random.Generator, rows: int, places: int, width: int) -> Features:
        vectors, there = draw.normal(size=(rows * places, width)).astype(np.float16), np.ones(rows, np.bool_)
        if places == 1:
            return Features(vectors, there)
        starts = np.arange(rows, dtype=np.int64)[:, None] * places
        return Features(vectors, there, starts, np.full((rows, 1), places, np.int32), least=places)

    def cached(self) -> float:
        """Rows per second on features."""
        clock = _Clock()
        learn(
            self.config, self.inputs, self.rows, self.rows[:0], self.recipe,
            seed=0, progress=clock, stage="cached", device=self.device,
        )  # fmt: skip
        return clock.rows_per_s(self.recipe.batch)

    def research(self) -> float:
        """Rows per second with the encoders run on every batch."""
        model = CategoryModel(self.config, encoders=False)
        shape = self.shape
        model.text_encoder = TextEncoder(shape.bert, shape.pooling, not shape.sequence)
        if shape.sequence:
            model.image_encoder = ImageEncoder("v1.5", self.config.image_layers, shape.grid)
            model.image_encoder.to(memory_format=torch.channels_last)

        def arguments(rows: Rows, _: Dice | None) -> Arguments:
            taken = {"pixels_BCXX": None} | self.inputs.take(rows, self.config)
            if shape.sequence:
                taken |= {"pixels_BCXX": self.pixels[rows], "image_BND": None}
            read = ("pixels_BCXX", "image_BND")
            return {"ids_BT": torch.from_numpy(self.ids[rows])} | {name: taken[name] for name in read}

        clock = _Clock()
        task = Task(_EachStep(model), arguments, self.inputs.taxonomy, self.inputs.targets, self.rows, self.rows[:0])
        fit(task, self.recipe, seed=0, stage="research", progress=clock, device=self.device)
        return clock.rows_per_s(self.recipe.batch)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training on cached features against running encoders in each step.")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="seed")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="of each run, the first 10 of which warm up")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    bench = Bench(SHAPES[given.shape], given.steps, device_of(given.device))
    pairs = [(bench.cached(), bench.research()) for _ in range(given.pairs)]
    found = summary(pairs) | {"device": bench.device, "threads": torch.get_num_threads(), "shape": given.shape}
    if given.json:
        print(json.dumps(found, default=asdict))
        return
    print(f"cached   {found['cached_rows_per_s']:>10,.0f} rows/s")
    print(f"research {found['research_rows_per_s']:>10,.0f} rows/s")
    print(f"ratio    {found['ratio']}")


def summary(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Medians, and their ratio."""
    cached, research = zip(*pairs, strict=True)
    return {
        "cached_rows_per_s": median(cached).median,
        "research_rows_per_s": median(research).median,
        "ratio": ratio(cached, research),
    }


if __name__ == "__main__":
    main()
