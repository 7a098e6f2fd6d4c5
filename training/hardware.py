"""What the machine offers training: the device, the processes that `torchrun` started, bf16 where it is quick.

Known to the engine and to the run; decides nothing about models.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState

Precision = Literal["auto", "fp32", "bf16"]
_PATIENCE = timedelta(days=2)  # of processes that wait while the first one computes features


def device_of(wish: str) -> str:
    """ "cpu" or "cuda"; "auto" takes CUDA where it is there."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if wish == "auto" else wish


def processes(device: str) -> PartialState:
    """The processes of this run: one, or as many as `torchrun` started, then joined by gloo (CPU) or NCCL (CUDA)."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=device == "cpu", **({"timeout": _PATIENCE} if several else {}))


def bf16_is_quick(device_type: str) -> bool:
    """Whether bf16 pays: on CUDA that has it, on processors with instructions for it.

    Elsewhere PyTorch emulates it, several times slower than float32. Asked of the processor and not timed, so that a
    busy machine trains the same model as an idle one.
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.is_file():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def in_bf16(precision: Precision, device_type: str) -> bool:
    """Whether a recipe's precision means bf16 here."""
    return precision == "bf16" or (precision == "auto" and bf16_is_quick(device_type))


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits every time; on CUDA some layers are slower, and some refuse.

    On a CPU the same number of threads gives the same bits anyway.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
