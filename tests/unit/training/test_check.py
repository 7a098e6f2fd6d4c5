"""What `data check` finds, each on a folder that has exactly that."""

from pathlib import Path

import pytest

from tests.unit.training.kakao_files import write_chunk
from tests.unit.training.small import jpeg, lines, spoil, write_folder
from training.check import Checked, Finding, Severity, check_data


def of(checked: Checked, code: str) -> Finding:
    return next(finding for finding in checked.findings if finding.code == code)


def codes(checked: Checked) -> set[str]:
    return {finding.code for finding in checked.findings if not finding.code.startswith("levels.skew")}


def test_a_good_folder_has_nothing_but_notes_about_its_levels(tmp_path: Path) -> None:
    checked = check_data(write_folder(tmp_path / "f"))
    assert (checked.listings, checked.paths, checked.refused) == (90, 9, False)
    assert not codes(checked)
    assert "level 2: 3 categories" in of(checked, "levels.skew.2").text


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([*lines(), "x1\ttitle"], "rows.bad.(all)"),
        ([*lines(), lines()[0]], "rows.repeated_id"),
        ([*lines(), "x1\ttitle\tgoods\t\tmen\tt\t"], "rows.bad.level2"),
    ],
)
def test_bad_rows_are_counted_by_what_is_wrong_and_one_in_a_hundred_stops_training(
    tmp_path: Path, rows: list[str], code: str
) -> None:
    checked = check_data(write_folder(tmp_path / "f", rows))
    assert checked.refused
    assert checked.findings[0].code == "rows.too_many_bad"
    found = of(checked, code)
    assert (found.count, found.severity) == (1, Severity.WARNING)
    assert found.examples[0].startswith("line 92, column ")
    assert not check_data(tmp_path / "f", max_bad_share=0.5).refused


def test_what_cannot_be_read_at_all_is_one_error(tmp_path: Path) -> None:
    checked = check_data(tmp_path)
    assert checked.refused
    assert [finding.code for finding in checked.findings] == ["data.unreadable"]


def test_photos_that_cannot_be_decoded_are_found_with_their_listing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", zipped=False)
    (folder / "photos" / "p7.jpg").write_bytes(b"\xff\xd8 no photo")
    (folder / "photos" / "p8.jpg").write_bytes(b"")
    checked = check_data(folder)
    broken = of(checked, "photos.broken")
    assert (broken.count, broken.severity) == (2, Severity.WARNING)
    assert [example.partition(":")[0] for example in broken.examples] == ["p7", "p8"]


def test_a_spoilt_member_of_the_archive_is_a_broken_photo(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f")
    spoil(folder, "p7.jpg")
    broken = of(check_data(folder), "photos.broken")
    assert (broken.count, broken.severity) == (1, Severity.WARNING)
    assert broken.examples[0].startswith("p7: photo undecodable: cannot be read (BadZipFile")


def test_a_sample_is_looked_at_unless_all_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.check.SAMPLE", 45)
    folder = write_folder(tmp_path / "f", zipped=False)
    (folder / "photos" / "p7.jpg").write_bytes(b"no")
    assert "photos.broken" not in codes(check_data(folder))
    assert "1 of 90 photos" in of(check_data(folder, all_photos=True), "photos.broken").text


def test_equal_photos_under_different_paths_are_shown_with_both_paths(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", zipped=False)
    for number in range(90):
        (folder / "photos" / f"p{number}.jpg").write_bytes(jpeg((number, number, 2 * number), 0))
    (folder / "photos" / "p1.jpg").write_bytes((folder / "photos" / "p0.jpg").read_bytes())
    found = of(check_data(folder), "labels.equal_photos_differ")
    assert (found.count, found.examples) == (2, ("p0: goods > shoe > men; p1: goods > bag > men",))


def test_listings_without_photos_and_paths_with_one_group_are_told(tmp_path: Path) -> None:
    rows = [*lines(), "lone1\ta lonely lamp\tgoods\tlamp\t\tx\t", "lone2\tA lonely, RED lamp\tgoods\tlamp\t\tx\t"]
    checked = check_data(write_folder(tmp_path / "f", rows))
    assert of(checked, "photos.none").count == 2
    lonely = of(checked, "paths.one_group")
    assert (lonely.count, lonely.examples) == (1, ("goods > lamp",))


def test_paths_of_the_taxonomy_without_a_listing_are_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", lines(1))
    (folder / "taxonomy.tsv").write_text("level1\tlevel2\tlevel3\tlevel4\ngoods\tshoe\tmen\t\nother\t\t\t\n")
    assert of(check_data(folder), "paths.empty").count == 1


def test_chunk_files_are_checked_without_copying_their_vectors(tmp_path: Path) -> None:
    write_chunk(tmp_path / "train.chunk.01", "train", 0, 40)
    checked = check_data(tmp_path, cache=tmp_path / "cache")
    assert (checked.listings, checked.refused) == (40, False)
    assert not (tmp_path / "cache").exists()
    assert of(checked, "photos.none").count == 40
