"""Photos → vectors of a frozen encoder, by the quickest that is there.

    pixels ─ normalise ─> encoder ─> [B, N, D]     in one ONNX graph, on every core; or PyTorch as it is

OpenVINO computes the same float32 values to 1e-5 of the largest, 1.4 to 1.8 times as fast as eager PyTorch on a
CPU (docs/decisions/0016-cpu-engine.md). Making the graph takes as long as some hundred photos, so few photos go
through PyTorch, as they do on a GPU and where the extra `cpu` is not installed.

After encoders.py and frozen.py; before features.py, which writes the encoder's name into the name of its store: vectors
of both never meet in one.
"""

import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mmcat.engines import graphs
from mmcat.model import CategoryModel
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing

FEW = 1_000
"""Photos; below it the graph costs about what it brings."""
_RUN = 16  # photos of one run: see `graphs.cut`
Vectors = npt.NDArray[np.float32]


class PhotoEncoder:
    """Encodes photos: uint8 [B, X, X, C] → float32 [B, N, D], one place where the model pools, else one for each cell.

    Args:
        model: its image encoder frozen, in eval mode and channels-last layout.
        photos: how many there are to encode, views counted.
    """

    def __init__(self, model: CategoryModel, preprocessing: Preprocessing, photos: int) -> None:
        self._part = graphs.PhotoPart(model, preprocessing).eval()
        self._device = next(model.parameters()).device
        self._part.to(self._device)
        few = photos < FEW or self._device.type != "cpu"
        self.name = "torch" if few or graphs.missing() else "openvino"

    def __call__(self, pixels_BXXC: Pixels) -> Vectors:
        return self._torch(pixels_BXXC) if self.name == "torch" else self._openvino(pixels_BXXC)

    def cells(self) -> int:
        """Places of a photo: N."""
        blank_1XXC = self._part.example[0][:1].numpy()
        return int(self._torch(blank_1XXC).shape[1])

    def _torch(self, pixels_BXXC: Pixels) -> Vectors:
        with torch.inference_mode():
            image_BND: Vectors = self._part(torch.from_numpy(pixels_BXXC).to(self._device)).float().cpu().numpy()
        return image_BND

    def _openvino(self, pixels_BXXC: Pixels) -> Vectors:
        runs = graphs.cut(len(pixels_BXXC), _RUN)
        return np.concatenate([self._graph({"pixels_KXXC": pixels_BXXC[run]})[0] for run in runs])

    @cached_property
    def _graph(self) -> graphs.Graph:
        """Made when the first photo comes: features that are on disk need none."""
        with tempfile.TemporaryDirectory(prefix="mmcat-graph-") as folder:
            file = Path(folder) / "image.onnx"
            graphs.export(self._part, file)
            return graphs.Graph(file, "fp32", torch.get_num_threads())
