"""Which engine runs a bundle: the fastest that answers as eager PyTorch in float32 does, or the one that was asked for.

    engine "auto", on a CPU ─> graphs made or found ─> int8, bf16, fp32: each beside eager on some listings ─> verdicts

Of those that keep their promise and are faster than eager the fastest is taken. Verdicts are kept beside the graphs,
for this bundle, version, precision, calibration, kind of CPU and number of threads, so that a later start makes the
chosen engine alone.

After agreement.py, compiled.py, cpu.py and eager.py; before categorizer.py.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch

from mmcat.bundle import LoadedBundle
from mmcat.engines import graphs
from mmcat.engines.agreement import PROMISES, Verdict, answered, drawn_batches, judge
from mmcat.engines.base import Engine
from mmcat.engines.compiled import CompiledEngine
from mmcat.engines.cpu import CpuEngine
from mmcat.engines.eager import EagerEngine
from mmcat.engines.int8 import FILE, Quantized, Sample
from mmcat.errors import ModelError
from mmcat.paths import PathIndex

ENGINES = ("auto", "eager", "cpu", "compiled")
T = TypeVar("T")

_MARGIN = 1.05  # an engine that is not even so much faster is not worth another


def choose(
    loaded: LoadedBundle,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache: Path | None = None,
) -> tuple[Engine, str]:
    """The engine and why it is that one; blocks for seconds, and for a minute or two where "auto" judges anew.

    Args:
        precision: "auto" with engine "auto": whatever keeps its promise; with engine "cpu", which nobody judges: fp32.
            "bf16" with engine "auto": the faster of both engines in it, whose paths are not held to those of fp32.
            "int8": the CPU engine, which alone has it, likewise.
        threads: of the CPU; None: as many as PyTorch would take.
        cache: where graphs and verdicts of all bundles are kept. Without it "auto" is eager: making graphs for one
            use would cost more than it brings.

    Raises:
        ModelError: no such engine, or it cannot run what is asked.
    """
    if engine not in ENGINES:
        raise ModelError(f"engine {engine!r} is unknown: use {', '.join(ENGINES)}")
    if precision == "int8":
        if engine in ("eager", "compiled"):
            raise ModelError(f"engine {engine} has no int8: use engine cpu or auto")
        engine = "cpu"
    if engine == "compiled":
        kept = None if cache is None else cache / "compiled" / f"{loaded.fingerprint[:16]}-{torch.__version__}"
        return CompiledEngine(loaded.model, loaded.preprocessing, device, precision, cache=kept), "asked for"
    if engine == "eager":
        return _eager(loaded, device, precision), "asked for"
    why_not = _why_not(device, precision, automatic=engine == "auto")
    if engine == "cpu":
        if why_not is not None:
            raise ModelError(f"engine cpu cannot be used: {why_not}")
        chosen = _asked_for(loaded, "fp32" if precision == "auto" else precision, threads, cache)
        loaded.weights.release()  # what its graphs were made of, if they had to be
        return chosen, "asked for"
    if why_not is None and cache is None:
        why_not = "no folder is given where other engines could keep their graphs"
    if why_not is not None or cache is None:
        return _eager(loaded, device, precision), str(why_not)
    return _Candidates(loaded, threads, cache).fastest(precision)


def read_quantized(loaded: LoadedBundle) -> Quantized:
    """What `mmcat bundle calibrate` put into the bundle's folder.

    Raises:
        ModelError: nothing, or nothing that can be used.
    """
    if loaded.folder is None:
        raise ModelError(f"a bundle without a folder has no {FILE}")
    return Quantized.read(loaded.folder / FILE, loaded.fingerprint)


def _eager(loaded: LoadedBundle, device: str, precision: str) -> EagerEngine:
    return EagerEngine(loaded.model, loaded.preprocessing, device, precision)


def _asked_for(loaded: LoadedBundle, precision: str, threads: int | None, cache: Path | None) -> CpuEngine:
    quantized = read_quantized(loaded) if precision == "int8" else None
    return _cpu(loaded, precision, threads, cache, quantized)


def _cpu(
    loaded: LoadedBundle, precision: str, threads: int | None, cache: Path | None, quantized: Quantized | None
) -> CpuEngine:
    return CpuEngine.load(
        loaded.weights,
        loaded.preprocessing,
        threads or torch.get_num_threads(),
        None if cache is None else _own(loaded, cache),
        precision,
        quantized if precision == "int8" else None,
    )


def _own(loaded: LoadedBundle, cache: Path) -> Path:
    return cache / f"{loaded.fingerprint[:16]}-{graphs.version()}"


def _why_not(device: str, precision: str, *, automatic: bool) -> str | None:
    """Why the CPU engine cannot be used, if it cannot."""
    if device not in ("auto", "cpu"):
        return f"device is {device}"
    if automatic and device == "auto" and torch.cuda.is_available():
        return "there is a CUDA device"
    if precision not in ("auto", *PROMISES):
        return f"precision is {precision}, and the CPU engine computes in {', '.join(PROMISES)}"
    if (lacks := graphs.missing()) is not None:
        return lacks
    if not _has(precision):
        return f"precision is {precision}, and this CPU has no {precision}"
    return None


def _has(precision: str) -> bool:
    """Whether this CPU computes in it."""
    return {"bf16": graphs.has_bf16, "int8": graphs.has_int8}.get(precision, lambda: True)()


class _Candidates:
    """The engines that "auto" compares. None is made before it is needed: verdicts may be kept.

    Args:
        threads, cache: as in `choose`.
    """

    def __init__(self, loaded: LoadedBundle, threads: int | None, cache: Path) -> None:
        self._loaded, self._threads, self._cache = loaded, threads, cache
        self._index = PathIndex(loaded.taxonomy)
        self._reasons: list[str] = []
        self._quantized = self._read()

    def fastest(self, precision: str) -> tuple[Engine, str]:
        """The fastest that agrees, and why; eager where there is none, or it cannot be made."""
        wanted = [one for one in ("int8", "bf16", "fp32") if _has(one)] if precision == "auto" else [precision]
        if self._quantized is None and "int8" in wanted:
            wanted.remove("int8")
        verdicts = {one: told for one in wanted if (told := self._tried(self._verdict, one)) is not None}
        # Who asks for bf16 asks for its rounding.
        agree = [one for one in verdicts if precision != "auto" or verdicts[one].keeps(PROMISES[one])]
        for best in sorted(agree, key=lambda one: -verdicts[one].faster):
            if verdicts[best].faster >= _MARGIN and (chosen := self._tried(self._cpu, best)) is not None:
                self._reasons[:0] = [f"{best}: {verdicts.pop(best)}"]
                self._tell(verdicts, agree, "slower")
                self._loaded.weights.release()
                return chosen, "; ".join(self._reasons)
        self._tell(verdicts, agree, "no faster")
        return _eager(self._loaded, "cpu", precision), "; ".join(self._reasons)

    def _tried(self, make: Callable[[str], T], precision: str) -> T | None:
        """None, and why, where this CPU engine cannot be made: another may be."""
        try:
            return make(precision)
        except ModelError as error:
            self._reasons.append(f"the CPU engine in {precision} could not be made: {error}")
            return None

    def _tell(self, verdicts: dict[str, Verdict], agree: list[str], else_: str) -> None:
        for one, verdict in verdicts.items():
            word = else_ if one in agree else "not in agreement"
            self._reasons.append(f"the CPU engine in {one} is {word}: {verdict}")

    def _read(self) -> Quantized | None:
        """The int8 file of the bundle; what is wrong with one that is there is a reason not to take it."""
        if self._loaded.folder is None or not (self._loaded.folder / FILE).exists():
            return None
        try:
            return read_quantized(self._loaded)
        except ModelError as error:
            self._reasons.append(f"int8 is left out: {error}")
            return None

    def _cpu(self, precision: str) -> CpuEngine:
        return _cpu(self._loaded, precision, self._threads, self._cache, self._quantized)

    def _verdict(self, precision: str) -> Verdict:
        """The one that is kept, else by judging; blocks for as long as that takes."""
        digest = None if self._quantized is None else self._quantized.digest
        threads = self._threads or torch.get_num_threads()
        facts = (platform.machine(), platform.processor(), _cpu_model(), threads, digest)
        name = f"verdict-{precision}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}.json"
        kept = _own(self._loaded, self._cache) / name
        try:
            return Verdict(**json.loads(kept.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            cpu = self._cpu(precision)
            verdict = judge(self._eager, cpu, self._sample(PROMISES[precision].drawn), self._index)
        with suppress(OSError):  # a full or read-only folder: the next start judges again
            beside = kept.with_suffix(f".{time.time_ns()}")
            beside.write_text(json.dumps(asdict(verdict)) + "\n", encoding="utf-8")
            beside.replace(kept)
        return verdict

    @cached_property
    def _eager(self) -> EagerEngine:
        return _eager(self._loaded, "cpu", "fp32")

    def _sample(self, drawn: int) -> Sample:
        """Real listings where the bundle was calibrated on some, else so many drawn batches."""
        if self._quantized is not None:
            return self._quantized.sample
        return answered(self._eager, drawn_batches(self._loaded, drawn), self._index, "drawn")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return "".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features"))}))
