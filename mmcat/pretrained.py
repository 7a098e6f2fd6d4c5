"""Starting weights for the two encoders, from files or a model hub: used by training, never by serving.

Only safetensors are read: no pickles, no remote code. After model.py, whose shapes the weights must fit.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmcat.errors import ModelError
from mmcat.model import CategoryModel

# What Hugging Face writes into a configuration about files and versions, not about the model's shape.
_NOT_SHAPE = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")


def text_config(name: str | Path) -> dict[str, Any]:
    """The configuration of a Hugging Face encoder, for `ModelConfig.text_encoder`.

    Args:
        name: a folder, or a name on the model hub (then this blocks on the network).

    Raises:
        ModelError: there is no such encoder.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(name)).to_dict()
    except (OSError, ValueError) as error:
        raise ModelError(f"no text encoder at {name}: {_first_line(error)}") from error
    return {key: value for key, value in config.items() if key not in _NOT_SHAPE}


def load_text_weights(model: CategoryModel, name: str | Path) -> None:
    """Fills the model's text encoder from a folder or hub name; every weight must be there and fit.

    But for a pooler that the model does not read, which many encoders come without: it is zero then, not random, so
    that the same encoder has the same fingerprint each time.

    Raises:
        ModelError: no such weights, some are missing, or of another shape.
    """
    from transformers import AutoModel

    if model.text_encoder is None:
        raise ModelError("this model has no text encoder to fill")
    try:
        with _harmless_report_unsaid():
            trunk, told = AutoModel.from_pretrained(str(name), use_safetensors=True, output_loading_info=True)
        state = trunk.state_dict()
        missing = set(told["missing_keys"])
        unread = {key for key in missing if key.startswith("pooler.") and model.text_encoder.pooling != "pooler"}
        if lost := sorted(missing - unread):
            raise ModelError(f"the text encoder at {name} has no weights for {', '.join(lost[:3])}")
        model.text_encoder.trunk.load_state_dict(state | {key: torch.zeros_like(state[key]) for key in unread})
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"no fitting text encoder weights at {name}: {_first_line(error)}") from error


def load_resnet_weights(model: CategoryModel, path: str | Path) -> None:
    """Fills the model's ResNet50 from a safetensors file in torchvision's names; the classifier is left out.

    The file does not say whether its strides are v1 or v1.5: `ModelConfig.resnet_strides` must match it.

    Raises:
        ModelError: no such file, or not a ResNet50.
    """
    if model.image_encoder is None:
        raise ModelError("this model has no image encoder to fill")
    try:
        state: dict[str, Tensor] = load_file(str(path))
        trunk = {name: value for name, value in state.items() if not name.startswith("fc.")}
        missing, unexpected = model.image_encoder.trunk.load_state_dict(trunk, strict=False)
    except Exception as error:  # safetensors raises its own type, torch RuntimeError, the system OSError
        raise ModelError(f"no ResNet50 weights in {path}: {_first_line(error)}") from error
    lost = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lost or unexpected:
        raise ModelError(f"{path} is not a ResNet50: missing {lost[:3]}, unknown {list(unexpected)[:3]}")


@contextmanager
def _harmless_report_unsaid() -> Iterator[None]:
    """Of a report on loading, the library's warning is left out unless the load fails by what it says.

    What is missing the caller looks at itself, and what is left over are heads of the task that the encoder was taught.
    """

    def may_be_said(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "LOAD REPORT" not in text or "MISMATCH" in text or "CONVERSION" in text

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(may_be_said)
    try:
        yield
    finally:
        logger.removeFilter(may_be_said)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
