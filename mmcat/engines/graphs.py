"""Parts of a model as graphs: exported from PyTorch once, kept on disk, run by OpenVINO on every core.

    part of a CategoryModel ── export ──> NAME.onnx ── convert ──> NAME.xml, NAME.bin ─┐
                                            └────────────────────────────────────────┴─ Graph, fp32 or bf16

The parts are the two encoders and the fusion, apart, because listings without a title or a photo skip an encoder, and
evidence asks the fusion several times. One graph has one stream: all threads work on one run of rows. With two streams,
each a thread of its own, OpenVINO hung or corrupted its memory where shapes change from run to run
(docs/decisions/0016-cpu-engine.md). OpenVINO and onnx are the extra `cpu`; `missing` says whether it is there.

After model.py; before cpu.py, and training's features, which take the photo part alone.
"""

import importlib.util
import itertools
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmcat.errors import ModelError
from mmcat.model import CategoryModel
from mmcat.normalisation import Normalisation
from mmcat.preparation import Preprocessing

Array = npt.NDArray[Any]
Axes = Mapping[str, Mapping[int, str]]
FORMAT = 2  # change it where the graphs change: kept ones are made anew
_OPSET = 17
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # what OpenVINO calls them; an int8 graph's rest is float32


def missing() -> str | None:
    """Why there is no OpenVINO; None if there is. Imports nothing."""
    lacks = [name for name in ("openvino", "onnx") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(lacks)} not installed (pip install 'mmcat[cpu]')" if lacks else None


def version() -> str:
    """Of what runs the graphs and of how they are made, for the names of kept files."""
    return f"openvino-{metadata.version('openvino')}-{FORMAT}"


def has_bf16() -> bool:
    """Whether this CPU computes in bf16 (AVX512_BF16 or AMX): elsewhere bf16 would cost answers and bring nothing."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def has_int8() -> bool:
    """Whether OpenVINO computes in int8 on this CPU."""
    return "INT8" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def core() -> Any:
    """OpenVINO, without the package through which it would report its use to its makers when it is imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import of it fails
    import openvino

    return openvino.Core()


# ── Parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class PhotoPart(nn.Module):
    """uint8 pixels [K, X, X, C] as they are decoded → [K, N, D], normalised on the way."""

    def __init__(self, model: CategoryModel, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.normalisation = Normalisation(preprocessing)
        self.example = (torch.full((2, preprocessing.px, preprocessing.px, 3), 128, dtype=torch.uint8),)
        self.axes = {"pixels_KXXC": {0: "K"}}

    def forward(self, pixels_KXXC: Tensor) -> Tensor:
        return self.model.encode_image(self.normalisation(pixels_KXXC))


class TextPart(nn.Module):
    """Token ids and mask [K, T] → [K, T, D], T = 1 when pooled."""

    def __init__(self, model: CategoryModel) -> None:
        super().__init__()
        self.model = model
        mask_KT = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
        self.example = (mask_KT * 3, mask_KT)
        self.axes = {"ids_KT": {0: "K", 1: "T"}, "mask_KT": {0: "K", 1: "T"}}

    def forward(self, ids_KT: Tensor, mask_KT: Tensor) -> Tensor:
        return self.model.encode_text(ids_KT, mask_KT)


class FusionPart(nn.Module):
    """Encoded vectors → logits of each head. What a model does not read is no input of its graph."""

    def __init__(self, model: CategoryModel) -> None:
        super().__init__()
        self.model = model
        config, has_B = model.config, torch.tensor([True, True, False])
        inputs: dict[str, tuple[Tensor, dict[int, str]]] = {}
        if config.reads_text:
            tokens = 5 if config.keys == "sequence" else 1
            length = {1: "T"} if config.keys == "sequence" else {}
            inputs["text_BTD"] = torch.zeros(3, tokens, config.text_width), {0: "B", **length}
            inputs["has_text_B"] = has_B, {0: "B"}
            if config.keys == "sequence":
                inputs["mask_BT"] = torch.ones(3, tokens, dtype=torch.bool), {0: "B", 1: "T"}
        if config.reads_image:
            inputs["image_BND"] = torch.zeros(3, config.image_cells, config.image_width), {0: "B"}
            inputs["has_image_B"] = has_B, {0: "B"}
        self.names = tuple(inputs)
        self.example = tuple(value for value, _ in inputs.values())
        self.axes = {name: axes for name, (_, axes) in inputs.items()}

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        of = dict(zip(self.names, given, strict=True))
        logits = self.model.fuse(
            of.get("text_BTD"), of.get("image_BND"), of.get("has_text_B"), of.get("has_image_B"), of.get("mask_BT")
        )
        return tuple(logits)


Part = PhotoPart | TextPart | FusionPart


def parts(model: CategoryModel, preprocessing: Preprocessing) -> dict[str, Part]:
    """Those that this model has, by the names of their files: "text", "image", "fusion"."""
    found: dict[str, Part] = {"fusion": FusionPart(model)}
    if model.config.reads_text:
        found["text"] = TextPart(model)
    if model.config.reads_image:
        found["image"] = PhotoPart(model, preprocessing)
    return found


def export(part: Part, path: Path) -> None:
    """Writes the part as it computes in eval mode, float32; blocks for seconds.

    Raises:
        ModelError: an operation of the encoder has no counterpart in ONNX.
    """
    training = part.model.training
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # tracing warns of every shape it reads; parity with eager is tested
            torch.onnx.export(
                part.eval(), part.example, str(path), dynamo=False, opset_version=_OPSET,
                input_names=list(part.axes), dynamic_axes=part.axes,
            )  # fmt: skip
    except Exception as error:  # whatever tracing meets in an encoder of another make
        reason = str(error).partition("\n")[0]
        raise ModelError(f"this model cannot be exported to ONNX ({reason}): use engine eager") from error
    finally:
        part.model.train(training)


def convert(path: Path) -> None:
    """An ONNX file as OpenVINO's own XML and weights in its place: those are mapped into memory, not read and copied.

    Raises:
        ModelError: OpenVINO cannot read it.
        OSError: it cannot be written.
    """
    runtime = core()
    import openvino

    try:
        model = runtime.read_model(path)
    except RuntimeError as error:
        raise ModelError(f"{path} cannot be read ({' '.join(str(error).split())}): use engine eager") from error
    try:
        openvino.save_model(model, path.with_suffix(".xml"), compress_to_fp16=False)
    except RuntimeError as error:  # as it tells of a full disk
        raise OSError(" ".join(str(error).split())) from error
    path.unlink()


# ── Running ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Graph:
    """One exported part, in memory. One thread at a time runs it.

    Args:
        source: the file, ONNX or XML, which may be removed afterwards; or, in int8, OpenVINO's XML and weights.
        precision: "fp32", "bf16" or "int8"; inputs and outputs are float32 in all.
        threads: of one run.

    Raises:
        ModelError: the file is not a graph that OpenVINO can run.
    """

    def __init__(self, source: Path | tuple[bytes, bytes], precision: str, threads: int) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,  # see the module's docstring
            "ENABLE_CPU_PINNING": False,  # the cores are also those of the threads that fetch and decode
        }
        try:
            model = str(source) if isinstance(source, Path) else core().read_model(*source)
            compiled = core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            if isinstance(source, Path):
                raise ModelError(
                    f"{source} cannot be run ({reason}): remove {source.parent}, it is made anew"
                ) from error
            raise ModelError(f"an int8 graph cannot be run ({reason}): calibrate the bundle anew") from error
        self._inputs = [one.node.friendly_name for one in compiled.inputs]  # tensors have aliases
        self._request = compiled.create_infer_request()

    def __call__(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The graph's outputs for these rows; blocks until they are computed.

        Args:
            inputs: by name; names that this graph does not read are left out.
        """
        self._request.infer({name: inputs[name] for name in self._inputs})
        return [tensor.data.copy() for tensor in self._request.output_tensors]  # its own memory is the next run's


def cut(rows: int, most: int) -> list[slice]:
    """Cuts rows into runs of at most `most`, as equal as can be."""
    count = -(-rows // most)
    bounds = [rows * place // count for place in range(count + 1)] if count else []
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
