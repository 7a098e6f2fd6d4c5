"""Which part of real listings the demo shows, and that a look at the test part is written down."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mmcat.cli.bundles import FEATURES, home
from mmcat.cli.demo_data import folder_source
from mmcat.cli.texts import CommandError
from tests.unit.training.small import small_recipe, spoil, write_folder
from training.ledger import looks
from training.readers.folder import read_folder
from training.report import Report
from training.splits import SHARES, frozen_split, split_file

SEED = 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path / "home"))
    return write_folder(tmp_path / "shop")


def write_report(
    folder: Path, bundles: Path, shares: Mapping[str, float] = SHARES, fingerprint: str | None = None
) -> None:
    """The report of a run on the folder's listings, without its bundles.

    Args:
        fingerprint: of the split; None: of that of the listings.
    """
    data = read_folder(folder)
    split = frozen_split(data, home() / FEATURES, SEED, shares)
    bundles.mkdir()
    Report(
        folder=bundles, dataset=data.name, dataset_digest=data.digest,
        split_fingerprint=fingerprint or split.fingerprint, recipe=small_recipe().model_dump(mode="json"),
        seed=SEED, rows={}, measured_on="test", held=(), models={}, baselines=(), skipped=(), seconds={},
        shares=shares,
    ).write()  # fmt: skip


@pytest.mark.parametrize(("final", "part"), [(False, "calibrate"), (True, "test")])
def test_the_validation_part_is_shown_and_only_when_asked_the_test_part(
    folder: Path, tmp_path: Path, final: bool, part: str
) -> None:
    bundles = tmp_path / "bundles"
    write_report(folder, bundles)
    data = read_folder(folder)
    split = frozen_split(data, home() / FEATURES, SEED)
    shown = folder_source(folder, "title", None, "fashion_cpu", 0, bundles, final=final).open()
    *stay, deleted = shown.items
    assert [item.product_id for item in stay] == list(split.parts[part])
    assert deleted.product_id.endswith("-deleted")
    rows = {row.id: row for row in data.rows}
    for item in stay:
        assert (item.title, item.truth) == (rows[item.product_id].title, rows[item.product_id].path)
        assert item.photo is not None
        assert shown.photo(item.photo) == rows[item.product_id].photo()  # type: ignore[misc]  # every row has one
    noted = looks(split_file(data, home() / FEATURES, SEED))
    assert [(look.split, look.purpose) for look in noted] == [(split.fingerprint, "mmcat demo --final")] * final
    if not final:
        assert shown.compare("cpu") == {"part": "calibrate", "baseline_accuracy": {}}


def test_fewer_listings_are_taken_evenly(folder: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "bundles")
    whole = folder_source(folder, "title", None, "fashion_cpu", 0, tmp_path / "bundles").open().items[:-1]
    some = folder_source(folder, "title", None, "fashion_cpu", 3, tmp_path / "bundles").open().items[:-1]
    assert len(some) == 3
    assert [item.product_id for item in some] == [whole[place * len(whole) // 3].product_id for place in range(3)]


def test_a_photo_that_cannot_be_read_is_one_that_the_host_does_not_have(folder: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "bundles")
    shown = folder_source(folder, "title", None, "fashion_cpu", 0, tmp_path / "bundles").open()
    first, second = shown.items[:2]
    spoil(folder, f"{first.product_id}.jpg")
    assert first.photo is not None
    assert second.photo is not None
    assert shown.photo(first.photo) is None
    assert shown.photo(second.photo) is not None


def test_bundles_of_other_shares_are_shown_by_these(folder: Path, tmp_path: Path) -> None:
    shares = {**SHARES, "train": 0.52, "calibrate": 0.21}
    write_report(folder, tmp_path / "bundles", shares)
    shown = folder_source(folder, "title", None, "fashion_cpu", 0, tmp_path / "bundles").open()
    split = frozen_split(read_folder(folder), home() / FEATURES, SEED, shares)
    assert [item.product_id for item in shown.items[:-1]] == list(split.parts["calibrate"])


def test_bundles_of_another_split_are_refused(folder: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "bundles", fingerprint="0" * 64)
    source = folder_source(folder, "title", None, "fashion_cpu", 0, tmp_path / "bundles")
    with pytest.raises(CommandError, match="another split"):
        source.open()
