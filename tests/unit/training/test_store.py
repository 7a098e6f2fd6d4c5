"""Feature stores at their edges: told sizes, full disks, cut files, two runs at once, a run that is killed for good."""

import signal
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest

from training.errors import DataError
from training.progress import Quiet
from training.store import VALUES, Block, Features, Layout, read, stored

LAYOUT = Layout(6, 2, 6, np.dtype(np.float32), block=2)


class Heard(Quiet):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def ones(rows: range) -> Block:
    return np.full((len(rows), 2), rows.start, np.float32), np.ones((len(rows), 1), np.int32)


def test_the_size_is_told_before_it_is_made_and_not_when_it_is_there(tmp_path: Path) -> None:
    first, again = Heard(), Heard()
    big = Layout(6, 2, 500_000_000, np.dtype(np.float16), block=2)
    stored(tmp_path / "s", big, ones, first, "photo vectors")
    stored(tmp_path / "s", big, ones, again, "photo vectors")
    assert "photo vectors: up to 2.00 GB (6 rows)" in first.lines[0]
    assert not again.lines


def test_too_little_disk_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    huge = Layout(6, 2, 10**15, np.dtype(np.float32))
    with pytest.raises(DataError, match=r"needs 8000000\.00 GB, and .* are free"):
        stored(tmp_path / "s", huge, lambda rows: pytest.fail("was computed"), Quiet(), "vectors")


def test_a_store_that_is_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    stored(tmp_path / "s", LAYOUT, ones, Quiet(), "vectors")
    values = tmp_path / "s" / VALUES
    values.write_bytes(values.read_bytes()[:-8])
    with pytest.raises(DataError, match="cut off"):
        read(tmp_path / "s")
    (tmp_path / "s" / "index.arrow").write_bytes(b"no")
    with pytest.raises(DataError, match="not a feature store"):
        read(tmp_path / "s")


def test_vectors_are_mapped_and_not_read(tmp_path: Path) -> None:
    features = stored(tmp_path / "s", LAYOUT, ones, Quiet(), "vectors")
    assert not features.vectors.flags.owndata
    assert not features.vectors.flags.writeable


def test_a_batch_of_rows_without_photos_has_the_shape_of_a_grid(tmp_path: Path) -> None:
    def grid(rows: range) -> Block:
        runs = np.array([[4 if row % 2 else 0] for row in rows], np.int32)
        return np.ones((int(runs.sum()), 2), np.float32), runs

    features = stored(tmp_path / "s", Layout(6, 2, 24, np.dtype(np.float16), block=2), grid, Quiet(), "vectors")
    x_BLD, mask_BL, there_B = features.take(np.array([0, 2]))
    assert x_BLD.shape == (2, 4, 2)
    assert not mask_BL.any()
    assert not there_B.any()


def test_a_view_that_is_not_there_is_refused() -> None:
    features = Features(np.zeros((4, 2), np.float32), np.ones(4, np.bool_))
    with pytest.raises(ValueError, match="no view 1"):
        features.take(np.arange(4), 1)


def test_pooled_is_the_mean_of_each_rows_places_and_zero_where_there_are_none(tmp_path: Path) -> None:
    def some(rows: range) -> Block:
        runs = np.array([[row] for row in rows], np.int32)
        return np.concatenate([np.arange(2 * row, dtype=np.float32).reshape(row, 2) for row in rows]), runs

    features = stored(tmp_path / "s", Layout(4, 2, 6, np.dtype(np.float32), block=3), some, Quiet(), "vectors")
    assert features.pooled(np.arange(4)).tolist() == [[0, 0], [0, 1], [1, 2], [2, 3]]
    assert features.pooled(np.array([3, 1])).tolist() == [[2, 3], [0, 1]]


def test_a_block_of_another_shape_than_promised_is_a_defect(tmp_path: Path) -> None:
    def wrong(rows: range) -> Block:
        return np.zeros((1, 2), np.float32), np.ones((len(rows), 1), np.int32)

    with pytest.raises(ValueError, match="a block of 2 rows"):
        stored(tmp_path / "s", LAYOUT, wrong, Quiet(), "vectors")


def make_slowly(folder: Path, begun: Event, go: Event) -> None:
    def slow(rows: range) -> Block:
        begun.set()
        go.wait(60)
        return ones(rows)

    stored(folder, LAYOUT, slow, Quiet(), "vectors")


def test_a_second_run_waits_and_finds_what_the_first_has_made(tmp_path: Path) -> None:
    context = get_context("spawn")
    begun, go = context.Event(), context.Event()
    other = context.Process(target=make_slowly, args=(tmp_path / "s", begun, go))
    other.start()
    assert begun.wait(120)

    class LetGo(Heard):
        def say(self, line: str) -> None:
            super().say(line)
            go.set()

    heard = LetGo()
    features = stored(tmp_path / "s", LAYOUT, lambda rows: pytest.fail("computed twice"), heard, "vectors")
    other.join(60)
    assert (other.exitcode, len(features)) == (0, 6)
    assert heard.lines == [f"waiting for another run that makes {tmp_path / 's'}"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.training.test_store import LAYOUT, ones
from training.progress import Quiet
from training.store import stored

def dies(rows):
    if rows.start == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return ones(rows)

stored(Path(sys.argv[1]), LAYOUT, dies, Quiet(), "vectors")
"""


def test_a_process_killed_half_way_costs_one_block(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "s")], check=False, timeout=250)
    assert done.returncode == -signal.SIGKILL
    asked: list[int] = []

    def counted(rows: range) -> Block:
        asked.append(rows.start)
        return ones(rows)

    features = stored(tmp_path / "s", LAYOUT, counted, Quiet(), "vectors")
    assert asked == [4]
    assert features.pooled(np.arange(6))[:, 0].tolist() == [0, 0, 2, 2, 4, 4]
