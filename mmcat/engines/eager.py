"""PyTorch as it is, on the CPU or on CUDA: the reference that other engines are measured against.

uint8 pixels go to the device and are normalised there, in channels-last layout (1.3 times faster on CPU, and what
tensor cores want). bf16 holds for the encoders, where nearly all the work is; fusion and heads stay float32, because
bf16 logits would blur close paths. Listings without a photo or title skip that encoder. On CUDA a batch's photos are on
their way, from pinned memory on a stream of their own, while its titles are encoded.

After base.py; before categorizer.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmcat.engines.base import WHOLE, Batch, Encoded, Ids, Vectors, padded, text_mask
from mmcat.errors import ModelError
from mmcat.model import CategoryModel
from mmcat.normalisation import Normalisation
from mmcat.photos import Pixels
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
        self.precision = self.numerics = "bf16" if bf16 else "fp32"
        self.model = model.eval().requires_grad_(False).to(self._device)
        if model.text_encoder is not None:
            model.text_encoder.to(self._dtype)
        if model.image_encoder is not None:
            model.image_encoder.to(self._dtype).to(memory_format=torch.channels_last)
            for module in model.image_encoder.modules():
                if isinstance(module, nn.BatchNorm2d):  # its statistics lose too much in bf16; kernels take the mix
                    module.float()
        self._normalisation = Normalisation(preprocessing).to(self._device)
        cuda = self._device.type == "cuda"
        self._crossing = torch.cuda.Stream(self._device) if cuda else None  # type: ignore[no-untyped-call]  # theirs

    def encode(self, batch: Batch) -> Encoded:
        """See `Engine.encode`."""
        with torch.inference_mode():
            pixels_KXXC = self._sent(batch.pixels)
            text_BTD, new_RTD = self._text(batch)
            image_BND, new_KND = self._image(batch, pixels_KXXC)
            mask_BT = None
            if text_BTD is not None and self.model.config.keys == "sequence":
                mask_BT = torch.from_numpy(text_mask(batch, text_BTD.shape[1])).to(self._device)
            return Encoded(text_BTD, mask_BT, image_BND, batch.has_text, batch.has_image, new_RTD, new_KND)

    def fuse(self, encoded: Encoded, shown: Sequence[tuple[bool, bool]] = WHOLE) -> list[list[npt.NDArray[Any]]]:
        """See `Engine.fuse`."""
        has_text_B = torch.from_numpy(encoded.has_text).to(self._device)
        has_image_B = torch.from_numpy(encoded.has_image).to(self._device)
        with torch.inference_mode():
            answers = [
                self.answer(
                    encoded.text, encoded.image, has_text_B & with_text, has_image_B & with_image, encoded.text_mask
                )
                for with_text, with_image in shown
            ]
            return [[level_BC.cpu().numpy() for level_BC in answer] for answer in answers]

    # What the device computes, tensors on it in and out; compiled.py has it compiled.

    def read(self, ids_RT: Tensor, mask_RT: Tensor) -> Tensor:
        """Titles → float32 [R, T, D], T = 1 when pooled."""
        return self.model.encode_text(ids_RT, mask_RT).float()

    def see(self, pixels_KXXC: Tensor) -> Tensor:
        """uint8 pixels → float32 [K, N, D], N = 1 when pooled."""
        return self.model.encode_image(self._normalisation(pixels_KXXC).to(self._dtype)).float()

    def answer(
        self,
        text_BTD: Tensor | None,
        image_BND: Tensor | None,
        has_text_B: Tensor,
        has_image_B: Tensor,
        text_mask_BT: Tensor | None,
    ) -> list[Tensor]:
        """Vectors → float32 logits [B, C] of each head."""
        heads = self.model.fuse(text_BTD, image_BND, has_text_B, has_image_B, text_mask_BT)
        return [level_BC.float() for level_BC in heads]

    def _text(self, batch: Batch) -> tuple[Tensor | None, Vectors | None]:
        """[B, T, D] float32, T = 1 when pooled, and the new ones in half precision if they are to be kept."""
        config = self.model.config
        if not config.reads_text:
            return None, None
        if batch.ids is None or batch.mask is None:
            raise ModelError("this model reads titles and the batch has no token ids")
        tokens = max([batch.ids.shape[1], *map(len, batch.known_text)]) if config.keys == "sequence" else 1
        new_RTD = torch.zeros(len(batch.ids), tokens, config.text_width, device=self._device)
        for rows, length in self._together(batch.mask):
            ids_KT, mask_KT = (
                torch.from_numpy(array[rows, :length]).to(self._device) for array in (batch.ids, batch.mask)
            )
            found_KTD = self.read(ids_KT, mask_KT)
            new_RTD[rows, : found_KTD.shape[1]] = found_KTD
        return self._chosen(new_RTD, batch.known_text, batch.text_rows, batch.keep)

    def _together(self, mask_RT: Ids) -> Iterator[tuple[Ids, int]]:
        """Which titles are read at once, and how many tokens of them."""
        if len(mask_RT):
            yield np.arange(len(mask_RT)), mask_RT.shape[1]

    def _image(self, batch: Batch, pixels_KXXC: Tensor | None) -> tuple[Tensor | None, Vectors | None]:
        """[B, N, D] float32, N = 1 when pooled; likewise."""
        config = self.model.config
        if not config.reads_image:
            return None, None
        new_KND = torch.zeros(0, config.image_cells, config.image_width, device=self._device)
        if pixels_KXXC is not None:
            self._wait_for(pixels_KXXC)
            new_KND = self.see(pixels_KXXC)
        return self._chosen(new_KND, batch.known_image, batch.image_rows, batch.keep)

    def _sent(self, pixels_KXXC: Pixels | None) -> Tensor | None:
        """Begins to copy photos to the device; to be read only after `_wait_for`. None where there are none."""
        if pixels_KXXC is None or not len(pixels_KXXC):
            return None
        host_KXXC = torch.from_numpy(pixels_KXXC)
        if self._crossing is None:
            return host_KXXC.to(self._device)
        with torch.cuda.stream(self._crossing):
            return host_KXXC.pin_memory().to(self._device, non_blocking=True)

    def _wait_for(self, pixels_KXXC: Tensor) -> None:
        """What the device is given from here on finds them there."""
        if self._crossing is not None:
            here = torch.cuda.current_stream(self._device)
            here.wait_stream(self._crossing)
            pixels_KXXC.record_stream(here)

    def _chosen(
        self, new_KLD: Tensor, known: Sequence[Vectors], rows_B: Ids, keep: bool
    ) -> tuple[Tensor, Vectors | None]:
        """Each listing's vectors, zeros where it has none."""
        kept_KLD = None
        if keep:
            half_KLD = new_KLD.half()
            new_KLD = torch.where(half_KLD.isfinite(), half_KLD.float(), new_KLD)
            kept_KLD = half_KLD.cpu().numpy()
        _, length, width = new_KLD.shape
        known_JLD = torch.from_numpy(padded(known, length, width)).to(self._device).float()
        none_1LD = new_KLD.new_zeros(1, length, width)  # row -1: what is missing
        rows = torch.from_numpy(rows_B).to(self._device)
        return torch.cat([new_KLD, known_JLD, none_1LD])[rows], kept_KLD


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
