"""The table of a folder in its three forms, with further text and the errors that name their line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.small import lines, write_folder
from training.errors import DataError
from training.readers.folder import read_folder
from training.readers.tables import open_table

HEADER = "product_id,title,level1,level2,brand,maker,model"


def csv_folder(folder: Path, *rows: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "listings.csv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8-sig")
    return folder


def test_csv_is_quoted_as_everybody_quotes_it(tmp_path: Path) -> None:
    folder = csv_folder(
        tmp_path / "f",
        'p1,"A 27"" monitor, ""new""\nsecond line",goods,screen,삼성,"Acme, Inc.",S27',
        "",
        "p2,plain,goods,,,,",
    )
    first, second = read_folder(folder).rows
    assert first.title == 'A 27" monitor, "new"\nsecond line'
    assert (first.brand, first.maker, first.model) == ("삼성", "Acme, Inc.", "S27")
    assert (second.id, second.path) == ("p2", ("goods",))


def test_a_bad_row_of_csv_is_told_by_the_line_where_it_ends(tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "f", 'p1,"two\nlines",goods,a,,,', "p2,t,goods")
    (bad,) = read_folder(folder, max_bad_share=1.0).skipped
    assert (bad.line, bad.column) == (4, "(all)")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("listings.csv", b'product_id,title,level1\np1,"a" b,goods\n', r"line 2: not CSV"),
        ("listings.csv", b"product_id,title,level1\np1,\xff,goods\n", r"line 2: not UTF-8"),
        ("listings.csv", b"product_id,title,level1,title\n", r"the column 'title' stands twice"),
        ("listings.csv", b"product_id,title\n", r"line 1: no column 'level1'"),
        ("listings.parquet", b"PAR1 not", r"is not Parquet"),
        ("listings.csv", b"product_id,title,level1\n", r"no listings"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_folder(tmp_path)


def test_two_tables_are_refused_and_none_is_named(tmp_path: Path) -> None:
    folder = csv_folder(write_folder(tmp_path / "f"), "p1,t,goods,,,,")
    with pytest.raises(DataError, match=r"listings\.tsv and listings\.csv: keep one"):
        read_folder(folder)
    with pytest.raises(DataError, match=r"listings\.tsv cannot be read \(no such file"):
        read_folder(tmp_path)


def test_parquet_gives_the_same_listings_with_numbers_as_ids_and_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    table = pa.table({
        "product_id": [17, 18, 19],
        "title": pa.array(["a", "b", "c"]).dictionary_encode(),
        "level1": ["goods", "goods", None],
        "level2": [None, "x", "y"],
        "pixels": [[1], [2], [3]],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "listings.parquet")
    data = read_folder(tmp_path, max_bad_share=0.5)
    assert [(row.id, row.title, row.path) for row in data.rows] == [
        ("17", "a", ("goods",)),
        ("18", "b", ("goods", "x")),
    ]
    assert [(bad.line, bad.column) for bad in data.skipped] == [(3, "level1")]


cells = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.lists(cells, min_size=2, max_size=2).filter(any), max_size=8))
def test_all_three_forms_give_the_same_cells(rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("t")
    quoted = "".join(
        ",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\r\n" for row in [["a", "b"], *rows]
    )
    (folder / "l.csv").write_bytes(quoted.encode())
    (folder / "l.tsv").write_bytes("".join("\t".join(row) + "\n" for row in [["a", "b"], *rows]).encode())
    columns = {name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate("ab")}
    pq.write_table(pa.table(columns), folder / "l.parquet")
    for name in ("l.csv", "l.tsv", "l.parquet"):
        table = open_table(folder / name, ("a", "b"))
        assert list(table.header) == ["a", "b"]
        assert [found for _, found in table.rows] == rows


def test_further_texts_are_read_and_too_long_ones_are_bad(tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "f", "p1,t,goods,,b,m,x", f"p2,t,goods,,{'b' * 1001},,")
    data = read_folder(folder, max_bad_share=0.5)
    assert [(row.brand, row.maker, row.model) for row in data.rows] == [("b", "m", "x")]
    assert [(bad.line, bad.column) for bad in data.skipped] == [(3, "brand")]


def test_a_photo_is_never_looked_for_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    row = lines(1)[0].replace("\tp0.jpg", "\t../../secret.jpg")
    folder = write_folder(tmp_path / "f", [row, *lines(90)[1:]], zipped=False)
    (bad,) = read_folder(folder, max_bad_share=0.5).skipped
    assert bad.column == "image"
