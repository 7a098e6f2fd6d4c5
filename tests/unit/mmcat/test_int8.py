"""int8: the file that `mmcat bundle calibrate` makes, answers beside eager's, and "auto" on real listings."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcat import bundle
from mmcat.categorizer import Categorizer
from mmcat.engines import choice, graphs, quantize
from mmcat.engines.agreement import PROMISES, Verdict, judge
from mmcat.engines.base import Batch, Engine, logits
from mmcat.engines.choice import choose
from mmcat.engines.eager import EagerEngine
from mmcat.engines.int8 import FILE, Quantized, Sample, write
from mmcat.errors import ModelError
from mmcat.features import fingerprints
from mmcat.paths import PathIndex
from tests.support.quantized import calibrated, prepared_listings
from tests.support.tiny import make_tiny_bundle

pytest.importorskip("nncf", reason="the extra `calibrate` is not installed")


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both encoders in int8. Read only: copy it to change it."""
    folder = make_tiny_bundle(tmp_path_factory.mktemp("int8") / "bundle")
    calibrated(folder)
    return folder


@pytest.fixture
def copied(int8_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(int8_bundle, tmp_path / "bundle")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


# ── The file ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_file_leaves_the_bundle_as_it_is_and_gives_back_what_was_put_in(
    int8_bundle: Path, tiny_bundle: Path
) -> None:
    loaded = bundle.load(int8_bundle)
    assert loaded.fingerprint == bundle.fingerprint(int8_bundle)
    assert {file.name for file in int8_bundle.iterdir()} == {file.name for file in tiny_bundle.iterdir()} | {FILE}
    read = Quantized.read(int8_bundle / FILE, loaded.fingerprint)
    assert set(read.graphs) == {"text", "image"}
    assert [len(batch) for batch in read.sample.batches] == [16, 16, 8]
    assert str(read.sample) == "40 real listings"
    eager = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    verdict = judge(eager, eager, read.sample, PathIndex(loaded.taxonomy))
    assert verdict.keeps(PROMISES["fp32"])  # eager's own answers are in it


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _other(file: Path) -> None:
    read = Quantized.read(file, bundle.fingerprint(file.parent))
    write(file.parent, "f" * 64, read.graphs, read.sample)


def _again(folder: Path) -> None:
    """As if it had been calibrated anew, and judged on fewer listings."""
    read = Quantized.read(folder / FILE, bundle.fingerprint(folder))
    sample = replace(read.sample, batches=read.sample.batches[:1], rows=read.sample.rows[:16])
    sample = replace(sample, probabilities=sample.probabilities[:16])
    write(folder, bundle.fingerprint(folder), read.graphs, sample)


def _garbage(file: Path) -> None:
    file.write_bytes(b"no file of this kind")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (Path.unlink, "is not there"),
        (_cut, "cannot be read"),
        (_garbage, "cannot be read"),
        (_flip, "has changed since it was written"),
        (_other, "was made of another bundle"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence_and_left_out_by_auto(
    damage: Callable[[Path], None], why: str, copied: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(copied / FILE)
    with pytest.raises(ModelError, match=rf"{FILE} {why}.*mmcat bundle calibrate") as refused:
        Categorizer.load(copied, precision="int8", cache=cache)
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(choice._Candidates, "_verdict", lambda *_: Verdict(1.0, 0.0, 2.0, "these"))
    categorizer = Categorizer.load(copied, device="cpu", cache=cache)
    assert categorizer.info.precision != "int8"
    assert (why in categorizer.why_engine) == (damage is not Path.unlink)


def test_training_it_again_leaves_no_int8_of_the_model_before(copied: Path) -> None:
    make_tiny_bundle(copied, seed=1)
    assert not (copied / FILE).exists()


def test_a_folder_that_cannot_be_written_is_named(int8_bundle: Path, tmp_path: Path) -> None:
    read = Quantized.read(int8_bundle / FILE, bundle.fingerprint(int8_bundle))
    with pytest.raises(ModelError, match=r"nowhere/int8\.safetensors cannot be written"):
        write(tmp_path / "nowhere", "f" * 64, read.graphs, read.sample)


# ── Answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_int8_answers_nearly_as_eager_does_and_says_that_it_is_int8(int8_bundle: Path, cache: Path) -> None:
    loaded = bundle.load(int8_bundle)
    engine, why = choose(loaded, precision="int8", cache=cache)
    assert (engine.name, engine.precision, why) == ("openvino-cpu", "int8", "asked for")
    eager = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    sample = Quantized.read(int8_bundle / FILE, loaded.fingerprint).sample
    for batch in (*sample.batches, _without(sample.batches[0], "title"), _without(sample.batches[0], "photo")):
        for ours_BC, theirs_BC in zip(logits(engine, batch), logits(eager, batch), strict=True):
            assert np.abs(ours_BC - theirs_BC).max() < 1.0  # of logits up to 20
    assert judge(eager, engine, sample, PathIndex(loaded.taxonomy)).same_paths >= 0.9
    assert Categorizer.load(int8_bundle, precision="int8", cache=cache).info.precision == "int8"


def _without(batch: Batch, what: str) -> Batch:
    none = np.full(len(batch), -1)
    return replace(batch, text_rows=none) if what == "title" else replace(batch, pixels=None, image_rows=none)


def test_vectors_of_one_calibration_are_not_those_of_another(int8_bundle: Path, copied: Path, cache: Path) -> None:
    _again(copied)
    engines = [choose(bundle.load(folder), precision="int8", cache=cache)[0] for folder in (int8_bundle, copied)]
    loaded = bundle.load(int8_bundle)
    kept = [fingerprints(loaded, engine.name, engine.numerics) for engine in engines]
    assert not set(kept[0].values()) & set(kept[1].values())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"engine": "eager"}, "engine eager has no int8"),
        ({"device": "cuda"}, "device is cuda"),
        ({"has_int8": False}, "this CPU has no int8"),
    ],
)
def test_int8_is_refused_where_it_cannot_be(
    options: dict[str, str | bool], why: str, int8_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = {name: wish for name, wish in options.items() if isinstance(wish, str)}
    if len(wishes) < len(options):
        monkeypatch.setattr(graphs, "has_int8", lambda: False)
    with pytest.raises(ModelError, match=why):
        Categorizer.load(int8_bundle, precision="int8", cache=cache, **wishes)  # type: ignore[arg-type]  # by name


def test_a_bundle_without_the_file_says_how_to_get_it(tiny_bundle: Path, cache: Path) -> None:
    with pytest.raises(ModelError, match=r"int8\.safetensors is not there: make it anew with mmcat bundle calibrate"):
        Categorizer.load(tiny_bundle, precision="int8", cache=cache)


# ── "auto" ────────────────────────────────────────────────────────────────────────────────────────────────────────────

GOOD = Verdict(1.0, 1e-6, 2.0, "512 real listings")


@pytest.mark.parametrize(
    ("int8", "bf16", "precision", "reason"),
    [
        (replace(GOOD, faster=6.0, same_paths=0.991, probability=0.2), GOOD, "int8", "int8: 6.00 times the speed"),
        (replace(GOOD, faster=6.0, same_paths=0.991), GOOD, "int8", "99.1% of paths equal on 512 real listings"),
        (replace(GOOD, faster=6.0, same_paths=0.989), GOOD, "bf16", "in int8 is not in agreement: 6.00 times"),
        (replace(GOOD, faster=6.0, probability=0.3), GOOD, "bf16", "in int8 is not in agreement"),
        (replace(GOOD, faster=4.0), replace(GOOD, faster=5.0), "bf16", "in int8 is slower: 4.00 times"),
        (replace(GOOD, faster=0.9), replace(GOOD, faster=0.8), "eager", "in int8 is no faster: 0.90 times"),
    ],
)
def test_auto_takes_the_fastest_that_keeps_its_promise_on_real_listings(
    int8: Verdict,
    bf16: Verdict,
    precision: str,
    reason: str,
    int8_bundle: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts = {"int8": int8, "bf16": bf16, "fp32": replace(GOOD, faster=0.7)}
    monkeypatch.setattr(graphs, "has_bf16", lambda: True)
    monkeypatch.setattr(choice._Candidates, "_verdict", lambda _, one: verdicts[one])
    monkeypatch.setattr("mmcat.engines.graphs._HINTS", dict.fromkeys(("fp32", "bf16", "int8"), "f32"))  # any CPU
    categorizer = Categorizer.load(int8_bundle, device="cpu", cache=cache)
    assert ("eager" if categorizer.info.engine == "eager-cpu" else categorizer.info.precision) == precision
    assert reason in categorizer.why_engine


def test_an_int8_that_cannot_be_run_costs_the_other_precisions_nothing(
    int8_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when OpenVINO was replaced by one that cannot read its graphs: before it was judged, and after."""
    made = choice._cpu

    def refusing(loaded: bundle.LoadedBundle, precision: str, *rest: Any) -> Engine:
        if precision == "int8":
            raise ModelError("an int8 graph cannot be run")
        return made(loaded, precision, *rest)

    monkeypatch.setattr(choice, "_cpu", refusing)
    monkeypatch.setattr(graphs, "has_bf16", lambda: False)
    monkeypatch.setattr(choice, "judge", lambda *_: GOOD)
    for judged in (choice._Candidates._verdict, lambda *_: GOOD):
        monkeypatch.setattr(choice._Candidates, "_verdict", judged)
        engine, why = choose(bundle.load(int8_bundle), device="cpu", cache=cache)
        assert (engine.name, engine.precision) == ("openvino-cpu", "fp32")
        assert why.count("the CPU engine in int8 could not be made: an int8 graph cannot be run") == 1


def test_auto_judges_on_the_real_listings_once_for_each_calibration(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Sample] = []

    def noted(eager: Engine, other: Engine, sample: Sample, index: PathIndex) -> Verdict:
        judged.append(sample)
        return replace(judge(eager, other, sample, index), faster=3.0 if other.precision == "int8" else 1.5)

    monkeypatch.setattr(choice, "judge", noted)
    monkeypatch.setattr(graphs, "has_bf16", lambda: False)
    monkeypatch.setitem(PROMISES, "int8", replace(PROMISES["int8"], same_paths=0.5, probability=1.0))
    for _ in range(2):
        engine, why = choose(bundle.load(copied), device="cpu", cache=tmp_path / "engines")
        assert engine.precision == "int8"
        assert "of paths equal on 40 real listings" in why
        assert len(judged) == 2  # int8 and fp32, once
    assert {str(sample) for sample in judged} == {"40 real listings"}
    kept = {json.loads(file.read_text())["listings"] for file in tmp_path.rglob("verdict-*.json")}
    assert kept == {"40 real listings"}
    _again(copied)
    assert "16 real listings" in choose(bundle.load(copied), device="cpu", cache=tmp_path / "engines")[1]
    assert len(judged) == 4


# ── Making it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_nncf_it_says_how_to_get_it(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"nncf not installed \(pip install 'mmcat\[calibrate\]'\)"):
        quantize.quantize(bundle.load(tiny_bundle), prepared_listings(16))


def test_an_encoder_without_listings_is_named(tiny_bundle: Path) -> None:
    blind = [replace(one, pixels=None) for one in prepared_listings(4)]
    with pytest.raises(ModelError, match="no listing has what the image encoder reads"):
        quantize.quantize(bundle.load(tiny_bundle), blind)
