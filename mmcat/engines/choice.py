"""Which engine runs a bundle: the fastest that answers as eager PyTorch in float32 does, or the one that was asked for.

    engine "auto", on a CPU ─> graphs made or found ─> bf16, then fp32: beside eager on one calibration set ─> verdict

The first that keeps its promise and is faster is taken, in the order of their speed. Verdicts are kept beside the
graphs, for this bundle, version, precision, kind of CPU and number of threads. The calibration set is drawn, because a
bundle holds no listings: titles of the taxonomy's own names, photos of soft colours with noise, and listings that lack
either. A model is less sure of them than of real listings, so rounding turns a path sooner here than there, and bf16
that keeps its promise on real listings may fail here: then it runs where it is asked for.

After cpu.py and eager.py; before categorizer.py.
"""

import hashlib
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mmcat.bundle import LoadedBundle
from mmcat.engines import graphs
from mmcat.engines.base import Batch, Engine, logits
from mmcat.engines.cpu import CpuEngine
from mmcat.engines.eager import EagerEngine
from mmcat.errors import ModelError
from mmcat.paths import PathIndex

ENGINES = ("auto", "eager", "cpu")


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised of an engine, against eager PyTorch in float32.

    Args:
        same_paths: share of equal paths, at least.
        probability: how far a probability may be off.
        batches: drawn, of 16 listings each; of the 256 for bf16 one path may differ, of the 32 for fp32 none.
    """

    same_paths: float
    probability: float
    batches: int


PROMISES = {"fp32": Promise(0.999, 1e-3, batches=2), "bf16": Promise(0.995, 0.1, batches=16)}
_LISTINGS, _ROUNDS, _TIMED = 16, 4, 2  # of a batch; rounds of both engines in turns; batches that are timed
_MARGIN = 1.05  # an engine that is not even so much faster is not worth another


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the CPU engine did against eager.

    Args:
        same_paths: share of equal answers.
        probability: largest difference of an answer's probability, before calibration.
        faster: eager's time over the engine's.
    """

    same_paths: float
    probability: float
    faster: float

    def keeps(self, promise: Promise) -> bool:
        return self.same_paths >= promise.same_paths and self.probability <= promise.probability

    def __str__(self) -> str:
        return (
            f"{self.faster:.2f} times the speed of eager, {self.same_paths:.1%} of paths equal on a calibration set,"
            f" probabilities within {self.probability:.0e}"
        )


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
        threads: of the CPU; None: as many as PyTorch would take.
        cache: where graphs and verdicts of all bundles are kept. Without it "auto" is eager: making graphs for one
            use would cost more than it brings.

    Raises:
        ModelError: no such engine, or it cannot run what is asked.
    """
    if engine not in ENGINES:
        raise ModelError(f"engine {engine!r} is unknown: use {', '.join(ENGINES)}")
    if engine == "eager":
        return _eager(loaded, device, precision), "asked for"
    why_not = _why_not(device, precision, automatic=engine == "auto")
    if engine == "cpu":
        if why_not is not None:
            raise ModelError(f"engine cpu cannot be used: {why_not}")
        return _cpu(loaded, "fp32" if precision == "auto" else precision, threads, cache), "asked for"
    if why_not is None and cache is None:
        why_not = "no folder is given where other engines could keep their graphs"
    if why_not is not None or cache is None:
        return _eager(loaded, device, precision), str(why_not)
    return _fastest(loaded, precision, threads, cache)


def _eager(loaded: LoadedBundle, device: str, precision: str) -> EagerEngine:
    return EagerEngine(loaded.model, loaded.preprocessing, device, precision)


def _cpu(loaded: LoadedBundle, precision: str, threads: int | None, cache: Path | None) -> CpuEngine:
    own = None if cache is None else _own(loaded, cache)
    return CpuEngine.load(loaded.model, loaded.preprocessing, threads or torch.get_num_threads(), own, precision)


def _own(loaded: LoadedBundle, cache: Path) -> Path:
    return cache / f"{loaded.fingerprint[:16]}-{graphs.version()}"


def _why_not(device: str, precision: str, *, automatic: bool) -> str | None:
    """Why the CPU engine cannot be used, if it cannot."""
    if device not in ("auto", "cpu"):
        return f"device is {device}"
    if automatic and device == "auto" and torch.cuda.is_available():
        return "there is a CUDA device"
    if precision not in ("auto", *PROMISES):
        return f"precision is {precision}, and the CPU engine computes in {' or '.join(PROMISES)}"
    if (lacks := graphs.missing()) is not None:
        return lacks
    if precision == "bf16" and not graphs.has_bf16():
        return "precision is bf16, and this CPU has no bf16"
    return None


def _fastest(loaded: LoadedBundle, precision: str, threads: int | None, cache: Path) -> tuple[Engine, str]:
    """The CPU engine in the fastest precision that agrees; eager where there is none, or it cannot be made."""
    eager, reasons = _eager(loaded, "cpu", "fp32"), []
    try:
        for one in _precisions(precision):
            cpu = _cpu(loaded, one, threads, cache)
            verdict = _judged(loaded, eager, cpu, _own(loaded, cache), threads)
            if not verdict.keeps(PROMISES[one]) and precision != "bf16":  # who asks for bf16 asks for its rounding
                reasons.append(f"the CPU engine in {one} does not agree: {verdict}")
            elif verdict.faster < _MARGIN:
                reasons.append(f"the CPU engine in {one} is no faster: {verdict}")
            else:
                return cpu, "; ".join([*reasons, f"{one}: {verdict}"])
    except (ModelError, OSError) as error:
        reasons.append(f"the CPU engine could not be made: {error}")
    return _eager(loaded, "cpu", precision), "; ".join(reasons)


def _precisions(wish: str) -> list[str]:
    """Those to be tried, fastest first."""
    if wish != "auto":
        return [wish]
    return ["bf16", "fp32"] if graphs.has_bf16() else ["fp32"]


def _judged(loaded: LoadedBundle, eager: Engine, cpu: Engine, own: Path, threads: int | None) -> Verdict:
    facts = (platform.machine(), platform.processor(), _cpu_model(), threads or torch.get_num_threads())
    name = f"verdict-{cpu.precision}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}.json"
    kept = own / name
    try:
        return Verdict(**json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        batches = drawn_batches(loaded, PROMISES[cpu.precision].batches)
        verdict = judge(eager, cpu, batches, PathIndex(loaded.taxonomy))
    beside = kept.with_suffix(f".{time.time_ns()}")
    beside.write_text(json.dumps(asdict(verdict)) + "\n", encoding="utf-8")
    beside.replace(kept)
    return verdict


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return "".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features"))}))


def judge(eager: Engine, other: Engine, batches: list[Batch], index: PathIndex) -> Verdict:
    """Runs both engines on the same batches in turns: all once, to compare and to warm up, then some to time them."""
    same, off, ratios = [], 0.0, []
    for round_ in range(_ROUNDS):
        for batch in batches[: _TIMED if round_ else None]:
            started = time.perf_counter()
            expected = logits(eager, batch)
            between = time.perf_counter()
            found = logits(other, batch)
            ended = time.perf_counter()
            if round_:
                ratios.append((between - started) / (ended - between))
                continue
            theirs, ours = index.decode(index.scores(expected)), index.decode(index.scores(found))
            same.append(theirs.rows[:, 0] == ours.rows[:, 0])
            off = max(off, float(np.abs(theirs.probabilities - ours.probabilities).max()))
    return Verdict(float(np.concatenate(same).mean()), off, statistics.median(ratios))


def drawn_batches(loaded: LoadedBundle, count: int) -> list[Batch]:
    """The calibration set; the same for the same bundle."""
    dice = np.random.default_rng(int(loaded.fingerprint[:8], 16))
    names = sorted({node.name for path in loaded.taxonomy.paths for node in path})
    return [_drawn(loaded, names, dice) for _ in range(count)]


def _drawn(loaded: LoadedBundle, names: list[str], dice: np.random.Generator) -> Batch:
    config, px = loaded.model.config, loaded.preprocessing.px
    titles = [" ".join(dice.choice(names, dice.integers(1, 7))) for _ in range(_LISTINGS)]
    has_text = (np.arange(_LISTINGS) % 4 != 1) & config.reads_text
    has_image = (np.arange(_LISTINGS) % 4 != 2) & config.reads_image
    soft = (
        dice.integers(0, 256, (int(has_image.sum()), 4, 4, 3)).repeat(-(-px // 4), axis=1).repeat(-(-px // 4), axis=2)
    )
    noisy = soft[:, :px, :px] + dice.normal(0, 20, (len(soft), px, px, 3))
    ids, mask = loaded.tokenizer.encode(titles) if loaded.tokenizer is not None else (None, None)
    pixels = np.clip(noisy, 0, 255).astype(np.uint8) if config.reads_image else None
    return Batch.of(ids, mask, pixels, has_text, has_image)
