"""Steps 1 and 2 of training from random weights: a text encoder on titles, an image encoder on photos.

Each encoder is trained inside a whole `CategoryModel` of its own modality, so that what comes out is at once the frozen
encoder of the fusion step and the single-modality baseline. The recipe for photos is measured (docs/decisions/0002):
many small steps, AdamW, warm-up then linear decay, zero-initialised residuals, bf16 where the processor multiplies it.

After the readers and splits; before features.py, which runs the trained encoders once. Draws no progress bars: the
caller gets a call per step. CUDA where the model stands there.
"""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmcat.model import CategoryModel, loss
from mmcat.preparation import IMAGENET_MEAN, IMAGENET_STD
from mmcat.text import Tokenizer

Progress = Callable[[int, int, float], None]  # step (from 1), steps, loss of that step
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class EncoderTraining:
    """How an encoder is trained.

    Args:
        steps: optimizer steps; training sees steps · batch rows, reshuffled after each pass.
        lr: highest learning rate, reached after the warm-up; falls to 0 in a line.
        warmup_share: of the steps.
        precision: "auto" is bf16 where it is quick, see `bf16_is_quick`.
    """

    steps: int
    batch: int = 32
    lr: float = 1e-3
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.lr <= 0 or not 0 <= self.warmup_share < 1 or self.weight_decay < 0:
            raise ValueError(f"training out of range: {self}")


def train_text_encoder(
    model: CategoryModel,
    tokenizer: Tokenizer,
    titles: list[str],
    targets: npt.NDArray[np.int64],
    training: EncoderTraining,
    progress: Progress | None = None,
) -> None:
    """Trains a model of modality "text" in place, encoder and heads.

    Args:
        titles: as serving sees them (`mmcat.preparation.listing_text`).
        targets: int64 [len(titles), 4], rows of `Taxonomy.path_classes`.
    """
    device = next(model.parameters()).device

    def logits_of(rows: npt.NDArray[np.int64]) -> list[Tensor]:
        ids_BT, mask_BT = tokenizer.encode([titles[row] for row in rows])
        return model(torch.from_numpy(ids_BT).to(device), torch.from_numpy(mask_BT).to(device), None)  # type: ignore[no-any-return]

    _train(model, logits_of, targets, training, progress)


def train_image_encoder(
    model: CategoryModel,
    pixels: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int64],
    training: EncoderTraining,
    progress: Progress | None = None,
) -> None:
    """Trains a model of modality "image" in place; make it with `zero_init_residual=True`.

    Args:
        pixels: uint8 [rows, px, px, 3], as `mmcat.photos.decode` gives them; rows without a photo are left out before.
        targets: int64 [rows, 4], rows of `Taxonomy.path_classes`.
    """
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)
    mean_C11 = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1) * 255
    std_C11 = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1) * 255

    def logits_of(rows: npt.NDArray[np.int64]) -> list[Tensor]:
        pixels_BCXX = torch.from_numpy(pixels[rows]).to(device).permute(0, 3, 1, 2)  # channels-last without a copy
        return model(None, None, (pixels_BCXX - mean_C11) / std_C11)  # type: ignore[no-any-return]

    _train(model, logits_of, targets, training, progress)


def _train(
    model: CategoryModel,
    logits_of: Callable[[npt.NDArray[np.int64]], list[Tensor]],
    targets: npt.NDArray[np.int64],
    training: EncoderTraining,
    progress: Progress | None,
) -> None:
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_share(step, training))
    bf16 = training.precision == "bf16" or (training.precision == "auto" and bf16_is_quick(device.type))
    targets_R4 = torch.from_numpy(targets).to(device)
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(training.seed)  # dropout
        for step, rows in enumerate(_row_batches(len(targets), training), start=1):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                step_loss = loss(logits_of(rows), targets_R4[torch.from_numpy(rows).to(device)])
            optimizer.zero_grad(set_to_none=True)
            step_loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step, training.steps, float(step_loss.detach()))
    model.eval()


def _lr_share(step: int, training: EncoderTraining) -> float:
    """Warm-up in a line, then down to 0 in a line; step counts from 0."""
    warmup = max(1, round(training.steps * training.warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (training.steps - step) / max(1, training.steps - warmup))


def _row_batches(rows: int, training: EncoderTraining) -> Iterator[npt.NDArray[np.int64]]:
    """`steps` batches; every row once before any row again, short only where there are fewer rows than a batch."""
    generator = np.random.Generator(np.random.Philox(key=training.seed))
    waiting = np.empty(0, np.int64)
    size = min(training.batch, rows)
    for _ in range(training.steps):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, generator.permutation(rows)])
        yield waiting[:size]
        waiting = waiting[size:]


def bf16_is_quick(device_type: str) -> bool:
    """Whether bf16 pays: on CUDA that has it, on processors with instructions for it.

    Elsewhere PyTorch emulates it, several times slower than float32. Asked of the processor and not timed, so that a
    busy machine trains the same model as an idle one.
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.is_file():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
