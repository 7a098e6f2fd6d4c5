"""Decoded pixels → what image encoders read: the same in serving, in exported graphs and in training.

On the device, since bytes are quicker to send there than floats. After preparation.py; before engines/ and training's
steps.
"""

import torch
from torch import Tensor, nn

from mmcat.preparation import Preprocessing


class Normalisation(nn.Module):
    """Pixels 0 to 255 [B, X, X, C] → float32 [B, C, X, X], less the mean and over the deviation of their channel."""

    mean: Tensor  # [C, 1, 1], of pixels 0 to 255; std as well
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, pixels_BXXC: Tensor) -> Tensor:
        pixels_BCXX = pixels_BXXC.permute(0, 3, 1, 2)  # a view whose memory is channels-last already
        return (pixels_BCXX.float() - self.mean) / self.std
