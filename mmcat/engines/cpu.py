"""The whole model on the CPU without PyTorch's overhead: three graphs, one after the other on all threads.

In float32 with eager PyTorch's answers and quicker than it; several times as quick in bf16, where the CPU has it, and
in int8, where the bundle was calibrated (docs/decisions/0016-cpu-engine.md). Titles run in the order of their length,
each run no longer than its longest, but for rounding: the first run of a shape takes a few hundredths of a second more,
so there are not many shapes.

After graphs.py and int8.py; before choice.py.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.engines.base import WHOLE, Batch, Encoded, Vectors, padded, text_mask
from mmcat.engines.graphs import Array, Graph, convert, cut, export, parts
from mmcat.engines.int8 import Quantized
from mmcat.errors import ModelError
from mmcat.family import ModelConfig
from mmcat.preparation import Preprocessing
from mmcat.weights import Weights

_ENCODED, _FUSED = 16, 64  # rows of one run at most: bounds memory; an encoder's weights stay in the caches
_TOKENS = 4  # lengths of runs are multiples of it


class CpuEngine:
    """See `engines.base.Engine`.

    Args:
        folder: where the graphs are; mapped into memory, so their files may be removed, but must not be written.
        threads: of every run.
        precision: of the encoders, "fp32", "bf16" or "int8"; the fusion computes in fp32, as it does in eager.py.
        quantized: the encoders in int8, where that is the precision.

    Raises:
        ModelError: a graph cannot be run.
    """

    name = "openvino-cpu"

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        threads: int,
        precision: str = "fp32",
        quantized: Quantized | None = None,
    ) -> None:
        self._config, self.precision, self.numerics = config, precision, precision
        sources: dict[str, Path | tuple[bytes, bytes]] = {file.stem: file for file in sorted(folder.glob("*.xml"))}
        if quantized is not None:
            self.numerics = f"{precision} {quantized.digest}"
            sources |= quantized.graphs
        self._graphs = {
            name: Graph(source, "fp32" if name == "fusion" else precision, threads) for name, source in sources.items()
        }

    @classmethod
    def load(
        cls,
        weights: Weights,
        preprocessing: Preprocessing,
        threads: int,
        cache: Path | None = None,
        precision: str = "fp32",
        quantized: Quantized | None = None,
    ) -> "CpuEngine":
        """Makes the graphs of a model, or finds them; blocks for ten seconds or two.

        Args:
            weights: a model is built of them only where graphs have to be made.
            cache: this model's own folder for them, of whatever precision; None keeps nothing.

        Raises:
            ModelError: the model cannot be exported, or the folder cannot be written.
        """
        if cache is not None:
            return cls(_kept(cache, weights, preprocessing), weights.config, threads, precision, quantized)
        with tempfile.TemporaryDirectory(prefix="mmcat-engine-") as folder:
            _make(Path(folder), weights, preprocessing)
            return cls(Path(folder), weights.config, threads, precision, quantized)

    def encode(self, batch: Batch) -> Encoded:
        """See `Engine.encode`."""
        text_BTD, new_RTD, mask_BT = self._text(batch)
        image_BND, new_KND = self._image(batch)
        return Encoded(text_BTD, mask_BT, image_BND, batch.has_text, batch.has_image, new_RTD, new_KND)

    def fuse(self, encoded: Encoded, shown: Sequence[tuple[bool, bool]] = WHOLE) -> list[list[npt.NDArray[Any]]]:
        """See `Engine.fuse`."""
        given = {"text_BTD": encoded.text, "mask_BT": encoded.text_mask, "image_BND": encoded.image}
        inputs = {name: value for name, value in given.items() if value is not None}
        return [self._fuse({**inputs, **_hidden(encoded, *shows)}) for shows in shown]

    def _text(self, batch: Batch) -> tuple[Array | None, Vectors | None, Array | None]:
        """[B, T, D], the half-precision vectors of what was read now, and where the tokens are."""
        if not self._config.reads_text:
            return None, None, None
        if batch.ids is None or batch.mask is None:
            raise ModelError("this model reads titles and the batch has no token ids")
        sequence = self._config.keys == "sequence"
        tokens = max([batch.mask.shape[1], *map(len, batch.known_text)]) if sequence else 1
        new_RTD = np.zeros((len(batch.ids), tokens, self._config.text_width), np.float32)
        lengths_R = batch.mask.sum(1)
        by_length_R = np.argsort(lengths_R, kind="stable")
        for run in cut(len(by_length_R), _ENCODED):
            rows = by_length_R[run]
            length = -(-int(lengths_R[rows].max()) // _TOKENS) * _TOKENS  # a slice ends where the batch does
            inputs = {"ids_KT": batch.ids[rows, :length], "mask_KT": batch.mask[rows, :length]}
            found_KTD = self._graphs["text"](inputs)[0]
            new_RTD[rows, : found_KTD.shape[1]] = found_KTD
        text_BTD, kept_RTD = _chosen(new_RTD, batch.known_text, batch.text_rows, batch.keep)
        return text_BTD, kept_RTD, text_mask(batch, tokens) if sequence else None

    def _image(self, batch: Batch) -> tuple[Array | None, Vectors | None]:
        if not self._config.reads_image:
            return None, None
        pixels_KXXC = np.zeros(0, np.uint8) if batch.pixels is None else batch.pixels
        new_KND = np.zeros((len(pixels_KXXC), self._config.image_cells, self._config.image_width), np.float32)
        for run in cut(len(pixels_KXXC), _ENCODED):
            new_KND[run] = self._graphs["image"]({"pixels_KXXC": pixels_KXXC[run]})[0]
        return _chosen(new_KND, batch.known_image, batch.image_rows, batch.keep)

    def _fuse(self, inputs: Mapping[str, Array]) -> list[npt.NDArray[Any]]:
        rows = len(next(iter(inputs.values())))
        answered = [
            self._graphs["fusion"]({name: value[run] for name, value in inputs.items()}) for run in cut(rows, _FUSED)
        ]
        return [np.concatenate(level) for level in zip(*answered, strict=True)]


def _hidden(encoded: Encoded, with_text: bool, with_image: bool) -> dict[str, Array]:
    return {"has_text_B": encoded.has_text & with_text, "has_image_B": encoded.has_image & with_image}


def _chosen(new_KLD: Array, known: Sequence[Vectors], rows_B: Array, keep: bool) -> tuple[Array, Vectors | None]:
    """Each listing's vectors, and the new ones in half precision if they are to be kept."""
    kept_KLD = None
    if keep:
        with np.errstate(over="ignore"):
            kept_KLD = new_KLD.astype(np.float16)
        new_KLD = np.where(np.isfinite(kept_KLD), kept_KLD, new_KLD)
    none_1LD = np.zeros((1, *new_KLD.shape[1:]), np.float32)  # row -1: what is missing
    return np.concatenate([new_KLD, padded(known, *new_KLD.shape[1:]), none_1LD])[rows_B], kept_KLD


def _make(folder: Path, weights: Weights, preprocessing: Preprocessing) -> None:
    for name, part in parts(weights.model, preprocessing).items():
        export(part, folder / f"{name}.onnx")
        convert(folder / f"{name}.onnx")


def _kept(cache: Path, weights: Weights, preprocessing: Preprocessing) -> Path:
    """The folder with the graphs, made beside and renamed where there is none; two makers do not meet."""
    folder = cache / "graphs"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".graphs.", dir=cache) as beside:
            made = Path(beside) / "graphs"
            made.mkdir()
            _make(made, weights, preprocessing)
            made.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker
            raise ModelError(f"{cache} cannot keep the engine's graphs ({error}): mend MMCAT_HOME") from error
    return folder
