"""Eager's computation compiled, for CUDA: a few shapes, each compiled once and, on CUDA, recorded as a graph.

torch.compile joins what stands between matrix products (Inductor), and a CUDA graph starts all of a run at once: the
many small operations of a listing then wait neither for memory nor for Python. Both want shapes that do not change. So
rows come in runs of `ROWS` and titles in two lengths; what a run lacks is filled up with its first row and cut off
again. Graphs are recorded by hand and not by torch.compile's own trees: these belong to the thread that made them, and
a service makes its engine in one thread and runs it in another. All is made at the start, which takes minutes.

Answers are those of eager.py but for rounding, on a CPU too, where it is tested and OpenVINO is faster (cpu.py). No GPU
was at hand yet: recording is the part that has never run, so "auto" does not take this engine.

After eager.py; before choice.py.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcat.engines.base import Ids
from mmcat.engines.eager import EagerEngine
from mmcat.errors import ModelError
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing

ROWS = (128, 32, 8)
_WARM_UPS = 3  # before a graph is recorded, so that libraries have chosen their kernels and taken their memory
_SHAPES = 64  # of one function, more than there are: beyond its limit torch.compile would give up

Given = Sequence[Tensor | None]  # rows first
Run = Callable[..., list[Tensor]]


class CompiledEngine(EagerEngine):
    """See `engines.base.Engine`.

    Args:
        model, preprocessing, device, precision: as of EagerEngine.
        backend: of torch.compile; "tensorrt" where torch_tensorrt is installed and imported.
        cache: a folder where Inductor keeps its kernels for the next start, of this whole process; None: where it
            always does, under the system's temporary folder.

    Raises:
        ModelError: no such device or precision, or the model cannot be compiled.
    """

    def __init__(
        self,
        model: CategoryModel,
        preprocessing: Preprocessing,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "inductor",
        cache: Path | None = None,
    ) -> None:
        if cache is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # Triton's lie within it
        super().__init__(model, preprocessing, device, precision)
        self.name = f"compiled-{self._device.type}"
        self._lengths = lengths(preprocessing.max_tokens)
        pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None
        eager: dict[str, Run] = {
            "read": lambda ids_RT, mask_RT: [EagerEngine.read(self, ids_RT, mask_RT)],
            "see": lambda pixels_KXXC: [EagerEngine.see(self, pixels_KXXC)],
            "answer": lambda *given: EagerEngine.answer(self, *given),
        }
        self._runs = {
            name: _Runs(torch.compile(run, backend=backend, dynamic=False, fullgraph=True), pool)
            for name, run in eager.items()
        }
        try:
            with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=_SHAPES):
                self._make(preprocessing.px)
        except Exception as error:  # whatever a compiler meets: no Triton, no memory, an encoder of another make
            reason = str(error).partition("\n")[0]
            raise ModelError(f"this model cannot be compiled ({reason}): use engine eager") from error

    def read(self, ids_RT: Tensor, mask_RT: Tensor) -> Tensor:
        """See `EagerEngine.read`."""
        tokens = ids_RT.shape[1]
        longer = (0, self._length(tokens) - tokens)
        return self._runs["read"](F.pad(ids_RT, longer), F.pad(mask_RT, longer))[0][:, :tokens]

    def see(self, pixels_KXXC: Tensor) -> Tensor:
        """See `EagerEngine.see`."""
        return self._runs["see"](pixels_KXXC)[0]

    def answer(
        self,
        text_BTD: Tensor | None,
        image_BND: Tensor | None,
        has_text_B: Tensor,
        has_image_B: Tensor,
        text_mask_BT: Tensor | None,
    ) -> list[Tensor]:
        """See `EagerEngine.answer`."""
        if text_BTD is not None and text_mask_BT is not None:
            longer = (0, self._length(text_mask_BT.shape[1]) - text_mask_BT.shape[1])
            text_BTD, text_mask_BT = F.pad(text_BTD, (0, 0, *longer)), F.pad(text_mask_BT, longer)
        return self._runs["answer"](text_BTD, image_BND, has_text_B, has_image_B, text_mask_BT)

    def _together(self, mask_RT: Ids) -> Iterator[tuple[Ids, int]]:
        """Short titles apart from long ones, of which one would make all of them long."""
        tokens_R, short = mask_RT.sum(axis=1), self._lengths[0]
        for rows, length in ((tokens_R <= short, min(short, mask_RT.shape[1])), (tokens_R > short, mask_RT.shape[1])):
            if rows.any():
                yield np.flatnonzero(rows), length

    def _length(self, tokens: int) -> int:
        return next(length for length in self._lengths if length >= tokens)

    def _make(self, px: int) -> None:
        """Runs each shape once."""
        config = self.model.config
        if config.reads_text:
            # Its library hooks itself into the encoder at the first call, which no compiler sees through.
            super().read(*torch.ones(2, 1, 2, dtype=torch.int64, device=self._device))
        for rows in ROWS:
            there_B = torch.ones(rows, dtype=torch.bool, device=self._device)
            image_BND = text_BTD = None
            if config.reads_image:
                image_BND = self.see(torch.zeros(rows, px, px, 3, dtype=torch.uint8, device=self._device))
            for length in self._lengths:
                mask_BT = torch.ones(rows, length, dtype=torch.int64, device=self._device)
                if config.reads_text:
                    text_BTD = self.read(mask_BT, mask_BT)
                sequence = config.reads_text and config.keys == "sequence"
                self.answer(text_BTD, image_BND, there_B, there_B, mask_BT.bool() if sequence else None)


class _Runs:
    """A compiled function for any number of rows.

    Args:
        pool: memory that all recorded graphs share; None records none.
    """

    def __init__(self, run: Run, pool: Any) -> None:
        self._run, self._pool = run, pool
        self._graphs: dict[tuple[torch.Size | None, ...], _Graph] = {}

    def __call__(self, *given: Tensor | None) -> list[Tensor]:
        rows = next(len(one) for one in given if one is not None)
        found = []
        for run, size in runs(rows):
            filled = [None if one is None else _filled(one[run], size) for one in given]
            # A copy: the memory of a recorded graph is that of the next.
            found.append([one[: run.stop - run.start].clone() for one in self._one(filled)])
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def _one(self, given: Given) -> list[Tensor]:
        if self._pool is None:
            return self._run(*given)
        shape = tuple(None if one is None else one.shape for one in given)
        if shape not in self._graphs:
            self._graphs[shape] = _Graph(self._run, given, self._pool)
        return self._graphs[shape](given)


class _Graph:
    """A run of one shape, recorded once: played again, it reads and writes where it did then."""

    def __init__(self, run: Run, given: Given, pool: Any) -> None:
        self._given = [None if one is None else one.clone() for one in given]
        device = next(one.device for one in given if one is not None)
        with torch.cuda.device(device):
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # theirs
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(_WARM_UPS):
                    run(*self._given)
            torch.cuda.current_stream().wait_stream(beside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=pool):
                self._answered = run(*self._given)

    def __call__(self, given: Given) -> list[Tensor]:
        for own, new in zip(self._given, given, strict=True):
            if own is not None and new is not None:
                own.copy_(new)
        self._graph.replay()
        return self._answered


def lengths(max_tokens: int) -> tuple[int, int]:
    """Tokens of a run: half of the longest title, in eights, as tensor cores like it; and all of it."""
    return min(-(-max_tokens // 16) * 8, max_tokens), max_tokens


def runs(rows: int) -> Iterator[tuple[slice, int]]:
    """Cuts rows into runs, each with its size of `ROWS`: the largest of which they fill more than half."""
    start = 0
    while start < rows:
        size = next((one for one in ROWS if 2 * (rows - start) > one), ROWS[-1])
        yield slice(start, min(rows, start + size)), size
        start += size


def _filled(x: Tensor, size: int) -> Tensor:
    return torch.cat([x, x[:1].expand(size - len(x), *x.shape[1:])]) if len(x) < size else x
