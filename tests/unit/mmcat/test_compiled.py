"""The compiled engine beside eager: the same answers for any number of rows, in few shapes. On a CPU, uncompiled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._inductor.runtime.cache_dir_utils import cache_dir

from mmcat import bundle
from mmcat.engines import compiled
from mmcat.engines.base import Batch, logits
from mmcat.engines.choice import choose
from mmcat.engines.compiled import ROWS, CompiledEngine, lengths, runs
from mmcat.engines.eager import EagerEngine
from mmcat.errors import ModelError
from tests.support.tiny import make_tiny_bundle, tiny_parts
from tests.unit.mmcat.test_engines import FAMILY, TITLE, TOLERANCE, _batch


@given(rows=st.integers(0, 700))
def test_runs_cover_every_row_once_and_are_more_than_half_full(rows: int) -> None:
    found = list(runs(rows))
    assert [row for run, _ in found for row in range(run.start, run.stop)] == list(range(rows))
    for run, size in found:
        assert size in ROWS
        assert run.stop - run.start <= size
        assert 2 * (run.stop - run.start) > size or size == ROWS[-1]


@pytest.mark.parametrize("name", FAMILY)
def test_answers_are_those_of_eager_for_any_number_of_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and tokens that fill up a run reach no answer."""
    monkeypatch.setattr(compiled, "ROWS", (4, 2))
    monkeypatch.setattr(torch, "compile", lambda run, **_options: run)
    _same_as_eager(name, [1, 7, 9])


@pytest.mark.parametrize("name", ["text", "image"])
def test_each_encoder_and_the_fusion_can_be_seen_through_as_a_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile's first half, the capture, which fails where Python stands in the way."""
    monkeypatch.setattr(compiled, "ROWS", (4,))
    _same_as_eager(name, [3], backend="eager")


def _same_as_eager(name: str, sizes: Sequence[int], backend: str = "inductor") -> None:
    parts, again = tiny_parts(**FAMILY[name]), tiny_parts(**FAMILY[name])
    engine = CompiledEngine(parts.model, parts.preprocessing, "cpu", "fp32", backend)
    eager = EagerEngine(again.model, again.preprocessing, "cpu", "fp32")
    assert (engine.name, engine.precision) == ("compiled-cpu", "fp32")
    dice = np.random.default_rng(1)
    for listings in sizes:
        batch = _batch(dice, listings, FAMILY[name])
        for ours_BC, theirs_BC in zip(logits(engine, batch), logits(eager, batch), strict=True):
            assert np.allclose(ours_BC, theirs_BC, rtol=0, atol=TOLERANCE["fp32"]), listings


def test_all_shapes_are_made_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that is compiled in the middle of the stream would stop it for a minute."""
    seen: list[set[torch.Size]] = []

    def compile_nothing(run: compiled.Run, **_options: object) -> compiled.Run:
        shapes: set[torch.Size] = set()
        seen.append(shapes)

        def noted(*inputs: torch.Tensor | None) -> list[torch.Tensor]:
            shapes.update(one.shape for one in inputs if one is not None)
            return run(*inputs)

        return noted

    monkeypatch.setattr(torch, "compile", compile_nothing)
    monkeypatch.setattr(compiled, "ROWS", (4, 2))
    changes = FAMILY["tokens and cells of two stages"]
    parts = tiny_parts(**changes)
    engine = CompiledEngine(parts.model, parts.preprocessing, "cpu", "fp32")
    made = [set(shapes) for shapes in seen]
    dice = np.random.default_rng(2)
    for listings in range(1, 10):
        batch = _batch(dice, listings, changes)
        assert batch.ids is not None
        assert batch.mask is not None
        tokens = int(dice.integers(2, 17))
        short = Batch(batch.ids[:, :tokens], batch.mask[:, :tokens], batch.pixels, batch.text_rows, batch.image_rows)
        logits(engine, short)
    assert seen == made


def test_a_long_title_makes_no_other_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, **_options: run)
    parts = tiny_parts(modality="text")
    engine = CompiledEngine(parts.model, parts.preprocessing, "cpu", "fp32")
    mask = (np.arange(TITLE) < np.array([[3], [TITLE], [2]])).astype(np.int64)
    there = np.ones(3, np.bool_)
    read, shapes = engine.read, []

    def noted(ids_RT: torch.Tensor, mask_RT: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(ids_RT.shape))
        return read(ids_RT, mask_RT)

    monkeypatch.setattr(engine, "read", noted)
    logits(engine, Batch.of(mask * 7, mask, None, there, ~there))
    assert shapes == [(2, lengths(TITLE)[0]), (1, TITLE)]


def test_it_is_taken_where_it_is_asked_for_and_has_no_int8(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, **_options: run)
    loaded = bundle.load(make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "text", modality="text"))
    engine, why = choose(loaded, engine="compiled", device="cpu", precision="fp32")
    assert (engine.name, why) == ("compiled-cpu", "asked for")
    with pytest.raises(ModelError, match="engine compiled has no int8"):
        choose(loaded, engine="compiled", precision="int8")


def test_what_was_compiled_is_kept_beside_the_bundle_s_other_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, **_options: run)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    loaded = bundle.load(make_tiny_bundle(tmp_path / "text", modality="text"))
    choose(loaded, engine="compiled", device="cpu", precision="fp32", cache=tmp_path / "engines")
    where = Path(cache_dir())
    assert where.parent == tmp_path / "engines" / "compiled"
    assert where.name == f"{loaded.fingerprint[:16]}-{torch.__version__}"


def test_a_model_that_cannot_be_compiled_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_run: compiled.Run, **_options: object) -> compiled.Run:
        def fail(*_inputs: torch.Tensor | None) -> list[torch.Tensor]:
            raise RuntimeError("Cannot find a working triton installation\nand much more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    parts = tiny_parts(modality="text")
    with pytest.raises(ModelError, match=r"compiled \(Cannot find a working triton installation\): use engine eager"):
        CompiledEngine(parts.model, parts.preprocessing, "cpu", "fp32")
