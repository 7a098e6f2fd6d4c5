"""PyTorch as it is, on the CPU or on CUDA: the reference that other engines are measured against.

uint8 pixels go to the device and are normalised there, in channels-last layout (1.3 times faster on CPU, and what
tensor cores want). bf16 holds for the encoders, where nearly all the work is; fusion and heads stay float32, because
bf16 logits would blur close paths. Listings without a photo or title skip that encoder.

After base.py; before categorizer.py.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmcat.engines.base import Batch
from mmcat.errors import ModelError
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing

Precision = Literal["auto", "fp32", "bf16"]


class EagerEngine:
    """See `engines.base.Engine`.

    Args:
        model: moved to the device and, for bf16, converted in place.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", …
        precision: "auto" is bf16 on CUDA that has it, else fp32.

    Raises:
        ModelError: no such device or precision.
    """

    def __init__(
        self, model: CategoryModel, preprocessing: Preprocessing, device: str = "auto", precision: str = "auto"
    ) -> None:
        self._device = _device(device)
        bf16 = _wants_bf16(self._device, precision)
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        self.name = f"eager-{self._device.type}"
        self.precision = "bf16" if bf16 else "fp32"
        self._model = model.eval().requires_grad_(False).to(self._device)
        if model.text_encoder is not None:
            model.text_encoder.to(self._dtype)
        if model.image_encoder is not None:
            model.image_encoder.to(self._dtype).to(memory_format=torch.channels_last)
            for module in model.image_encoder.modules():
                if isinstance(module, nn.BatchNorm2d):  # its statistics lose too much in bf16; kernels take the mix
                    module.float()
        self._mean_C11 = torch.tensor(preprocessing.mean, device=self._device).view(3, 1, 1) * 255
        self._std_C11 = torch.tensor(preprocessing.std, device=self._device).view(3, 1, 1) * 255

    def logits(self, batch: Batch) -> list[npt.NDArray[Any]]:
        """See `Engine.logits`."""
        with torch.inference_mode():
            return self._fuse(*self._encode(batch))

    def ablations(self, batch: Batch, shown: Sequence[tuple[bool, bool]]) -> list[list[npt.NDArray[Any]]]:
        """See `Engine.ablations`."""
        with torch.inference_mode():
            text_BTD, mask_BT, image_BND, has_text_B, has_image_B = self._encode(batch)
            return [
                self._fuse(text_BTD, mask_BT, image_BND, has_text_B & with_text, has_image_B & with_image)
                for with_text, with_image in shown
            ]

    def _encode(self, batch: Batch) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor]:
        """Vectors of the title and where they are tokens, of the photo, and which listings have them."""
        has_text_B = torch.from_numpy(batch.has_text).to(self._device)
        has_image_B = torch.from_numpy(batch.has_image).to(self._device)
        mask_BT = None
        if self._model.config.keys == "sequence" and batch.mask is not None:
            mask_BT = torch.from_numpy(batch.mask).to(self._device)
        return self._text(batch, has_text_B), mask_BT, self._image(batch, has_image_B), has_text_B, has_image_B

    def _fuse(
        self,
        text_BTD: Tensor | None,
        mask_BT: Tensor | None,
        image_BND: Tensor | None,
        has_text_B: Tensor,
        has_image_B: Tensor,
    ) -> list[npt.NDArray[Any]]:
        logits = self._model.fuse(text_BTD, image_BND, has_text_B, has_image_B, mask_BT)
        return [level_BC.float().cpu().numpy() for level_BC in logits]

    def _text(self, batch: Batch, has_text_B: Tensor) -> Tensor | None:
        """[B, T, D] float32, T = 1 when pooled; zeros where there is no title."""
        config = self._model.config
        if not config.reads_text:
            return None
        if batch.ids is None or batch.mask is None:
            raise ModelError("this model reads titles and the batch has no token ids")
        tokens = batch.ids.shape[1] if config.keys == "sequence" else 1
        text_BTD = torch.zeros(len(batch), tokens, config.text_width, device=self._device)
        if batch.has_text.any():
            ids_KT = torch.from_numpy(batch.ids[batch.has_text]).to(self._device)
            mask_KT = torch.from_numpy(batch.mask[batch.has_text]).to(self._device)
            text_BTD[has_text_B] = self._model.encode_text(ids_KT, mask_KT).float()
        return text_BTD

    def _image(self, batch: Batch, has_image_B: Tensor) -> Tensor | None:
        """[B, N, D] float32, N = 1 when pooled; zeros where there is no photo."""
        config = self._model.config
        if not config.reads_image:
            return None
        image_BND = torch.zeros(len(batch), config.image_cells, config.image_width, device=self._device)
        if batch.pixels is not None and len(batch.pixels):
            pixels_KXXC = torch.from_numpy(batch.pixels).to(self._device)
            pixels_KCXX = pixels_KXXC.permute(0, 3, 1, 2)  # a view whose memory is channels-last already
            normal_KCXX = ((pixels_KCXX.float() - self._mean_C11) / self._std_C11).to(self._dtype)
            image_BND[has_image_B] = self._model.encode_image(normal_KCXX).float()
        return image_BND


def _device(wish: str) -> torch.device:
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise ModelError(f"device {wish!r} is unknown: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device {wish!r} is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {wish!r} is not there ({torch.cuda.device_count()} CUDA devices): use cpu or auto")
    return device


def _wants_bf16(device: torch.device, precision: str) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision not in ("fp32", "bf16"):
        raise ModelError(f"precision {precision!r} is unknown: use auto, fp32 or bf16")
    return precision == "bf16"
