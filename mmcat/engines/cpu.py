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

from mmcat.engines.base import WHOLE, Batch, Encoded, Vectors, padded, text_mask
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

    def encode(self, batch: Batch) -> Encoded:
        """See `Engine.encode`."""
        photos = list(self._photo_runs(batch)) if self._config.reads_image else []
        titles = list(self._title_runs(batch)) if self._config.reads_text else []
        seen = self._graphs["image"].start([run for _, run in photos]) if photos else []
        read = self._graphs["text"].start([run for _, run in titles]) if titles else []
        text_BTD, new_RTD, mask_BT = self._text(batch, [rows for rows, _ in titles], read)
        image_BND, new_KND = self._image(batch, [rows for rows, _ in photos], seen)
        return Encoded(text_BTD, mask_BT, image_BND, batch.has_text, batch.has_image, new_RTD, new_KND)

    def fuse(self, encoded: Encoded, shown: Sequence[tuple[bool, bool]] = WHOLE) -> list[list[npt.NDArray[Any]]]:
        """See `Engine.fuse`."""
        given = {"text_BTD": encoded.text, "mask_BT": encoded.text_mask, "image_BND": encoded.image}
        inputs = {name: value for name, value in given.items() if value is not None}
        return [self._fuse({**inputs, **_hidden(encoded, *shows)}) for shows in shown]

    def _photo_runs(self, batch: Batch) -> Iterator[tuple[slice, Mapping[str, Array]]]:
        """Rows of the photos, and what the encoder reads of them."""
        if batch.pixels is not None:
            for run in cut(len(batch.pixels), self._threads, _ENCODED):
                yield run, {"pixels_KXXC": batch.pixels[run]}

    def _title_runs(self, batch: Batch) -> Iterator[tuple[Array, Mapping[str, Array]]]:
        """By length, so that few are padded far."""
        if batch.ids is None or batch.mask is None:
            raise ModelError("this model reads titles and the batch has no token ids")
        lengths_R = batch.mask.sum(1)
        rows_R = np.argsort(lengths_R, kind="stable")
        for run in cut(len(rows_R), self._threads, _ENCODED):
            rows = rows_R[run]
            tokens = int(lengths_R[rows].max())
            yield rows, {"ids_KT": batch.ids[rows, :tokens], "mask_KT": batch.mask[rows, :tokens]}

    def _text(
        self, batch: Batch, rows: Sequence[Array], read: Sequence[Future[Sequence[Array]]]
    ) -> tuple[Array | None, Vectors | None, Array | None]:
        """[B, T, D], the half-precision vectors of what was read now, and where the tokens are."""
        if batch.mask is None or not self._config.reads_text:
            return None, None, None
        if self._config.keys != "sequence":
            new_R1D = _gathered((len(batch.mask), 1, self._config.text_width), rows, read)
            return *_chosen(new_R1D, batch.known_text, batch.text_rows, batch.keep), None
        tokens = max([batch.mask.shape[1], *map(len, batch.known_text)])
        new_RTD = _gathered((len(batch.mask), tokens, self._config.text_width), rows, read)
        text_BTD, kept_RTD = _chosen(new_RTD, batch.known_text, batch.text_rows, batch.keep)
        return text_BTD, kept_RTD, text_mask(batch, tokens)

    def _image(
        self, batch: Batch, rows: Sequence[slice], seen: Sequence[Future[Sequence[Array]]]
    ) -> tuple[Array | None, Vectors | None]:
        if not self._config.reads_image:
            return None, None
        count = 0 if batch.pixels is None else len(batch.pixels)
        new_KND = _gathered((count, self._config.image_cells, self._config.image_width), rows, seen)
        return _chosen(new_KND, batch.known_image, batch.image_rows, batch.keep)

    def _fuse(self, inputs: Mapping[str, Array]) -> list[npt.NDArray[Any]]:
        rows = len(next(iter(inputs.values())))
        runs = [{name: value[run] for name, value in inputs.items()} for run in cut(rows, self._threads, _FUSED)]
        answered = [future.result() for future in self._graphs["fusion"].start(runs)]
        return [np.concatenate(level) for level in zip(*answered, strict=True)]


def _hidden(encoded: Encoded, with_text: bool, with_image: bool) -> dict[str, Array]:
    return {"has_text_B": encoded.has_text & with_text, "has_image_B": encoded.has_image & with_image}


def _gathered(
    shape: tuple[int, int, int], rows: Sequence[Array | slice], runs: Sequence[Future[Sequence[Array]]]
) -> Array:
    x_KLD = np.zeros(shape, np.float32)
    for some, future in zip(rows, runs, strict=True):
        found_KLD = future.result()[0]
        x_KLD[some, : found_KLD.shape[1]] = found_KLD
    return x_KLD


def _chosen(new_KLD: Array, known: Sequence[Vectors], rows_B: Array, keep: bool) -> tuple[Array, Vectors | None]:
    """Each listing's vectors, and the new ones in half precision if they are to be kept."""
    kept_KLD = None
    if keep:
        with np.errstate(over="ignore"):
            kept_KLD = new_KLD.astype(np.float16)
        new_KLD = np.where(np.isfinite(kept_KLD), kept_KLD, new_KLD)
    none_1LD = np.zeros((1, *new_KLD.shape[1:]), np.float32)  # row -1: what is missing
    return np.concatenate([new_KLD, padded(known, *new_KLD.shape[1:]), none_1LD])[rows_B], kept_KLD


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
