"""The whole model on the CPU without PyTorch's overhead: three ONNX graphs, each cut over all threads.

Twice as fast as eager PyTorch with the same float32 answers (docs/decisions/0016-cpu-engine.md). Titles run in the
order of their length, each run no longer than its longest, and photos beside them, so that even a single listing keeps
two threads busy. A shape that was not seen before costs nothing more here, so there are no buckets of shapes to warm.

After graphs.py; before choice.py.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.engines.base import Batch
from mmcat.engines.graphs import Array, Graph, cut, export, parts
from mmcat.errors import ModelError
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing

_ENCODED, _FUSED = 8, 32  # rows of one run: few for the encoders, more where weights outweigh the rows


class CpuEngine:
    """See `engines.base.Engine`.

    Args:
        folder: where `made` has put the graphs; not read after this.
        threads: runs at once.

    Raises:
        ModelError: a graph cannot be run.
    """

    name, precision = "onnxruntime-cpu", "fp32"

    def __init__(self, folder: Path, config: ModelConfig, threads: int) -> None:
        self._config, self._threads = config, threads
        pool = ThreadPoolExecutor(threads, thread_name_prefix="cpu-engine")
        self._graphs = {file.stem: Graph(file, pool) for file in sorted(folder.glob("*.onnx"))}

    @classmethod
    def load(
        cls, model: CategoryModel, preprocessing: Preprocessing, threads: int, cache: Path | None = None
    ) -> "CpuEngine":
        """Makes the graphs of a model, or finds them; blocks for ten seconds or two.

        Args:
            cache: this model's own folder for them; None keeps nothing.

        Raises:
            ModelError: the model cannot be exported, or the folder cannot be written.
        """
        if cache is not None:
            return cls(_kept(cache, model, preprocessing), model.config, threads)
        with tempfile.TemporaryDirectory(prefix="mmcat-engine-") as folder:
            _make(Path(folder), model, preprocessing)
            return cls(Path(folder), model.config, threads)

    def logits(self, batch: Batch) -> list[npt.NDArray[Any]]:
        """See `Engine.logits`."""
        return self.ablations(batch, [(True, True)])[0]

    def ablations(self, batch: Batch, shown: Sequence[tuple[bool, bool]]) -> list[list[npt.NDArray[Any]]]:
        """See `Engine.ablations`."""
        encoded = self._encode(batch)
        return [self._fuse({**encoded, **_hidden(batch, *shows)}) for shows in shown]

    def _encode(self, batch: Batch) -> dict[str, Array]:
        """Inputs of the fusion, but for which of them it is shown; zeros where a modality is missing."""
        photos = list(self._photo_runs(batch)) if self._config.reads_image else []
        titles = list(self._title_runs(batch)) if self._config.reads_text else []
        seen = self._graphs["image"].start([run for _, run in photos]) if photos else []
        read = self._graphs["text"].start([run for _, run in titles]) if titles else []
        found: dict[str, Array] = {}
        if self._config.reads_text:
            found |= self._text(batch, [rows for rows, _ in titles], read)
        if self._config.reads_image:
            shape = (len(batch), self._config.image_cells, self._config.image_width)
            found["image_BND"] = _gathered(shape, [rows for rows, _ in photos], seen)
        return found

    def _photo_runs(self, batch: Batch) -> Iterator[tuple[Array, Mapping[str, Array]]]:
        """Rows of the batch, and what the encoder reads of them."""
        if batch.pixels is None:
            return
        rows_K = np.flatnonzero(batch.has_image)
        for run in cut(len(rows_K), self._threads, _ENCODED):
            yield rows_K[run], {"pixels_KXXC": batch.pixels[run]}

    def _title_runs(self, batch: Batch) -> Iterator[tuple[Array, Mapping[str, Array]]]:
        """By length, so that few are padded far."""
        if batch.ids is None or batch.mask is None:
            raise ModelError("this model reads titles and the batch has no token ids")
        lengths_B = batch.mask.sum(1)
        rows_K = np.flatnonzero(batch.has_text)
        rows_K = rows_K[np.argsort(lengths_B[rows_K], kind="stable")]
        for run in cut(len(rows_K), self._threads, _ENCODED):
            rows = rows_K[run]
            tokens = int(lengths_B[rows].max())
            yield rows, {"ids_KT": batch.ids[rows, :tokens], "mask_KT": batch.mask[rows, :tokens]}

    def _text(self, batch: Batch, rows: Sequence[Array], read: Sequence[Future[Sequence[Array]]]) -> dict[str, Array]:
        sequence = self._config.keys == "sequence"
        assert batch.mask is not None  # noqa: S101  the runs were made of it
        tokens = batch.mask.shape[1] if sequence else 1
        text_BTD = _gathered((len(batch), tokens, self._config.text_width), rows, read)
        return {"text_BTD": text_BTD, "mask_BT": batch.mask.astype(np.bool_)}

    def _fuse(self, inputs: Mapping[str, Array]) -> list[npt.NDArray[Any]]:
        rows = len(next(iter(inputs.values())))
        runs = [{name: value[run] for name, value in inputs.items()} for run in cut(rows, self._threads, _FUSED)]
        answered = [future.result() for future in self._graphs["fusion"].start(runs)]
        return [np.concatenate(level) for level in zip(*answered, strict=True)]


def _hidden(batch: Batch, with_text: bool, with_image: bool) -> dict[str, Array]:
    return {"has_text_B": batch.has_text & with_text, "has_image_B": batch.has_image & with_image}


def _gathered(shape: tuple[int, int, int], rows: Sequence[Array], runs: Sequence[Future[Sequence[Array]]]) -> Array:
    x_BLD = np.zeros(shape, np.float32)
    for some, future in zip(rows, runs, strict=True):
        x_KLD = future.result()[0]
        x_BLD[some, : x_KLD.shape[1]] = x_KLD
    return x_BLD


def _make(folder: Path, model: CategoryModel, preprocessing: Preprocessing) -> None:
    for name, part in parts(model, preprocessing).items():
        export(part, folder / f"{name}.onnx")


def _kept(cache: Path, model: CategoryModel, preprocessing: Preprocessing) -> Path:
    """The folder with the graphs, made beside and renamed where there is none; two makers do not meet."""
    folder = cache / "graphs"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".graphs.", dir=cache) as beside:
            made = Path(beside) / "graphs"
            made.mkdir()
            _make(made, model, preprocessing)
            made.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker
            raise ModelError(f"{cache} cannot keep the engine's graphs ({error}): mend MMCAT_HOME") from error
    return folder
