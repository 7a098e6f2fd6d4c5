"""A bundle's encoders in int8 and the real listings that judge them: one file in the bundle's folder.

    mmcat bundle calibrate ─> quantize.py ─> int8.safetensors ─> choice.py, cpu.py

The file is not among the sums of the bundle, whose fingerprint stays as it is; it carries that fingerprint and a digest
of its own, so a copied bundle takes it along, and it is read only beside the bundle that it was made of. It holds what
OpenVINO reads of each encoder, listings that took no part in the calibration as pixels and token ids, and what eager
PyTorch in float32 answered to them: how many of these answers an engine keeps is told without eager's work.

After base.py; before quantize.py, cpu.py and choice.py.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmcat.engines.base import Batch
from mmcat.errors import ModelError

FILE = "int8.safetensors"
FORMAT = 1
_PARTS = ("text", "image")
_NEW = "make it anew with mmcat bundle calibrate"


@dataclass(frozen=True, slots=True)
class Sample:
    """Listings on which engines are compared, and eager PyTorch's answers in float32.

    Args:
        kind: "real" or "drawn".
        batches: of the listings, in order.
        rows: int64 [B], the answered path of each listing.
        probabilities: float32 [B], its probability before calibration.
    """

    kind: str
    batches: Sequence[Batch]
    rows: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]

    def __str__(self) -> str:
        return f"{len(self.rows)} {self.kind} listings"


@dataclass(frozen=True, slots=True)
class Quantized:
    """What the file holds.

    Args:
        graphs: "text", "image", as far as the model has them: OpenVINO's XML and its weights.
        sample: real listings.
        digest: SHA-256 of all of it.
    """

    graphs: Mapping[str, tuple[bytes, bytes]]
    sample: Sample
    digest: str

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> Self:
        """Reads and verifies the file; blocks for a second per GB.

        Args:
            fingerprint: of the bundle that is to run.

        Raises:
            ModelError: no such file, not one that this version writes, changed since, or of another bundle.
        """
        try:
            with safe_open(path, "np") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except FileNotFoundError as error:
            raise ModelError(f"{path} is not there: {_NEW}") from error
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{path} cannot be read ({error}): it is cut off or another kind of file: {_NEW}"
            ) from error
        if facts.get("format") != str(FORMAT):
            raise ModelError(f"{path} has format {facts.get('format')}, and this mmcat reads {FORMAT}: {_NEW}")
        if facts["bundle"] != fingerprint:
            other, own = facts["bundle"][:12], fingerprint[:12]
            raise ModelError(f"{path} was made of another bundle ({other}) than the one beside it ({own}): {_NEW}")
        digest = _digest(tensors)
        if facts["sha256"] != digest:
            raise ModelError(f"{path} has changed since it was written (wrong SHA-256): copy it again, or {_NEW}")
        graphs = {
            name: (tensors[f"{name}.xml"].tobytes(), tensors[f"{name}.bin"].tobytes())
            for name in _PARTS
            if f"{name}.xml" in tensors
        }
        return cls(graphs, Sample("real", _batches(tensors), tensors["rows"], tensors["probabilities"]), digest)


def write(folder: Path, fingerprint: str, graphs: Mapping[str, tuple[bytes, bytes]], sample: Sample) -> Path:
    """Writes the file into the bundle's folder, whole or not at all; an older one there is replaced.

    Raises:
        ModelError: the folder cannot be written.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"rows": sample.rows, "probabilities": sample.probabilities}
    for name, (xml, weights) in graphs.items():
        tensors |= {f"{name}.xml": np.frombuffer(xml, np.uint8), f"{name}.bin": np.frombuffer(weights, np.uint8)}
    for place, batch in enumerate(sample.batches):
        arrays = {"ids": batch.ids, "mask": batch.mask, "pixels": batch.pixels}
        arrays |= {"text_rows": batch.text_rows, "image_rows": batch.image_rows}
        tensors |= {f"{place:04}.{name}": array for name, array in arrays.items() if array is not None}
    facts = {"format": str(FORMAT), "bundle": fingerprint, "sha256": _digest(tensors)}
    beside = folder / f".{FILE}.{os.getpid()}"  # a plain file: a bundle that is read meanwhile holds no folders
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, beside, facts)
        beside.chmod(0o644)
        return beside.replace(folder / FILE)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / FILE} cannot be written ({error}): make the folder writable") from error
    finally:
        beside.unlink(missing_ok=True)


def _batches(tensors: Mapping[str, npt.NDArray[Any]]) -> list[Batch]:
    places = sorted(name.removesuffix(".text_rows") for name in tensors if name.endswith(".text_rows"))
    return [
        Batch(
            ids=tensors.get(f"{place}.ids"),
            mask=tensors.get(f"{place}.mask"),
            pixels=tensors.get(f"{place}.pixels"),
            text_rows=tensors[f"{place}.text_rows"],
            image_rows=tensors[f"{place}.image_rows"],
        )
        for place in places
    ]


def _digest(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(f"\0{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
