"""A bundle's weights: a model once somebody asks for one.

Building a model imports torchvision and Transformers and takes seconds. An engine whose graphs are made already needs
none, so a bundle's weights stay in their file until then. The file is mapped into memory from the start: a bundle that
is replaced meanwhile changes nothing.

After model.py; before bundle.py.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmcat.errors import BundleError
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel


class Weights:
    """Of one model: in a file (`read`), or in a model that is there already (`of`)."""

    def __init__(self, config: ModelConfig, build: Callable[[], CategoryModel], file: Any = None) -> None:
        self.config = config
        self._build, self._file = build, file

    @classmethod
    def read(cls, path: Path, config: ModelConfig) -> "Weights":
        """Those of a safetensors file, which must not be written in place from now on; reads its header alone.

        Raises:
            SafetensorError: not such a file.
        """
        file = safe_open(path, "pt")
        return cls(config, lambda: _built(path.parent, config, file), file)

    @classmethod
    def of(cls, model: CategoryModel) -> "Weights":
        """Those of a model in memory."""
        return cls(model.config, lambda: model)

    @cached_property
    def model(self) -> CategoryModel:
        """The model, on the CPU, float32, in eval mode; built once, which blocks for seconds.

        Raises:
            BundleError: a weight is missing, not known, or of another shape; the message names it.
        """
        return self._build()

    def release(self) -> None:
        """Forget the model: its memory is free once its users have gone. Who asks again has it built again."""
        self.__dict__.pop("model", None)

    def encoder(self, name: str) -> dict[str, Tensor]:
        """The state of "text_encoder" or "image_encoder", as the model holds it now, or the file where none is built.

        The two differ where an engine has converted the model. Empty where the model has no such encoder.
        """
        if self._file is None or "model" in self.__dict__:
            encoder: nn.Module | None = getattr(self.model, name)
            return {} if encoder is None else encoder.state_dict()
        held, prefix = self._file.keys(), f"{name}."
        return {key.removeprefix(prefix): self._file.get_tensor(key) for key in held if key.startswith(prefix)}


_DRAWS = {"normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"}  # by name: Transformers wraps those of nn.init


class _Undrawn(TorchFunctionMode):
    """Leaves new weights as memory comes: drawing those of a BERT takes seconds, and the file's take their place."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _built(folder: Path, config: ModelConfig, file: Any) -> CategoryModel:
    try:
        with _Undrawn():
            model = CategoryModel(config)
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a mapping
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # a weight file or configuration of another model: torch, transformers raise anything
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{folder}: the weights do not fit the configuration ({reason}): export it again") from error
    return model.eval()
