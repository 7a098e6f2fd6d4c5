"""A bundle comes back as it was written, or is refused by the name of what is wrong."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from mmcat import Categorizer, bundle
from mmcat.errors import BundleError, ModelError
from mmcat.listing import ImageStatus
from mmcat.model import CategoryModel
from mmcat.reference import Reference
from mmcat.taxonomy import Taxonomy
from tests.support.tiny import CREATED_MS, TinyParts, make_tiny_bundle, tiny_parts

FILES = {"bundle.json", "model.safetensors", "taxonomy.tsv", "tokenizer.json", "README.md", "SHA256SUMS"}


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to break; the weights are a hard link, replaced and never written in place."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder, copy_function=os.link)
    for file in folder.iterdir():
        if file.name != "model.safetensors":
            body = file.read_bytes()
            file.unlink()
            file.write_bytes(body)
    return folder


def _edit(folder: Path, **changes: object) -> None:
    """Changes bundle.json and mends its sum: what a careful hand would do."""
    manifest = json.loads((folder / "bundle.json").read_text())
    for key, value in changes.items():
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value
    (folder / "bundle.json").write_text(json.dumps(manifest))
    _mend_sum(folder, "bundle.json")


def _mend_sum(folder: Path, name: str) -> None:
    lines = [line for line in (folder / "SHA256SUMS").read_text().splitlines() if not line.endswith(f"  {name}")]
    lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}")
    (folder / "SHA256SUMS").write_text("\n".join(sorted(lines)) + "\n")


def _write(folder: Path, parts: TinyParts, **changes: object) -> str:
    values: dict[str, object] = {
        "model": parts.model,
        "tokenizer": parts.tokenizer,
        "taxonomy": parts.taxonomy,
        "preprocessing": parts.preprocessing,
        "calibration": parts.calibration,
        "name": "tiny",
        "metrics": {},
        "split_fingerprint": "",
        "data_note": "",
        "created_ms": CREATED_MS,
    }
    return bundle.write(folder, **{**values, **changes})  # type: ignore[arg-type]  # values of many types by name


def test_a_bundle_comes_back_as_it_was_written(tiny_bundle: Path) -> None:
    parts, loaded = tiny_parts(), bundle.load(tiny_bundle)
    assert {file.name for file in tiny_bundle.iterdir()} == FILES
    assert (loaded.name, loaded.created_ms, loaded.metrics) == ("tiny", CREATED_MS, {"path_accuracy": 0.0})
    assert loaded.taxonomy == parts.taxonomy
    assert loaded.preprocessing == parts.preprocessing
    assert loaded.calibration == parts.calibration
    assert loaded.model.config == parts.model.config
    assert not loaded.model.training
    for name, value in parts.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


def test_the_fingerprint_is_the_sum_of_the_sums(tiny_bundle: Path) -> None:
    expected = hashlib.sha256((tiny_bundle / "SHA256SUMS").read_bytes()).hexdigest()
    assert bundle.fingerprint(tiny_bundle) == bundle.load(tiny_bundle).fingerprint == expected


def test_the_same_parts_give_the_same_fingerprint(tmp_path: Path) -> None:
    first = _write(tmp_path / "a", tiny_parts("text"))
    assert first == _write(tmp_path / "b", tiny_parts("text"))
    assert first != _write(tmp_path / "c", tiny_parts("text"), created_ms=CREATED_MS + 1)


def test_writing_and_loading_never_ask_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    bundle.load(make_tiny_bundle(tmp_path / "b", modality="text"))


def test_a_bundle_that_reads_photos_alone_has_no_tokenizer(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "b", modality="image")
    assert {file.name for file in folder.iterdir()} == FILES - {"tokenizer.json"}
    assert bundle.load(folder).tokenizer is None


@pytest.mark.parametrize("modality", ["both", "image"])
def test_a_bundle_whose_photo_vectors_came_with_the_data_is_measured_and_not_served(
    tmp_path: Path, modality: Literal["both", "image"]
) -> None:
    folder = make_tiny_bundle(tmp_path / "b", modality=modality, given_photo_width=7)
    loaded = bundle.load(folder)
    assert loaded.model.image_encoder is None
    text_BTD = None if modality == "image" else torch.zeros(2, 1, 32)
    assert loaded.model.fuse(text_BTD, torch.ones(2, 1, 7))[0].shape[0] == 2
    card = (folder / "README.md").read_text()
    assert "photo vectors of width 7 that came with the data" in card
    assert "- Not for service: its photo vectors (7 wide)" in card
    assert "mmcat predict" not in card
    with pytest.raises(BundleError, match=r"b: its photo vectors \(7 wide\) came with the data") as refused:
        Categorizer.load(folder)
    assert "\n" not in str(refused.value)


def test_bundles_that_encode_photos_say_nothing_of_given_vectors(tiny_bundle: Path) -> None:
    assert "given_photo_width" not in json.loads((tiny_bundle / "bundle.json").read_text())["model"]


def test_an_older_bundle_is_replaced_and_nothing_lies_beside(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "b", modality="text", name="old")
    make_tiny_bundle(tmp_path / "b", modality="text", name="new")
    assert bundle.load(tmp_path / "b").name == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["b"]


def test_a_failed_write_leaves_the_old_bundle_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_bundle(tmp_path / "b", modality="text", name="old")
    for step in ("save_file", "model_card", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(bundle, step, _disk_full)
            with pytest.raises(OSError, match="disk full"):
                make_tiny_bundle(tmp_path / "b", modality="text", name="new")
        assert bundle.load(tmp_path / "b").name == "old"
        assert [file.name for file in tmp_path.iterdir()] == ["b"]


def _disk_full(*_: object, **__: object) -> None:
    raise OSError("disk full")


def test_a_folder_that_is_no_bundle_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle"):
        make_tiny_bundle(tmp_path, modality="text")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        bundle.load(copy)


@pytest.mark.parametrize("name", sorted(FILES - {"SHA256SUMS"}))
def test_one_changed_byte_is_named(copy: Path, name: str) -> None:
    body = bytearray((copy / name).read_bytes())
    body[len(body) // 2] ^= 1
    (copy / name).unlink()
    (copy / name).write_bytes(bytes(body))
    with pytest.raises(BundleError, match=rf"{name} has changed"):
        bundle.load(copy)


def _link_beside(folder: Path) -> None:
    (folder / "extra").symlink_to("/etc/hostname")


def _link_in_place(folder: Path) -> None:
    (folder / "taxonomy.tsv").rename(folder.parent / "elsewhere.tsv")
    (folder / "taxonomy.tsv").symlink_to(folder.parent / "elsewhere.tsv")


def _folder_inside(folder: Path) -> None:
    (folder / "code").mkdir()


def _sum_outside(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../secrets\n")


def _other_tree(folder: Path) -> None:
    text = (folder / "taxonomy.tsv").read_text().replace("Boots", "Stiefel")
    (folder / "taxonomy.tsv").write_text(text)
    _mend_sum(folder, "taxonomy.tsv")


def _not_json(folder: Path) -> None:
    (folder / "bundle.json").write_text("{")
    _mend_sum(folder, "bundle.json")


def _a_list(folder: Path) -> None:
    (folder / "bundle.json").write_text("[]")
    _mend_sum(folder, "bundle.json")


def _other_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    _mend_sum(folder, "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_link_beside, "extra is not a plain file"),
        (_link_in_place, "taxonomy.tsv is not a plain file"),
        (_folder_inside, "code is not a plain file"),
        (_sum_outside, "lists other files"),
        (_other_tree, "taxonomy.tsv is not the one"),
        (_not_json, "bundle.json is not JSON"),
        (_a_list, "format version None"),
        (_other_weights, "weights do not fit"),
        (lambda folder: _edit(folder, format_version=1), "format version 1, and this mmcat reads 3: train it again"),
        (lambda folder: _edit(folder, format_version=4), "format version 4, and this mmcat reads 3: update mmcat"),
        (lambda folder: _edit(folder, reference={}), "reference cannot be read"),
        (lambda folder: _edit(folder, surprise=1), "surprise"),
        (lambda folder: _edit(folder, calibration=None), "calibration"),
        (lambda folder: _edit(folder, calibration={}), "calibration cannot be read"),
        (lambda folder: _edit(folder, model={}), "configuration differs"),
        (lambda folder: _edit(folder, created_ms="now"), "created_ms is 'now'"),
        (lambda folder: _edit(folder, created_ms=True), "created_ms is True"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(copy: Path, change: Callable[[Path], None], message: str) -> None:
    change(copy)
    with pytest.raises(BundleError, match=message) as caught:
        bundle.load(copy)
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


def test_a_plain_extra_file_does_no_harm(copy: Path) -> None:
    (copy / ".DS_Store").write_bytes(b"\x00")
    assert bundle.load(copy).name == "tiny"


def test_a_creation_time_more_than_a_day_ahead_is_refused(tiny_bundle: Path) -> None:
    assert bundle.load(tiny_bundle, now_ms=CREATED_MS - bundle.DAY_MS).created_ms == CREATED_MS
    with pytest.raises(BundleError, match="more than a day ahead"):
        bundle.load(tiny_bundle, now_ms=CREATED_MS - bundle.DAY_MS - 1)


@pytest.mark.parametrize("folder", ["absent", "SHA256SUMS"])
def test_what_is_no_folder_is_refused(tiny_bundle: Path, folder: str) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        bundle.load(tiny_bundle / folder)
    with pytest.raises(BundleError, match="not a bundle"):
        bundle.fingerprint(tiny_bundle / "absent")


def test_parts_that_do_not_belong_together_are_not_written(tmp_path: Path) -> None:
    parts = tiny_parts("text")
    changes: list[tuple[dict[str, object], str]] = [
        ({"taxonomy": Taxonomy.from_names([["a"]])}, "classes"),
        ({"preprocessing": replace(parts.preprocessing, px=65)}, "65"),
        ({"preprocessing": replace(parts.preprocessing, max_tokens=99)}, "99"),
        ({"tokenizer": None}, "tokenizer"),
        ({"model": CategoryModel(parts.model.config, encoders=False)}, "without its encoders"),
    ]
    for change, message in changes:
        with pytest.raises(BundleError, match=message):
            _write(tmp_path / "b", parts, **change)
    assert not list(tmp_path.iterdir())


def test_the_reference_comes_back_and_the_card_says_what_there_is(tmp_path: Path) -> None:
    parts = tiny_parts("text")
    answers, probabilities = np.array([0, 0, 11]), np.array([0.2, 1.0, 0.999])
    photos = [ImageStatus.USED, ImageStatus.ABSENT, ImageStatus.USED]
    reference = Reference.of(parts.taxonomy, answers, probabilities, photos)
    metrics = {
        "measured on": "test",
        "path_accuracy": 0.5,
        "level_accuracy": [0.9, None, 0.5, 0.25],
        "withheld": {"image": 0.125},
        "by_training_rows": [["under 10", 12, 0.375], ["10 and more", 0, None]],
    }
    changes = {"metrics": metrics, "reference": reference, "label_note": "2.1 % are wrong"}
    _write(tmp_path / "b", parts, **changes)
    loaded = bundle.load(tmp_path / "b")
    assert loaded.reference == reference
    assert reference.paths == {"fashion>shoes": 2, "vouchers": 1}
    assert reference.photos == {"absent": 1, "used": 2}
    assert (reference.probabilities[4], reference.probabilities[-1], reference.rows) == (1, 2, 3)
    card = (tmp_path / "b" / "README.md").read_text()
    for said in ("2.1 % are wrong", "| 4 | 0.250 |", "| 2 | no rows |", "| photo withheld | 0.125 |", "3 answers"):
        assert said in card
    assert "| under 10 | 12 | 0.375 |" in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": {"a": -1}}, "counts"),
        ({"probabilities": [1]}, "20 bins"),
        ({"photos": {"lost": 1}}, "known"),
        ({"photos": {"used": 2}}, "same rows"),
    ],
)
def test_histograms_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"paths": {"a": 1}, "probabilities": [0] * 19 + [1], "photos": {"used": 1}}
    assert Reference.from_json(good).rows == 1
    with pytest.raises(ModelError, match=message):
        Reference.from_json(good | change)
