"""Training to accuracy: epochs over a real data set, evaluated after each."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tlbench.accuracy.evaluate import Accuracy, evaluate
from tlbench.data import Dataset, Split
from tlbench.engine import TrainingEngine, sum_over_ranks
from tlbench.errors import NonFiniteLossError, TrialError
from tlbench.rank import Rank
from tlbench.suites.spec import Case

EVAL_BATCHES = 4
"""Micro-batches evaluated at once: nothing is kept for a backward pass."""


@dataclass
class Curves:
    """What training leaves behind, in order."""

    loss: list[float] = field(default_factory=list)
    """Mean over the batch, per optimiser step."""
    learning_rate: list[float] = field(default_factory=list)
    """Per optimiser step."""
    eval_top1_percent: list[float] = field(default_factory=list)
    """Per epoch."""
    eval_time_s: list[float] = field(default_factory=list)
    """Seconds of training, evaluation excluded, until the end of each epoch."""

    def time_to_accuracy_s(self, top1_percent: float) -> float | None:
        """Training time until an epoch first ended at this accuracy or above."""
        for reached, elapsed in zip(
            self.eval_top1_percent, self.eval_time_s, strict=True
        ):
            if reached >= top1_percent:
                return elapsed
        return None


def fit(
    engine: TrainingEngine,
    case: Case,
    dataset: Dataset,
    *,
    rank: Rank,
    dtype: torch.dtype,
    seed: int,
) -> tuple[Curves, Accuracy]:
    """Train for the epochs of the case; the accuracy is that after the last."""
    train, held_out = dataset.split("train"), dataset.split("eval")
    steps_per_epoch = len(train) // case.global_batch_size
    if steps_per_epoch == 0:
        raise TrialError(
            f"batch_size={case.global_batch_size} exceeds the {len(train)} training"
            f" samples of {case.data}"
        )
    curves, elapsed = Curves(), 0.0
    for epoch in range(case.fit.epochs):
        start = time.perf_counter()
        _train_epoch(engine, case, train, curves, rank, dtype, seed, epoch)
        elapsed += time.perf_counter() - start
        accuracy = evaluate(
            engine.model,
            held_out,
            image_size=case.model.image_size,
            batch_size=EVAL_BATCHES * case.micro_batch_size,
            rank=rank,
            dtype=dtype,
        )
        curves.eval_top1_percent.append(accuracy.top1_percent)
        curves.eval_time_s.append(elapsed)
    return curves, accuracy


def _train_epoch(
    engine: TrainingEngine,
    case: Case,
    train: Split,
    curves: Curves,
    rank: Rank,
    dtype: torch.dtype,
    seed: int,
    epoch: int,
) -> None:
    steps_per_epoch = len(train) // case.global_batch_size
    losses = []
    for chosen in _batches(len(train), case, rank, seed, epoch):
        learning_rate = case.optimizer.learning_rate * schedule(
            step=len(curves.learning_rate),
            steps=case.fit.epochs * steps_per_epoch,
            warmup_steps=case.fit.warmup_epochs * steps_per_epoch,
        )
        engine.set_learning_rate(learning_rate)
        images, labels = train.batch(chosen, case.model.image_size)
        losses.append(
            engine.step(images.to(rank.device, dtype), labels.to(rank.device))
        )
        curves.learning_rate.append(learning_rate)
    # One look an epoch: a look a step would make a GPU wait for the host.
    mean_losses = sum_over_ranks(torch.stack(losses).double()) / rank.world_size
    for step_loss in mean_losses.tolist():
        if not math.isfinite(step_loss):
            raise NonFiniteLossError(step_loss, len(curves.loss))
        curves.loss.append(step_loss)


def _batches(
    num_samples: int, case: Case, rank: Rank, seed: int, epoch: int
) -> Iterator[Tensor]:
    """This rank's indices of each batch; a last batch that is not full is left out."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(num_samples, generator=generator)
    whole = num_samples // case.global_batch_size
    for batch in order[: whole * case.global_batch_size].view(
        whole, case.global_batch_size
    ):
        yield batch[rank.rank :: rank.world_size]


def schedule(step: int, steps: int, warmup_steps: float) -> float:
    """Share of the peak learning rate: a linear rise, then half a cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * progress))
