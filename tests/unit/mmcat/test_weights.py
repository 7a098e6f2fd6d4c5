"""A bundle's weights: read when somebody asks for a model, as they were when the bundle was verified."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmcat import bundle
from mmcat.categorizer import Categorizer
from mmcat.engines import choice
from mmcat.engines.agreement import Verdict, drawn_batches
from mmcat.engines.base import logits
from mmcat.engines.choice import choose
from mmcat.engines.eager import EagerEngine
from mmcat.errors import BundleError
from mmcat.features import fingerprints
from mmcat.weights import Weights
from tests.support.tiny import make_tiny_bundle, tiny_parts
from tests.unit.mmcat.test_bundle import _mend_sum


@pytest.fixture
def text_bundle(tmp_path: Path) -> Path:
    """A bundle without ResNet50, to change."""
    return make_tiny_bundle(tmp_path / "bundle", modality="text")


def test_a_model_that_was_never_drawn_answers_as_the_one_that_was_written(tiny_bundle: Path) -> None:
    """Bit for bit, what is in no file included: positions, and what counts batches."""
    loaded, parts = bundle.load(tiny_bundle), tiny_parts()
    batch = drawn_batches(loaded, 1)[0]
    written, read = (
        logits(EagerEngine(model, loaded.preprocessing, "cpu", "fp32"), batch) for model in (parts.model, loaded.model)
    )
    for ours_BC, theirs_BC in zip(read, written, strict=True):
        assert np.array_equal(ours_BC, theirs_BC)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("members.0.no_text"), "Missing .*members.0.no_text"),
        (lambda state: state.update(surprise=torch.zeros(1)), "Unexpected .*surprise"),
        (lambda state: state.update({"members.0.no_text": torch.zeros(3)}), "size mismatch for members.0.no_text"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(text_bundle: Path, change: object, named: str) -> None:
    file = text_bundle / "model.safetensors"
    state = load_file(file)
    change(state)  # type: ignore[operator]  # of many types
    save_file(state, file, metadata={"format": "pt"})
    _mend_sum(text_bundle, file.name)
    for load in (bundle.load, Categorizer.load):
        with pytest.raises(BundleError, match=rf"{text_bundle}: the weights do not fit .*{named}") as caught:
            load(text_bundle)
        assert "\n" not in str(caught.value)


def test_a_bundle_that_is_replaced_after_it_was_verified_changes_nothing(text_bundle: Path) -> None:
    loaded, before = bundle.read(text_bundle), bundle.load(text_bundle)
    make_tiny_bundle(text_bundle, modality="text", seed=1)
    assert bundle.load(text_bundle).fingerprint != before.fingerprint
    for name, value in before.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


def test_keys_of_kept_vectors_are_the_same_whether_a_model_was_built_or_not(tiny_bundle: Path) -> None:
    unread = bundle.read(tiny_bundle)
    found = fingerprints(unread, "openvino-cpu", "bf16")
    assert sorted(found) == ["image", "text"]
    assert found == fingerprints(bundle.load(tiny_bundle), "openvino-cpu", "bf16")
    assert found == fingerprints(replace(unread, weights=Weights.of(tiny_parts().model)), "openvino-cpu", "bf16")
    _ = EagerEngine(unread.model, unread.preprocessing, "cpu", "bf16")  # converts it in place
    assert not set(fingerprints(unread, "openvino-cpu", "bf16").values()) & set(found.values())


@pytest.mark.parametrize("engine", ["cpu", "auto"])
def test_the_cpu_engine_leaves_no_model_behind_and_builds_none_again(
    engine: str, text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict(1.0, 1e-6, 1.9, "32 drawn listings")
    monkeypatch.setattr(choice._Candidates, "_verdict", lambda *_: verdict)
    loaded = bundle.read(text_bundle)
    assert loaded.model.config == loaded.config
    for one in (loaded, bundle.read(text_bundle)):
        found, _ = choose(one, engine=engine, device="cpu", precision="fp32", cache=tmp_path / "engines")
        assert found.name == "openvino-cpu"
        assert "model" not in vars(one.weights)
        monkeypatch.setattr("mmcat.weights._built", _never)


def _never(*_: object) -> None:
    raise AssertionError("a model was built")


def test_a_start_with_graphs_builds_no_model_and_imports_nothing_that_would(text_bundle: Path, tmp_path: Path) -> None:
    choose(bundle.read(text_bundle), engine="cpu", device="cpu", cache=tmp_path / "engines")
    script = (
        "import sys; from pathlib import Path\n"
        "from mmcat.categorizer import Categorizer\n"
        f"one = Categorizer.load({str(text_bundle)!r}, engine='cpu', cache=Path({str(tmp_path / 'engines')!r}))\n"
        "one.warm_up()\n"
        "assert one.info.engine == 'openvino-cpu'\n"
        "loaded = [name for name in ('transformers', 'torchvision') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=280)
