"""The folder format: what is read, what is left out and told, what stops the run."""

import zipfile
from pathlib import Path

import pytest

from mmcat.errors import PhotoError
from tests.unit.training.small import HEADER, lines, spoil, write_folder
from training.errors import DataError
from training.readers.folder import read_folder
from training.splits import Split, describe, frozen_split, make_split


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_gives_its_listings_with_paths_and_photos(tmp_path: Path, zipped: bool) -> None:
    data = read_folder(write_folder(tmp_path / "My Shop", zipped=zipped))
    assert (data.name, len(data), len(data.taxonomy), data.skipped) == ("my-shop", 90, 9, [])
    row = data.rows[4]
    assert (row.id, row.title, row.path) == ("p4", "item 4 women", ("goods", "bag", "women"))
    assert row.photo is not None
    assert row.photo().startswith(b"\xff\xd8")


@pytest.mark.parametrize("image", ["a/1.jpg", "photos/a/1.jpg"])
def test_photos_of_one_name_in_an_archive_are_told_apart_by_their_path(tmp_path: Path, image: str) -> None:
    rows = [f"{name}\ttitle\tgoods\t\t\tx\t{where}" for name, where in (("x", image), ("y", "b/1.jpg"), ("z", "2.jpg"))]
    folder = write_folder(tmp_path / "f", [*rows, "n\ttitle\tgoods\t\t\tx\t1.jpg", "1\ttitle\tgoods\t\t\tx\t"])
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg"):
            archive.writestr(f"photos/{name}", name)
    data = read_folder(folder, max_bad_share=0.5)
    assert [(row.id, row.photo_bytes()) for row in data.rows] == [
        ("x", b"a/1.jpg"),
        ("y", b"b/1.jpg"),
        ("z", b"b/2.jpg"),
    ]
    assert [(bad.line, bad.column) for bad in data.skipped] == [(5, "image"), (6, "image")]
    assert "several photos of photos.zip are called '1.jpg'" in data.skipped[0].reason


@pytest.mark.parametrize("zipped", [True, False])
def test_a_photo_that_cannot_be_read_is_an_error_of_the_photo(tmp_path: Path, zipped: bool) -> None:
    folder = write_folder(tmp_path / "f", zipped=zipped)
    data = read_folder(folder)
    spoil(folder, "p4.jpg") if zipped else (folder / "photos" / "p4.jpg").unlink()
    photo = data.rows[4].photo
    assert photo is not None
    with pytest.raises(PhotoError, match=r"cannot be read \((BadZipFile|FileNotFoundError)"):
        photo()
    assert data.rows[4].photo_bytes() is None
    assert data.rows[5].photo_bytes() is not None


def test_another_title_column_changes_titles_and_not_groups_or_split(tmp_path: Path) -> None:
    rows = [line.replace("\titem 4 women\tp4.jpg", "\tquiet\tp4.jpg") for line in lines()]
    folder = write_folder(tmp_path / "f", rows)
    plain, hard = read_folder(folder), read_folder(folder, "hard_title")
    assert (plain.rows[4].title, hard.rows[4].title) == ("item 4 women", "quiet")
    assert plain.digest == hard.digest


def test_quotation_marks_and_odd_line_breaks_belong_to_the_title(tmp_path: Path) -> None:
    title = 'A 27" monitor, "new"\u2028wide'
    data = read_folder(write_folder(tmp_path / "f", [f"q1\t{title}\tgoods\tscreen\t\tx\tp1.jpg"]))
    assert data.rows[0].title == title


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("p1\ttitle\tgoods", "(all)"),
        ("\ttitle\tgoods\t\t\tx\tp1.jpg", "product_id"),
        ("x" * 129 + "\ttitle\tgoods\t\t\tx\tp1.jpg", "product_id"),
        ("p0\ttitle\tgoods\t\t\tx\tp1.jpg", "product_id"),
        ("n1\t" + "t" * 1_001 + "\tgoods\t\t\tx\tp1.jpg", "title"),
        ("n1\t\tgoods\t\t\tx\t", "title"),
        ("n1\ttitle\t\tbag\t\tx\tp1.jpg", "level1"),
        ("n1\ttitle\tgoods\t\tmen\tx\tp1.jpg", "level2"),
        ("n1\ttitle\tgoods\t\t\tx\tgone.jpg", "image"),
    ],
)
def test_a_bad_row_is_left_out_and_told_by_line_and_column(tmp_path: Path, line: str, column: str) -> None:
    data = read_folder(write_folder(tmp_path / "f", [*lines(), line]), max_bad_share=0.5)
    assert len(data) == 90
    assert [(bad.line, bad.column) for bad in data.skipped] == [(92, column)]


def test_too_many_bad_rows_stop_with_file_line_and_column(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", [*lines(), "p1\ttitle"])
    with pytest.raises(DataError, match=r"listings\.tsv: 1 of 91 rows .* line 92, column \(all\): 2 cells"):
        read_folder(folder)


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"listings\.tsv cannot be read"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match="no column 'plain'"):
        read_folder(write_folder(tmp_path / "f"), "plain")
    (tmp_path / "f" / "listings.tsv").write_bytes(HEADER.encode() + b"\n\nx\xff\n")
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        read_folder(tmp_path / "f")


def test_a_given_taxonomy_decides_which_paths_there_are(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f")
    tree = ["level1\tlevel2\tlevel3\tlevel4", "goods\tshoe\t\t", "goods\tbag\twomen\t", "other\t\t\t"]
    (folder / "taxonomy.tsv").write_text("\n".join(tree) + "\n", encoding="utf-8")
    data = read_folder(folder, max_bad_share=1.0)
    assert len(data.taxonomy) == 3
    assert {row.path for row in data.rows} == {("goods", "shoe"), ("goods", "bag", "women")}


def test_the_split_is_made_once_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    data = read_folder(write_folder(tmp_path / "f"))
    split = frozen_split(data, tmp_path, seed=3)
    assert frozen_split(data, tmp_path, seed=3) == split
    assert "paths have no test row" in describe(split, data)
    (path,) = tmp_path.glob("*.split.json")
    path.write_text(path.read_text().replace('"p5"', '"p6"', 1))
    with pytest.raises(DataError, match="has changed"):
        Split.load(path)


def test_a_split_refuses_other_listings(tmp_path: Path) -> None:
    split = frozen_split(read_folder(write_folder(tmp_path / "a")), tmp_path, seed=0)
    with pytest.raises(DataError, match="other listings"):
        split.rows("test", read_folder(write_folder(tmp_path / "b", lines(80))))


def test_real_listings_are_read_whole_and_dealt_by_group(test_data: Path) -> None:
    data = read_folder(test_data / "fashion", "hard_title")
    assert (len(data), len(data.taxonomy), list(data.skipped)) == (9_500, 215, [])
    assert 5_500 < len({row.group for row in data.rows}) < 6_200
    split = make_split(data, seed=0)
    assert set(data.targets[split.rows("train", data)].tolist()) == set(range(215))
    assert abs(len(split.parts["test"]) / len(data) - 0.20) < 0.002
