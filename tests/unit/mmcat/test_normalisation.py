"""Pixels are normalised by channel, without a copy to another layout, and leave nothing in a model's weights."""

import torch

from mmcat.normalisation import Normalisation
from mmcat.preparation import Preprocessing


def test_pixels_are_normalised_by_channel_in_channels_last_layout() -> None:
    normalisation = Normalisation(Preprocessing(px=4, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25)))
    pixels_BXXC = torch.tensor([0, 255, 51], dtype=torch.uint8).expand(2, 4, 4, 3).contiguous()
    normal_BCXX = normalisation(pixels_BXXC)
    assert normal_BCXX.shape == (2, 3, 4, 4)
    assert normal_BCXX.dtype == torch.float32
    assert normal_BCXX.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(normal_BCXX[1, :, 2, 3], torch.tensor([0.0, 1.0, -3.2]))
    assert normalisation.state_dict() == {}
