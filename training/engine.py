"""The one loop that all three steps of training share.

    order ─> load (a thread ahead) ─> forward, loss, backward ─> clip ─> optimiser ─> average ─┐
      ^                                                                                        │
      └── next step <── checkpoint <── epoch's end: path accuracy on `select`, early stop <────┘

A step of training brings a `Task` (task.py). One process runs it, or as many as `torchrun` started (Hugging Face
accelerate, DistributedDataParallel): the recipe's batch is dealt among them, so they learn what one would. BatchNorm in
training mode and dropout see each process's own share.

After task.py, losses.py, optimisation.py and weights.py; before encoders.py, fusion.py and tune.py.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from training import checkpoint
from training.checkpoint import Identity, Position
from training.errors import TrainingError
from training.hardware import determinism, in_bf16, processes
from training.journal import Journal
from training.losses import LevelLoss
from training.optimisation import lr_share, optimizer
from training.order import Order
from training.progress import Progress
from training.recipe import Learning
from training.task import NOTHING, Arguments, Fitted, Keep, Task
from training.weights import Average, fill, learnable, random_state, set_random_state, train_mode

_TELL_STEPS = 10  # losses are fetched from the device and looked at every so many steps


def fit(
    task: Task,
    learning: Learning,
    *,
    seed: int,
    stage: str,
    progress: Progress,
    device: str = "cpu",
    keep: Keep = NOTHING,
) -> Fitted:
    """Trains the task's network in place and leaves it in eval mode with the weights of its best epoch.

    The caller's random numbers stay as they were. Blocks for as long as it takes; a kill loses the steps since the last
    checkpoint, and a resumed run ends with the same bits on the same machine.

    Raises:
        TrainingError: the loss is no number any more; the message names the step.
        CheckpointError: resumed from a checkpoint of another run.
    """
    processes(device)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")  # bf16 is this loop's own choice, step by step
    cuda = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), determinism(learning.deterministic):
        torch.manual_seed(seed + accelerator.process_index)  # dropout must differ between processes
        return _Fit(task, learning, accelerator, seed, stage, progress, keep).run()


@dataclass(frozen=True, slots=True)
class _Batch:
    """A step's data: arguments and targets of each piece of this process, and the whole batch's targets."""

    pieces: list[tuple[Arguments, Tensor]]
    targets: Tensor


class _Fit:
    """One run of the loop; lives for the length of `fit`."""

    def __init__(
        self, task: Task, learning: Learning, accelerator: Accelerator, seed: int, stage: str, progress: Progress,
        keep: Keep,
    ) -> None:  # fmt: skip
        self.task, self.learning, self.accelerator, self.keep = task, learning, accelerator, keep
        self.order = Order(task.train, learning.batch, seed)
        self.pieces = min(learning.accumulate, self.order.size // accelerator.num_processes)
        if not self.pieces:
            raise TrainingError(
                f"{stage}: {accelerator.num_processes} processes cannot share a batch of {self.order.size}"
            )
        self.steps = learning.steps or learning.epochs * self.order.steps_per_pass
        self.network = accelerator.prepare(task.network)
        self.optimizer = optimizer(task.network, learning, task.lr_share)
        self.average = Average(task.network, learning.ema)
        device = accelerator.device
        self.loss = LevelLoss(learning, task.classes, task.targets(task.train), device)
        self.bf16 = in_bf16(learning.precision, device.type)
        self.journal = Journal(stage, keep.logs, keep.trackers, progress, self.order.size, accelerator.is_main_process)
        self.path = keep.checkpoints / f"{self.journal.slug}.safetensors" if keep.checkpoints else None
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.pending: list[Tensor] = []  # losses on the device that nobody has looked at

    # ── The loop ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> Fitted:
        position = self.position = self._resumed()
        if not position.done:
            self.journal.open(self.steps, position.step, self.learning.model_dump(mode="json"))
            if self.steps < (enough := self.learning.enough_steps):
                self.journal.say(f"only {self.steps} optimiser steps: under {enough:,} a network rarely gets far")
            train_mode(self.task.network)
            for batch in self._loaded(position.step):
                self.pending.append(self._step(batch))
                position.step += 1
                ends = position.step % self.order.steps_per_pass == 0 or position.step == self.steps
                if ends or len(self.pending) == _TELL_STEPS or position.step % self.keep.every == 0:
                    self._look()
                if ends and self._epoch_ends():
                    break
                if position.step < self.steps and (ends or position.step % self.keep.every == 0):
                    self._save()
            self._finish()
        self.task.network.eval()
        return Fitted(tuple(position.losses), tuple(position.accuracies))

    def _step(self, batch: _Batch) -> Tensor:
        """One step of the optimiser; gives this process's part of the batch's loss."""
        share = lr_share(self.position.step, self.steps, self.learning)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning.lr * group["lr_share"] * share
        device, processes = self.accelerator.device, self.accelerator.num_processes
        mass_4 = self.loss.mass(batch.targets.to(device))
        total = torch.zeros((), device=device)
        for number, (arguments, targets_B4) in enumerate(batch.pieces, start=1):
            # Gradients travel between processes once a step, with the last piece.
            alone = nullcontext() if number == len(batch.pieces) else self.accelerator.no_sync(self.network)
            with alone:
                moved = {
                    name: None if value is None else value.to(device, non_blocking=True)
                    for name, value in arguments.items()
                }
                with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                    logits = self.network(**moved)
                loss = self.loss(logits, targets_B4.to(device, non_blocking=True), mass_4)
                self.accelerator.backward(loss * processes)  # the processes' mean is taken; their sum is meant
            total += loss.detach()
        if self.learning.clip:
            self.accelerator.clip_grad_norm_(self.task.network.parameters(), self.learning.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.follow()
        return total

    def _loaded(self, first: int) -> Iterator[_Batch]:
        """The batches of the steps from `first`, each loaded by a thread while the one before is learned from."""
        with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
            waiting = pool.submit(self._load, first)
            for step in range(first, self.steps):
                begun = time.monotonic()
                batch = waiting.result()
                self.journal.waited(time.monotonic() - begun)
                if step + 1 < self.steps:
                    waiting = pool.submit(self._load, step + 1)
                yield batch

    def _load(self, step: int) -> _Batch:
        accelerator, pinned = self.accelerator, self.accelerator.device.type == "cuda"
        pieces: list[tuple[Arguments, Tensor]] = []
        for piece in self.order.pieces(step, accelerator.process_index, accelerator.num_processes, self.pieces):
            arguments = self.task.arguments(piece.rows, piece.dice)
            if pinned:
                arguments = {name: value if value is None else value.pin_memory() for name, value in arguments.items()}
            pieces.append((arguments, torch.from_numpy(self.task.targets(piece.rows))))
        return _Batch(pieces, torch.from_numpy(self.task.targets(self.order.batch(step).rows)))

    # ── Between steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        """Fetches the losses since the last look, from all processes, and stops where one is no number."""
        losses = self.accelerator.reduce(torch.stack(self.pending), "sum").tolist()
        self.pending.clear()
        position = self.position
        for step, loss in enumerate(losses, start=position.step - len(losses) + 1):
            if not math.isfinite(loss):
                self.journal.close()
                stands = f"{self.journal.stage}: the loss is {loss} in step {step} of {self.steps}"
                raise TrainingError(f"{stands}: lower the learning rate, or look for broken features")
            position.loss_sum += loss
            position.loss_count += 1
        self.journal.steps(position.step, len(losses), losses[-1], self.optimizer.param_groups[0]["lr"])

    def _epoch_ends(self) -> bool:
        """Whether to stop early."""
        position, patience = self.position, self.learning.patience
        position.losses.append(position.loss_sum / max(1, position.loss_count))
        position.loss_sum, position.loss_count = 0.0, 0
        accuracy = None
        if patience is not None and len(self.task.select):
            with self.average.in_place():
                accuracy = self._accuracy()
                position.accuracies.append(accuracy)
                if accuracy >= position.accuracies[position.best_at]:  # of equals the later: it has seen more
                    position.best_at = len(position.accuracies) - 1
                    self.best = learnable(self.task.network)
        self.journal.epoch(position.step, len(position.losses), position.losses[-1], accuracy)
        return patience is not None and len(position.accuracies) - 1 - position.best_at >= patience

    def _accuracy(self) -> float:
        self.task.network.eval()
        mine = self.task.select[self.accelerator.process_index :: self.accelerator.num_processes]
        right = torch.tensor(self.task.right(mine), device=self.accelerator.device, dtype=torch.float64)
        right = self.accelerator.reduce(right, "sum")
        train_mode(self.task.network)
        return float(right) / len(self.task.select)

    def _finish(self) -> None:
        """Leaves the weights that the run gives in the network."""
        if not self.best:
            with self.average.in_place():
                self.best = learnable(self.task.network)
        fill(self.task.network, self.best)
        self.position.done = True
        self._save()
        self.journal.close()

    # ── Checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _save(self) -> None:
        if self.path is None:
            return
        states = self.accelerator.gather(random_state(self.accelerator.device).unsqueeze(0))
        if not self.accelerator.is_main_process:
            return
        tensors = checkpoint.named("network", learnable(self.task.network))
        if not self.position.done:
            tensors |= checkpoint.named("average", self.average.tensors())
            tensors |= checkpoint.named("best", self.best)
            tensors |= checkpoint.named("optimizer", checkpoint.optimizer_tensors(self.optimizer))
            tensors["random"] = states
        checkpoint.save(self.path, tensors, self.position, self._identity())

    def _resumed(self) -> Position:
        """Puts everything back where a checkpoint left it; the beginning where there is none."""
        if self.path is None or not self.keep.resume or not self.path.exists():
            return Position()
        tensors, position = checkpoint.load(self.path, self._identity())
        fill(self.task.network, checkpoint.under("network", tensors))
        if not position.done:
            self.average.restore(checkpoint.under("average", tensors))
            self.best = checkpoint.under("best", tensors)
            checkpoint.restore_optimizer(self.optimizer, checkpoint.under("optimizer", tensors))
            set_random_state(tensors["random"][self.accelerator.process_index], self.accelerator.device)
        return position

    def _identity(self) -> Identity:
        here = {"number of processes": str(self.accelerator.num_processes), "device": self.accelerator.device.type}
        return {**self.keep.identity, **here}
