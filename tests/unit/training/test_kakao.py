"""Kakao Arena's chunks: every row and vector of several files, absent levels, rows without truth, bad rows."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmcat.taxonomy import Taxonomy
from tests.unit.training.kakao_files import PATHS, vector, write_chunk
from training.errors import DataError
from training.readers import kakao
from training.readers.kakao import read_kakao
from training.readers.read import read_listings
from training.splits import make_split


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kakao, "_BLOCK", 8)


def path_of(number: int) -> tuple[str, ...]:
    return tuple(str(id_) for id_ in PATHS[number % len(PATHS)] if id_ != -1)


def test_all_rows_of_several_chunks_come_with_their_texts_paths_and_vectors(tmp_path: Path) -> None:
    files = [
        write_chunk(tmp_path / f"train.chunk.0{number + 1}", "train", 20 * number, 20 - number) for number in range(3)
    ]
    data = read_kakao(files, cache=tmp_path / "cache")
    numbers = [*range(20), *range(20, 39), *range(40, 58)]
    assert data.name == "kakao-train"
    assert [row.id for row in data.rows] == [f"K{number:07d}" for number in numbers]
    first = data.rows[1]
    assert (first.title, first.brand, first.maker, first.model) == ("직소퍼즐 1피스", "한립토이스", "", "HT-1")
    assert [row.path for row in data.rows] == [path_of(number) for number in numbers]
    vectors = data.photo_vectors
    assert vectors is not None
    assert vectors.vectors.dtype == np.float16
    x_BLD, _, there_B = vectors.take(np.arange(len(numbers)))
    assert x_BLD.shape == (len(numbers), 1, 2048)
    assert np.array_equal(x_BLD[:, 0].numpy(), np.stack([vector(number) for number in numbers]))
    assert there_B.tolist() == [number % 7 != 0 for number in numbers]
    assert make_split(data, 0).parts


def test_a_given_tree_names_the_ids_and_decides_which_paths_there_are(tmp_path: Path) -> None:
    write_chunk(tmp_path / "train.chunk.01", "train", 0, 20)
    lines = ["b_id\tm_id\ts_id\td_id\tb\tm\ts\td", "1\t1\t-1\t-1\t취미\t퍼즐\t\t", "1\t1\t2\t-1\t취미\t퍼즐\t직소\t"]
    (tmp_path / "taxonomy.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = read_listings(tmp_path, max_bad_share=1.0)
    assert [node.name for node in data.taxonomy.paths[1]] == ["취미", "퍼즐", "직소"]
    assert len(data) == 10
    assert {(bad.column, bad.reason.partition(":")[0]) for bad in data.skipped} == {
        ("dcateid", "train.chunk.01"),
        ("mcateid", "train.chunk.01"),
    }


def test_rows_without_a_category_are_read_for_prediction_and_never_trained_on(tmp_path: Path) -> None:
    dev = write_chunk(tmp_path / "dev.chunk.01", "dev", 0, 5, truth=False)
    with pytest.raises(DataError, match="no listing has a category; name the taxonomy"):
        read_kakao([dev])
    tree = Taxonomy.from_names([path_of(number) for number in range(4)])
    data = read_kakao([dev], taxonomy=tree)
    assert {row.path for row in data.rows} == {()}
    assert not data.labelled.any()
    assert data.photo_vectors is None
    with pytest.raises(DataError, match="no listing has a category"):
        make_split(data, 0)


def test_of_a_folder_with_several_splits_the_training_chunks_are_read(tmp_path: Path) -> None:
    write_chunk(tmp_path / "train.chunk.01", "train", 0, 5)
    write_chunk(tmp_path / "dev.chunk.01", "dev", 5, 5, truth=False)
    assert len(read_listings(tmp_path)) == 5
    assert len(read_listings(tmp_path / "train.chunk.01")) == 5


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("product", np.array([b"\xff\xfe"] + [b"x"] * 9, "S8"), "not UTF-8"),
        ("pid", np.array([b""] + [b"p%d" % n for n in range(9)], "S8"), "0 characters"),
        ("pid", np.array([b"p1", b"p1"] + [b"q%d" % n for n in range(8)], "S8"), "'p1' stands twice"),
        ("mcateid", np.array([1, 1, 4, -1, 1, 1, 4, 1, 1, 1], np.int32), "absent above a level"),
    ],
)
def test_a_bad_row_is_left_out_with_its_file_and_its_vector(
    tmp_path: Path, column: str, values: np.ndarray, reason: str
) -> None:
    changes: dict[str, Any] = {column: values}
    if column == "mcateid":  # the fourth row: b there, m absent, s there
        changes["scateid"] = np.array([-1, 2, 5, 9, -1, 2, 5, -1, -1, 2], np.int32)
    chunk = write_chunk(tmp_path / "train.chunk.01", "train", 1, 10, **changes)
    data = read_kakao([chunk], cache=tmp_path, max_bad_share=0.5)
    (bad,) = data.skipped
    assert bad.column == column
    assert bad.reason.startswith("train.chunk.01: ")
    assert reason in bad.reason
    assert data.photo_vectors is not None
    kept = [number for number in range(1, 11) if number != bad.line]
    x_BLD, _, _ = data.photo_vectors.take(np.arange(9))
    assert x_BLD[:, 0, 1].tolist() == [number if number % 7 else 0 for number in kept]


def test_too_many_bad_rows_stop_the_run(tmp_path: Path) -> None:
    chunk = write_chunk(tmp_path / "train.chunk.01", "train", 1, 10, pid=np.array([b""] * 10, "S8"))
    with pytest.raises(DataError, match="10 of 10 rows are bad"):
        read_kakao([chunk])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.chunk.01"]


def test_vectors_that_half_precision_cannot_hold_count_as_no_photo_and_are_listed(tmp_path: Path) -> None:
    vectors = np.stack([vector(number) for number in range(10, 20)])
    vectors[2, 5], vectors[3, 5], vectors[8, 5], vectors[9, 5] = np.nan, 65_504, 65_520, -np.inf
    chunks = [
        write_chunk(tmp_path / "train.chunk.01", "train", 1, 5),
        write_chunk(tmp_path / "train.chunk.02", "train", 10, 10, img_feat=vectors),
    ]
    for _ in range(2):  # a store that is there knows as much
        data = read_kakao(chunks, cache=tmp_path / "cache")
        assert data.photo_vectors is not None
        assert [data.rows[row].id for row in np.flatnonzero(~data.photo_vectors.there).tolist()] == [
            "K0000012", "K0000014", "K0000018", "K0000019",
        ]  # fmt: skip  # 14 has no photo
        assert np.isfinite(data.photo_vectors.vectors).all()
        assert [(lost.line, lost.column) for lost in data.lost_photos] == [
            (8, "img_feat"),
            (14, "img_feat"),
            (15, "img_feat"),
        ]
        assert {lost.reason for lost in data.lost_photos} == {"train.chunk.02: not finite in half precision"}


def test_what_is_no_chunk_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        read_kakao([tmp_path / "x"])
    with h5py.File(tmp_path / "two", "w") as file:
        file.create_group("train")
        file.create_group("dev")
    with pytest.raises(DataError, match="one group, named by its split"):
        read_kakao([tmp_path / "two"])
    with pytest.raises(DataError, match="lacks the column 'model'"):
        read_kakao([write_chunk(tmp_path / "y", "train", 0, 3, model=None)])
    with pytest.raises(DataError, match="different lengths"):
        read_kakao([write_chunk(tmp_path / "z", "train", 0, 3, model=np.array([b"m"], "S2"))])
    with pytest.raises(DataError, match="neither a folder of listings nor a chunk file"):
        read_listings(tmp_path / "x")
