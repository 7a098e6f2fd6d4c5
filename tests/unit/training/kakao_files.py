"""Writes chunk files in the shape of Kakao Arena's: fixed byte strings padded with NUL, -1 for what is absent."""

from pathlib import Path

import h5py
import numpy as np

PATHS = [(1, 1, -1, -1), (1, 1, 2, -1), (3, 4, 5, 6), (3, 1, -1, -1)]
"""With ids under several parents, and a path that stops where another goes on."""


def write_chunk(path: Path, split: str, first: int, count: int, *, truth: bool = True, **changes: object) -> Path:
    """Listings first … first + count - 1; their vectors tell them apart (`vector`).

    Args:
        truth: False writes -1 for every category, as in dev and test.
        changes: columns that are written instead.
    """
    numbers = range(first, first + count)
    ids = np.array([PATHS[number % len(PATHS)] for number in numbers], np.int32)
    if not truth:
        ids[:] = -1
    columns: dict[str, object] = {
        "pid": np.array([f"K{number:07d}".encode() for number in numbers], "S12"),
        "product": np.array([f"직소퍼즐 {number}피스".encode() for number in numbers], "S64"),
        "brand": np.array(["한립토이스".encode()] * count, "S40"),
        "maker": np.array([b""] * count, "S40"),
        "model": np.array([f"HT-{number}".encode() for number in numbers], "S40"),
        "updttm": np.array([b"20180227091029"] * count, "S14"),
        "price": np.full(count, -1, np.int32),
        **{name: ids[:, at] for at, name in enumerate(("bcateid", "mcateid", "scateid", "dcateid"))},
        "img_feat": np.stack([vector(number) for number in numbers]),
        **changes,
    }
    with h5py.File(path, "w") as file:
        group = file.create_group(split)
        for name, values in columns.items():
            if values is not None:
                group.create_dataset(name, data=values)
    return path


def vector(number: int) -> np.ndarray:
    """What listing `number` has as img_feat: exact in half precision; every seventh has none."""
    found = np.zeros(2048, np.float32)
    if number % 7:
        found[:4] = [1, number % 1000, number // 1000, 0.5]
    return found
