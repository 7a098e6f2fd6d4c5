"""The CPU engine beside eager PyTorch: the same answers over the whole family, and "auto" that says why it chose."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcat import bundle
from mmcat.categorizer import Categorizer
from mmcat.engines import choice, graphs
from mmcat.engines.agreement import PROMISES, Verdict, answered, drawn_batches, judge
from mmcat.engines.base import WHOLE, Batch, Encoded, Engine, logits
from mmcat.engines.choice import choose
from mmcat.engines.cpu import CpuEngine
from mmcat.engines.eager import EagerEngine
from mmcat.engines.int8 import Sample
from mmcat.errors import ModelError
from mmcat.evidence import COALITIONS
from mmcat.paths import PathIndex
from mmcat.weights import Weights
from tests.support.tiny import PX, make_tiny_bundle, tiny_parts
from tests.unit.mmcat.test_categorizer import LISTINGS, _same

TOLERANCE = {"fp32": 1e-4, "bf16": 0.3}  # of logits up to 20: seen are 3e-5 and 0.14
TITLE = 16  # tokens of the longest

FAMILY: dict[str, dict[str, Any]] = {
    "pooled": {},
    "tokens and cells of two stages": {
        "keys": "sequence",
        "grid": 2,
        "members": 2,
        "image_layers": "layer3+layer4",
        "text_pooling": "layers",
    },
    "flat": {"classes": (12,), "text_pooling": "pooler", "fusion": "concat"},
    "text": {"modality": "text", "text_pooling": "cls"},
    "image": {"modality": "image", "image_layers": "layer3+layer4"},
}


def _batch(dice: np.random.Generator, listings: int, changes: dict[str, Any]) -> Batch:
    """Titles of all lengths, each modality missing here and there."""
    lengths = dice.integers(2, TITLE + 1, listings)
    mask = (np.arange(TITLE) < lengths[:, None]).astype(np.int64)
    has_text = (dice.random(listings) < 0.7) & (changes.get("modality") != "image")
    has_image = (dice.random(listings) < 0.7) & (changes.get("modality") != "text")
    pixels = dice.integers(0, 256, (int(has_image.sum()), PX, PX, 3), np.uint8)
    return Batch.of(dice.integers(5, 190, mask.shape) * mask, mask, pixels, has_text, has_image)


@pytest.mark.parametrize("precision", ["fp32", "bf16"] if graphs.has_bf16() else ["fp32"])
@pytest.mark.parametrize("name", FAMILY)
def test_every_member_of_the_family_answers_as_eager_does(name: str, precision: str) -> None:
    parts = tiny_parts(**FAMILY[name])
    cpu = CpuEngine.load(Weights.of(parts.model), parts.preprocessing, threads=2, precision=precision)
    tolerance = TOLERANCE[precision]
    eager = EagerEngine(parts.model, parts.preprocessing, "cpu", "fp32")
    dice = np.random.default_rng(1)
    for listings in (1, 7, 37):
        batch = _batch(dice, listings, FAMILY[name])
        answers = [engine.fuse(engine.encode(batch), COALITIONS) for engine in (cpu, eager)]
        for shown, ours, theirs in zip(COALITIONS, *answers, strict=True):
            for ours_BC, theirs_BC in zip(ours, theirs, strict=True):
                assert ours_BC.dtype == np.float32
                assert np.allclose(ours_BC, theirs_BC, rtol=0, atol=tolerance), (listings, shown)
        for ours_BC, theirs_BC in zip(logits(cpu, batch), logits(eager, batch), strict=True):
            assert np.allclose(ours_BC, theirs_BC, rtol=0, atol=tolerance)


def test_listings_without_a_modality_in_the_whole_batch_are_answered() -> None:
    parts = tiny_parts()
    cpu = CpuEngine.load(Weights.of(parts.model), parts.preprocessing, threads=2)
    eager = EagerEngine(parts.model, parts.preprocessing, "cpu", "fp32")
    batch = _batch(np.random.default_rng(2), 5, {})
    none = np.full(5, -1)
    blind = replace(batch, pixels=None, image_rows=none)
    for one in (blind, replace(batch, text_rows=none), replace(blind, text_rows=none)):
        for ours_BC, theirs_BC in zip(logits(cpu, one), logits(eager, one), strict=True):
            assert np.allclose(ours_BC, theirs_BC, rtol=0, atol=TOLERANCE["fp32"])


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without ResNet50: its graphs are made in half a second."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "text", modality="text")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where engines of this module keep what they make."""
    return tmp_path_factory.mktemp("engines")


@pytest.mark.parametrize("name", ["pooled", "tokens and cells of two stages"])
def test_results_equal_those_of_eager_alone_and_among_others(name: str, tmp_path: Path, cache: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "bundle", **FAMILY[name])
    eager = Categorizer.load(folder, device="cpu", precision="fp32")
    cpu = Categorizer.load(folder, engine="cpu", cache=cache, evidence=True)
    cpu.warm_up()
    assert (eager.info.engine, cpu.info.engine, cpu.info.precision) == ("eager-cpu", "openvino-cpu", "fp32")
    together = cpu.categorize(LISTINGS)
    assert len({result.path for result in together}) > 3
    for listing, result, reference in zip(LISTINGS, together, eager.categorize(LISTINGS), strict=True):
        assert _same(result, reference)
        assert _same(cpu.categorize([listing])[0], result)


@given(rows=st.integers(0, 300), most=st.integers(1, 40))
def test_runs_cover_every_row_once_and_are_as_few_and_as_equal_as_can_be(rows: int, most: int) -> None:
    runs = graphs.cut(rows, most)
    assert [row for run in runs for row in range(run.start, run.stop)] == list(range(rows))
    sizes = [run.stop - run.start for run in runs]
    assert all(1 <= size <= most for size in sizes)
    assert len(runs) == -(-rows // most)
    assert not sizes or max(sizes) - min(sizes) <= 1


# ── What is kept ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_graphs_are_made_once_for_a_bundle_and_a_version(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    export = graphs.export

    def noted(part: graphs.Part, path: Path) -> None:
        made.append(path.stem)
        export(part, path)

    monkeypatch.setattr("mmcat.engines.cpu.export", noted)
    loaded = bundle.load(text_bundle)
    for _ in range(2):
        choose(loaded, engine="cpu", cache=tmp_path / "engines")
    assert sorted(made) == ["fusion", "text"]
    choose(replace(loaded, fingerprint="f" * 64), engine="cpu", cache=tmp_path / "engines")
    assert len(made) == 4
    monkeypatch.setattr(graphs, "FORMAT", graphs.FORMAT + 1)
    choose(loaded, engine="cpu", cache=tmp_path / "engines")
    assert len(made) == 6
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_graph_that_cannot_be_read_is_named(text_bundle: Path, tmp_path: Path) -> None:
    loaded = bundle.load(text_bundle)
    choose(loaded, engine="cpu", cache=tmp_path)
    [broken] = tmp_path.rglob("text.xml")
    broken.write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"text\.xml cannot be run .*remove .*graphs, it is made anew"):
        choose(loaded, engine="cpu", cache=tmp_path)
    engine, why = choose(loaded, device="cpu", cache=tmp_path)
    assert engine.name == "eager-cpu"
    assert "could not be made" in why


def test_a_folder_that_cannot_be_written_is_named(text_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    loaded = bundle.load(text_bundle)
    with pytest.raises(ModelError, match="cannot keep the engine's graphs"):
        choose(loaded, engine="cpu", cache=tmp_path / "file")
    assert choose(loaded, device="cpu", cache=tmp_path / "file")[0].name == "eager-cpu"


# ── "auto" ────────────────────────────────────────────────────────────────────────────────────────────────────────────


GOOD = Verdict(1.0, 1e-6, 1.9, "64 drawn listings")
SLOW, OFF = replace(GOOD, faster=0.9), replace(GOOD, same_paths=0.99, faster=5.0)


@pytest.mark.parametrize(
    ("bf16", "fp32", "precision", "reason"),
    [
        (
            replace(GOOD, faster=5.0),
            GOOD,
            "bf16",
            "bf16: 5.00 times the speed of eager, 100.0% of paths equal on 64 dr",
        ),
        (replace(GOOD, faster=5.0), GOOD, "bf16", "; the CPU engine in fp32 is slower: 1.90 times"),
        (replace(GOOD, same_paths=0.996, probability=0.02), SLOW, "bf16", "bf16: 1.90 times"),
        (OFF, GOOD, "fp32", "in bf16 is not in agreement: 5.00 times the speed of eager, 99.0% of paths"),
        (replace(GOOD, probability=0.2), GOOD, "fp32", "in bf16 is not in agreement"),
        (GOOD, replace(GOOD, faster=2.0), "fp32", "fp32: 2.00 times the speed of eager"),
        (SLOW, SLOW, "eager", "in bf16 is no faster: 0.90 times"),
        (None, GOOD, "fp32", "fp32: 1.90 times the speed of eager, 100.0% of paths equal"),
        (None, SLOW, "eager", "in fp32 is no faster: 0.90 times"),
        (None, replace(GOOD, same_paths=0.996), "eager", "in fp32 is not in agreement: 1.90 times"),
        (None, replace(GOOD, probability=0.01), "eager", "in fp32 is not in agreement"),
    ],
)
def test_auto_takes_the_fastest_that_agrees_and_says_why(
    bf16: Verdict | None,
    fp32: Verdict,
    precision: str,
    reason: str,
    text_bundle: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None: not to be judged, because the CPU has none."""
    verdicts = {"bf16": bf16, "fp32": fp32}
    monkeypatch.setattr(graphs, "has_bf16", lambda: bf16 is not None)
    monkeypatch.setattr(choice._Candidates, "_verdict", lambda _, one: verdicts[one])
    categorizer = Categorizer.load(text_bundle, device="cpu", cache=cache)
    found = "eager" if categorizer.info.engine == "eager-cpu" else categorizer.info.precision
    assert found == precision
    assert reason in categorizer.why_engine


def test_graphs_that_cannot_be_written_are_no_fault_of_the_model(text_bundle: Path, tmp_path: Path) -> None:
    loaded = bundle.load(text_bundle)
    file = tmp_path / "text.onnx"
    graphs.export(graphs.TextPart(loaded.model), file)
    file.with_suffix(".xml").mkdir()
    with pytest.raises(OSError, match=r"text\.xml"):
        graphs.convert(file)


def test_auto_judges_once_and_anew_where_its_verdict_is_unreadable(
    text_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Verdict] = []

    def noted(eager: Engine, other: Engine, sample: Sample, index: PathIndex) -> Verdict:
        judged.append(replace(judge(eager, other, sample, index), faster=1.5))
        return judged[-1]

    monkeypatch.setattr(choice, "judge", noted)
    monkeypatch.setattr(graphs, "has_bf16", lambda: False)
    loaded = bundle.load(text_bundle)
    reasons = [choose(loaded, device="cpu", cache=cache)[1] for _ in range(2)]
    assert len(judged) == 1
    assert judged[0].keeps(PROMISES["fp32"])
    assert reasons[0] == reasons[1]
    [kept] = (cache / f"{loaded.fingerprint[:16]}-{graphs.version()}").glob("verdict-fp32-*.json")
    assert json.loads(kept.read_text())["same_paths"] == 1.0
    kept.write_text("{")
    choose(loaded, device="cpu", cache=cache)
    assert len(judged) == 2
    choose(loaded, device="cpu", cache=cache, threads=3)
    assert len(judged) == 3  # other threads, another speed
    kept.unlink()
    (kept / "in the way").mkdir(parents=True)
    assert choose(loaded, device="cpu", cache=cache)[1] == reasons[0], "a verdict that cannot be kept costs time alone"
    assert len(judged) == 4


@pytest.mark.parametrize(("verdict", "engine"), [(OFF, "openvino-cpu"), (SLOW, "eager-cpu")])
def test_auto_with_bf16_asked_for_takes_the_faster_engine_in_it(
    verdict: Verdict, engine: str, text_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "has_bf16", lambda: True)
    monkeypatch.setattr(choice._Candidates, "_verdict", lambda *_: verdict)
    found, why = choose(bundle.load(text_bundle), device="cpu", precision="bf16", cache=cache)
    assert (found.name, found.precision) == (engine, "bf16")
    assert str(verdict) in why


def test_auto_judges_bf16_by_itself_on_more_listings_where_the_cpu_has_it(text_bundle: Path, tmp_path: Path) -> None:
    loaded = bundle.load(text_bundle)
    if not graphs.has_bf16():
        with pytest.raises(ModelError, match="bf16"):
            choose(loaded, device="cpu", precision="bf16", engine="cpu", cache=tmp_path)
        return
    engine, why = choose(loaded, device="cpu", precision="bf16", cache=tmp_path)
    [kept] = tmp_path.rglob("verdict-*.json")
    verdict = Verdict(**json.loads(kept.read_text()))
    assert kept.name.startswith("verdict-bf16-")
    assert verdict.same_paths * 256 == int(verdict.same_paths * 256)  # so many were compared
    assert str(verdict) in why
    assert engine.precision == "bf16"  # whichever engine it is: a tiny model may be no faster


class _Off(EagerEngine):
    """Answers with every class moved by a place."""

    def fuse(self, encoded: Encoded, shown: Sequence[tuple[bool, bool]] = WHOLE) -> list[list[npt.NDArray[Any]]]:
        return [[np.roll(level_BC, 1, axis=1) for level_BC in answer] for answer in super().fuse(encoded, shown)]


def test_an_engine_that_answers_otherwise_is_seen(text_bundle: Path) -> None:
    loaded = bundle.load(text_bundle)
    eager, off = (kind(loaded.model, loaded.preprocessing, "cpu", "fp32") for kind in (EagerEngine, _Off))
    index = PathIndex(loaded.taxonomy)
    sample = answered(eager, drawn_batches(loaded, 2), index, "drawn")
    assert judge(eager, eager, sample, index).keeps(PROMISES["fp32"])
    verdict = judge(eager, off, sample, index)
    assert verdict.same_paths < 0.9
    assert not any(verdict.keeps(promise) for promise in PROMISES.values())


@pytest.mark.parametrize("name", FAMILY)
def test_the_calibration_set_has_listings_of_every_kind_and_is_the_same_again(name: str) -> None:
    parts = tiny_parts(**FAMILY[name])
    loaded = bundle.LoadedBundle(
        "tiny", 0, "12345678", Weights.of(parts.model), parts.tokenizer, parts.taxonomy, parts.preprocessing,
        parts.calibration, "", "", {}, None,
    )  # fmt: skip
    first, again = drawn_batches(loaded, 2), drawn_batches(loaded, 2)
    for one, same in zip(first, again, strict=True):
        kinds = set(zip(one.has_text.tolist(), one.has_image.tolist(), strict=True))
        assert len(kinds) == (3 if parts.model.config.modality == "both" else 2)
        assert (one.ids is None) == (not parts.model.config.reads_text)
        assert (one.pixels is None) == (not parts.model.config.reads_image)
        if one.pixels is not None and same.pixels is not None:
            assert one.pixels.shape == (one.has_image.sum(), PX, PX, 3)
            assert np.array_equal(one.pixels, same.pixels)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "no folder is given"),
        ({"precision": "bf16", "has_bf16": False}, "this CPU has no bf16"),
        ({"device": "cpu", "missing": "onnx not installed (pip install 'mmcat[cpu]')"}, r"pip install 'mmcat\[cpu\]'"),
    ],
)
def test_auto_falls_back_to_eager_and_says_why(
    options: dict[str, Any], why: str, text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(options)
    if not options.pop("has_bf16", True):
        monkeypatch.setattr(graphs, "has_bf16", lambda: False)
    if missing := options.pop("missing", None):
        monkeypatch.setattr(graphs, "missing", lambda: missing)
    loaded, cache = bundle.load(text_bundle), None if why.startswith("no folder") else tmp_path
    engine, reason = choose(loaded, cache=cache, **{"device": "cpu", **options})
    assert engine.name == "eager-cpu"
    assert re.search(why, reason)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"device": "cuda"}, "device is cuda"),
        ({"precision": "int4"}, "precision is int4, and the CPU engine computes in fp32, bf16, int8"),
        ({"precision": "bf16"}, "this CPU has no bf16"),
    ],
)
def test_the_cpu_engine_refuses_what_it_cannot_do(
    options: dict[str, str], why: str, text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "has_bf16", lambda: False)
    with pytest.raises(ModelError, match=f"engine cpu cannot be used: .*{why}"):
        Categorizer.load(text_bundle, engine="cpu", **options)  # type: ignore[arg-type]  # options by name


def test_the_cpu_engine_without_its_extra_says_how_to_get_it(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"openvino and onnx not installed \(pip install 'mmcat\[cpu\]'\)"):
        Categorizer.load(text_bundle, engine="cpu")
