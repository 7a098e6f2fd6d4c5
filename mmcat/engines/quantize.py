"""Makes a bundle's encoders int8, by what their layers are seen to hold on real listings.

    listings ─ prepare ─> some hundred titles and photos ─> NNCF: ranges of every layer ─> OpenVINO's XML and weights

Post-training quantization by OpenVINO's own NNCF, the extra `calibrate`: of weights and activations (Jacob et al.,
2018), with SmoothQuant (Xiao et al., 2023) and corrected biases (Nagel et al., 2019). Fusion and heads are left as they
are. Only `mmcat bundle calibrate` comes here: what it makes is served without NNCF.

After graphs.py.
"""

import contextlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcat.bundle import LoadedBundle
from mmcat.engines import graphs
from mmcat.errors import ModelError
from mmcat.listing import Prepared
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing

Inputs = Sequence[dict[str, graphs.Array]]


def missing() -> str | None:
    """Why nothing can be quantized here; None if it can. Imports nothing."""
    if importlib.util.find_spec("nncf") is None:
        return "nncf not installed (pip install 'mmcat[calibrate]')"
    return graphs.missing()


def quantize(loaded: LoadedBundle, listings: Sequence[Prepared]) -> dict[str, tuple[bytes, bytes]]:
    """The encoders in int8, "text" and "image" as far as the model has them; blocks for minutes.

    Args:
        listings: some hundred real ones; those without a title or a photo say nothing of that encoder.

    Raises:
        ModelError: NNCF is not there, an encoder cannot be exported, or no listing has what it reads.
    """
    inputs = {"text": list(_titles(loaded, listings)), "image": list(_photos(listings))}
    return quantized_parts(loaded.model, loaded.preprocessing, inputs)


def quantized_parts(
    model: CategoryModel, preprocessing: Preprocessing, inputs: Mapping[str, Inputs]
) -> dict[str, tuple[bytes, bytes]]:
    """As `quantize`, for a model by itself.

    Args:
        inputs: by encoder, one row at a time.
    """
    if (lacks := missing()) is not None:
        raise ModelError(f"no encoder can be quantized: {lacks}")
    found = {}
    with tempfile.TemporaryDirectory(prefix="mmcat-quantize-") as folder:
        for name, part in graphs.parts(model, preprocessing).items():
            if name == "fusion":
                continue
            if not inputs[name]:
                raise ModelError(f"no listing has what the {name} encoder reads: it cannot be calibrated")
            graphs.export(part, Path(folder) / f"{name}.onnx")
            found[name] = _quantized(Path(folder) / f"{name}.onnx", inputs[name], transformer=name == "text")
    return found


def _titles(loaded: LoadedBundle, listings: Sequence[Prepared]) -> Iterator[dict[str, graphs.Array]]:
    """Each alone, as long as it is: padding would count as values of the layers."""
    for one in listings:
        if one.text and loaded.tokenizer is not None:
            ids, mask = loaded.tokenizer.encode([one.text])
            yield {"ids_KT": ids, "mask_KT": mask}


def _photos(listings: Sequence[Prepared]) -> Iterator[dict[str, graphs.Array]]:
    return ({"pixels_KXXC": one.pixels[None]} for one in listings if one.pixels is not None)


def _quantized(path: Path, inputs: Inputs, *, transformer: bool) -> tuple[bytes, bytes]:
    """OpenVINO's XML and weights."""
    graphs.core()  # before NNCF: it closes the way by which both would report their use
    with contextlib.redirect_stdout(sys.stderr):  # progress and log; a command's stdout is its answer
        import nncf
        import openvino

        logging.getLogger("nncf").setLevel(logging.ERROR)  # `nncf.set_log_level` sets others' handlers, too
        model = openvino.convert_model(path)  # folds biases into constants, which `core.read_model` leaves to be found
        model = nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            advanced_parameters=None if transformer else _photo_ranges(nncf),
        )
    xml, weights = path.with_suffix(".xml"), path.with_suffix(".bin")
    openvino.save_model(model, xml, compress_to_fp16=False)
    return xml.read_bytes(), weights.read_bytes()


def _photo_ranges(nncf: Any) -> Any:
    """Ranges by their histograms: of 480 real listings 12 paths turned, with the default's means of extremes 24."""
    histogram = nncf.quantization.range_estimator.RangeEstimatorParametersSet.HISTOGRAM
    return nncf.AdvancedQuantizationParameters(activations_range_estimator_params=histogram)
