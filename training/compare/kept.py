"""Held-out answers of finished runs, on disk: a comparison that was stopped goes on where it was, and a new table costs
seconds.

A file is named by everything its numbers depend on: the variant, the recipe, the split, the features, the seed and the
code that learns. A change of any of them is another file. After plan.py; before runs.py.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

Arrays = dict[str, npt.NDArray[Any]]


class Kept:
    """Arrays by the facts they depend on, under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, facts: Mapping[str, Any], compute: Callable[[], Arrays]) -> tuple[Arrays, bool]:
        """The arrays, and whether they were there already; computed and written whole or not at all where not."""
        told = json.dumps(facts, sort_keys=True)
        path = self._folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.safetensors"
        try:
            return load_file(path), True
        except (OSError, SafetensorError):  # not there, or cut off by a full disk: make it again
            arrays = {name: np.ascontiguousarray(array) for name, array in compute().items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file(arrays, beside, metadata={"facts": told})
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return arrays, False


def code_digest(*modules: str) -> str:
    """SHA-256 hex of modules' sources, by their files: the code that makes the numbers."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()
