"""A killed run goes on and ends with the same bits; a checkpoint of another run is refused."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcat.bundle import load
from mmcat.text import Tokenizer
from tests.unit.training.by_heart import in_a_process, learned, recipe
from tests.unit.training.small import lines, small_recipe, write_encoders, write_folder
from training import checkpoint
from training.checkpoint import Position
from training.errors import CheckpointError
from training.progress import Progress, Quiet
from training.readers.folder import read_folder
from training.recipe import Learning
from training.task import Keep
from training.train import Options, train

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


class _Stops(Quiet):
    """Stops in the second epoch of a stage, as Ctrl-C would."""

    def __init__(self, stage: str) -> None:
        self.stage, self.here, self.looks = stage, False, 0

    def begin(self, stage: str, total: int) -> None:
        self.here = stage == self.stage

    def advance(self, count: int = 1, note: str = "") -> None:
        self.looks += self.here and count > 0
        if self.looks == 2:
            raise KeyboardInterrupt


def _other_weights(encoders: Path) -> None:
    write_encoders(encoders, seed=1)


def _other_tokenizer(encoders: Path) -> None:
    """Of as many pieces, learned from other titles."""
    titles = [line.split("\t")[1][::-1] for line in lines()]
    Tokenizer.train_wordpiece(titles, size=100, max_tokens=16).write(encoders / "tiny" / "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "stage", "change"),
    [
        ("text", "step 1: text encoder", _other_weights),
        ("text", "step 1: text encoder", _other_tokenizer),
        ("image", "step 2: image encoder", _other_weights),
    ],
)
def test_an_encoder_s_training_goes_on_with_the_encoders_that_it_started_from_alone(
    tmp_path: Path, name: str, stage: str, change: Callable[[Path], None]
) -> None:
    dataset, encoders = read_folder(write_folder(tmp_path / "data")), write_encoders(tmp_path / "encoders")
    training = {"epochs": 3, "batch": 16, "enough_steps": 1}
    recipe = small_recipe().model_copy(update={f"{name}_training": Learning.model_validate(training)})

    def run(progress: Progress, given: Path, *, resume: bool) -> None:
        options = Options(models=(name,), resume=resume, device="cpu")
        train(dataset, recipe, tmp_path / "run", encoders=given, cache=tmp_path, progress=progress, options=options)

    with pytest.raises(KeyboardInterrupt):
        run(_Stops(stage), encoders, resume=False)
    changed = shutil.copytree(encoders, tmp_path / "changed")
    change(changed)
    with pytest.raises(
        CheckpointError, match="belongs to a run of another set of encoders: finish that one"
    ) as refused:
        run(Quiet(), changed, resume=True)
    assert "\n" not in str(refused.value)
    with pytest.raises(KeyboardInterrupt):  # told of what was done, it is at once in the second epoch
        run(_Stops(stage), encoders, resume=True)
    run(Quiet(), encoders, resume=True)
    assert load(tmp_path / "run" / name).config.modality == name


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
