"""A killed run goes on and ends with the same bits; a checkpoint of another run is refused."""

import signal
from pathlib import Path

import pytest

from tests.unit.training.by_heart import in_a_process, learned, recipe
from training import checkpoint
from training.checkpoint import Position
from training.errors import CheckpointError
from training.task import Keep

HANGS_AT, KEPT, EPOCHS = 36, 35, 25  # an epoch has two steps, so both are within one


def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight.safetensors", tmp_path / "killed.safetensors"
    whole, _ = in_a_process(straight, epochs=EPOCHS, dropout=0.2)
    kept = tmp_path / "kept"
    process, steps = in_a_process(killed, epochs=EPOCHS, dropout=0.2, checkpoints=kept, hang_at=HANGS_AT)
    while steps.recv() < HANGS_AT:
        pass
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not killed.exists()
    again, steps = in_a_process(killed, epochs=EPOCHS, dropout=0.2, checkpoints=kept, resume=True)
    assert steps.recv() == KEPT  # it did not begin anew
    again.join()
    whole.join()
    assert straight.read_bytes() == killed.read_bytes()


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    keep = Keep(checkpoints=tmp_path, resume=True)
    first, second = (learned(recipe(epochs=2), keep=keep) for _ in range(2))
    assert first.fitted == second.fitted
    assert all(one.equal(two) for one, two in zip(first.model.parameters(), second.model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["recipe", "split", "data"])
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path, name: str) -> None:
    mine = {"recipe": "a", "split": "b", "data": "c"}
    learned(recipe(epochs=1), keep=Keep(checkpoints=tmp_path, identity=mine))
    with pytest.raises(CheckpointError, match=f"a run of another {name}:"):
        learned(recipe(epochs=1), keep=Keep(checkpoints=tmp_path, identity={**mine, name: "other"}, resume=True))


def test_without_resume_a_checkpoint_is_replaced(tmp_path: Path) -> None:
    learned(recipe(epochs=1), keep=Keep(checkpoints=tmp_path, identity={"recipe": "a"}))
    learned(recipe(epochs=1), keep=Keep(checkpoints=tmp_path, identity={"recipe": "b"}))
    _, position = checkpoint.load(
        tmp_path / "by-heart.safetensors", {"recipe": "b", "number of processes": "1", "device": "cpu"}
    )
    assert position.done


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of ours"):
        checkpoint.load(path, {})
    checkpoint.save(path, {}, Position(step=3), {})
    assert checkpoint.load(path, {})[1].step == 3
