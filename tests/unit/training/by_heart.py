"""A fusion that learns a few rows of noise by heart: the smallest thing that the engine can train.

`in_a_process` runs it elsewhere, so that a test can kill it and start it again, or start several at once.
"""

import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from mmcat.family import ModelConfig
from mmcat.taxonomy import Taxonomy
from training.features import Features
from training.fusion import Inputs, Learned, learn
from training.hardware import processes
from training.progress import Quiet
from training.recipe import FusionRecipe
from training.task import NOTHING, Keep

PATHS = [("a",), ("a", "x"), ("b", "x", "y"), ("b", "z", "y", "w")]
COUNT = 16
ROWS = np.arange(COUNT)
STEPS_PER_EPOCH = 2  # of `recipe`


def inputs(spoilt: bool = False) -> Inputs:
    """Sixteen rows whose features are noise: they can be learned by heart and no other way."""
    generator = np.random.default_rng(0)
    there = np.ones(COUNT, np.bool_)
    text = generator.normal(size=(COUNT, 16)).astype(np.float32)
    image = generator.normal(size=(COUNT, 2048)).astype(np.float32)
    if spoilt:
        text[3] = np.nan
    return Inputs(Taxonomy.from_names(PATHS), ROWS % 4, Features(text, there), Features(image, there))


def config(fusion: str = "cross", dropout: float = 0.0) -> ModelConfig:
    classes = tuple(map(len, Taxonomy.from_names(PATHS).classes))
    bert = {"model_type": "bert", "hidden_size": 16}
    whole = ModelConfig(classes, text_encoder=bert, px=32, width=16, blocks=1, heads=2, dropout=dropout)
    return ModelConfig.from_json(whole.to_json() | {"fusion": fusion})


def recipe(**changes: Any) -> FusionRecipe:
    values = {"width": 16, "blocks": 1, "heads": 2, "epochs": 40, "batch": 8, "lr": 0.01, "missing": 0.0}
    return FusionRecipe.model_validate({**values, "precision": "fp32", "enough_steps": 1, **changes})


def learned(
    changes: FusionRecipe, *, seed: int = 0, dropout: float = 0.0, progress: Quiet | None = None, keep: Keep = NOTHING
) -> Learned:
    """A trained model of these rows."""
    return learn(
        config(dropout=dropout), inputs(), ROWS, ROWS, changes,
        seed=seed, progress=progress or Quiet(), stage="by heart", keep=keep,
    )  # fmt: skip


class _Reports(Quiet):
    """Sends each step's number, and waits at one for an answer that never comes."""

    def __init__(self, connection: Connection, hang_at: int) -> None:
        self.step, self.connection, self.hang_at = 0, connection, hang_at

    def advance(self, count: int = 1, note: str = "") -> None:
        self.step += count
        self.connection.send(self.step)
        if count and self.step == self.hang_at:
            self.connection.recv()


def in_a_process(
    out: Path,
    *,
    epochs: int,
    dropout: float = 0.0,
    checkpoints: Path | None = None,
    resume: bool = False,
    hang_at: int = 0,
    environment: Mapping[str, str] | None = None,
) -> tuple[ForkServerProcess, Connection]:
    """Starts a run in a process of its own that writes its weights to `out`; and where it sends each step's number.

    Its parent is a server that has torch imported, and has never used a thread of it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    keep = Keep(checkpoints=checkpoints, identity={"recipe": "by heart"}, resume=resume, every=5)
    process = context.Process(target=_run, args=(out, epochs, dropout, keep, theirs, hang_at, dict(environment or {})))
    process.start()
    theirs.close()
    return process, ours


def _run(
    out: Path,
    epochs: int,
    dropout: float,
    keep: Keep,
    connection: Connection,
    hang_at: int,
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)
    world = processes("cpu")
    values = recipe(epochs=epochs, missing=0.3, ema=0.9, clip=1.0, accumulate=2)
    model = learned(values, dropout=dropout, progress=_Reports(connection, hang_at), keep=keep).model
    if world.is_main_process:
        save_file(model.state_dict(), str(out))
    world.destroy_process_group()
