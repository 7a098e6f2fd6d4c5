"""Feature stores: whatever lengths rows have come back as written; a kill after any block changes nothing."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.progress import Quiet
from training.store import LENGTHS, VALUES, Array, Block, Layout, stored

WIDTH = 3
# Rows × views of lengths; a row is there in all its views or in none.
lengths_of_rows = st.integers(1, 3).flatmap(
    lambda views: st.lists(
        st.one_of(
            st.just([0] * views),
            st.lists(st.integers(1, 5), min_size=views, max_size=views),
        ),
        min_size=1,
        max_size=30,
    )
)


class KilledError(Exception):
    """Stands for a kill: nothing is tidied up after it."""


def run_of(row: int, view: int, length: int) -> Array:
    """The vectors of one view of one row, unlike all others and exact in half precision."""
    return (np.arange(length * WIDTH).reshape(length, WIDTH) + 16 * row + 512 * view).astype(np.float32)


class Source:
    """Computes blocks of known contents; dies before block `dies_at`."""

    def __init__(self, lengths: list[list[int]], dies_at: int | None = None) -> None:
        self.lengths, self.dies_at, self.asked = lengths, dies_at, list[range]()

    def __call__(self, rows: range) -> Block:
        if self.dies_at is not None and len(self.asked) == self.dies_at:
            raise KilledError
        self.asked.append(rows)
        runs = np.array(self.lengths[rows.start : rows.stop], np.int32)
        parts = [run_of(row, view, length) for row in rows for view, length in enumerate(self.lengths[row])]
        return np.concatenate(parts), runs


def layout(lengths: list[list[int]], block: int, dtype: str = "float32") -> Layout:
    places = sum(map(sum, lengths))
    return Layout(len(lengths), WIDTH, places, np.dtype(dtype), views=len(lengths[0]), block=block)


@settings(deadline=None, max_examples=40)
@given(lengths_of_rows, st.integers(1, 7), st.sampled_from(["float32", "float16"]), st.data())
def test_any_lengths_come_back_as_they_were_written(
    lengths: list[list[int]], block: int, dtype: str, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        features = stored(Path(folder) / "s", layout(lengths, block, dtype), Source(lengths), Quiet(), "vectors")
        assert features.there.tolist() == [row[0] > 0 for row in lengths]
        rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9)), np.int64)
        view = np.array([data.draw(st.integers(0, features.views - 1)) for _ in rows])
        x_BLD, mask_BL, there_B = features.take(rows, view)
        assert x_BLD.dtype.is_floating_point
        assert there_B.tolist() == features.there[rows].tolist()
        for x_LD, mask_L, row, seen in zip(x_BLD, mask_BL, rows.tolist(), view.tolist(), strict=True):
            length = lengths[row][seen]
            assert mask_L.tolist() == [place < length for place in range(len(mask_L))]
            assert x_LD[:length].numpy() == pytest.approx(run_of(row, seen, length))
            assert not x_LD[length:].any()


@settings(deadline=None, max_examples=40)
@given(lengths_of_rows, st.integers(1, 7), st.data())
def test_killed_at_any_block_the_next_run_goes_on_and_the_bytes_are_the_same(
    lengths: list[list[int]], block: int, data: st.DataObject
) -> None:
    blocks = -(-len(lengths) // block)
    done = data.draw(st.integers(0, blocks - 1), label="blocks done before the kill")
    cut = data.draw(st.integers(0, 40), label="bytes of the block it was writing")
    in_block = 4 * len(lengths[0]) * (min(block, len(lengths) - done * block))
    cut_lengths = data.draw(st.integers(0, in_block - 1), label="bytes of its lengths") if cut else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, killed = folder / "whole", folder / "killed"
        stored(whole, layout(lengths, block), Source(lengths), Quiet(), "vectors")
        with pytest.raises(KilledError):
            stored(killed, layout(lengths, block), Source(lengths, done), Quiet(), "vectors")
        assert not killed.exists()
        for file, more in ((VALUES, cut), (LENGTHS, cut_lengths)):
            with (folder / ".killed.partial" / file).open("ab") as opened:
                opened.write(b"\0" * more)
        again = Source(lengths)
        stored(killed, layout(lengths, block), again, Quiet(), "vectors")
        assert len(again.asked) == blocks - done  # nothing is computed twice
        contents = [{file.name: file.read_bytes() for file in made.iterdir()} for made in (whole, killed)]
        assert contents[0] == contents[1]
        assert sorted(path.name for path in folder.iterdir()) == ["killed", "whole"] or done == 0
