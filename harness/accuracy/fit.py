"""Training to accuracy: epochs over a real data set, evaluated on the way.

B samples of this rank in one step.
"""

import math
import time
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from tlbench.accuracy.checkpointing import Checkpoints
from tlbench.accuracy.evaluate import Accuracy, evaluate
from tlbench.accuracy.schedules import make_schedule
from tlbench.data import Dataset, hold
from tlbench.data.epochs import training_batches
from tlbench.engine import TrainingEngine, sum_over_ranks
from tlbench.errors import NonFiniteLossError, TrialError
from tlbench.measure.timing import moment, seconds_between
from tlbench.rank import Rank
from tlbench.suites.spec import Case, Trial

EVAL_BATCHES = 4
"""Micro-batches evaluated at once: nothing is kept for a backward pass."""


@dataclass
class Curves:
    """What training leaves behind, in order."""

    loss: list[float] = field(default_factory=list)
    """Mean over the batch, per optimiser step."""
    learning_rate: list[float] = field(default_factory=list)
    """Per optimiser step."""
    epoch_time_s: list[float] = field(default_factory=list)
    """Seconds of training in each epoch: without evaluation and checkpoints."""
    epoch_data_wait_s: list[float] = field(default_factory=list)
    """Seconds of each epoch that went by before a batch was there."""
    eval_epoch: list[float] = field(default_factory=list)
    """Epochs that each evaluation came after."""
    eval_top1_percent: list[float] = field(default_factory=list)
    eval_top5_percent: list[float] = field(default_factory=list)
    eval_map_percent: list[float] = field(default_factory=list)
    """Per evaluation; empty where another measure is the right one."""
    eval_time_s: list[float] = field(default_factory=list)
    """Seconds of training until each evaluation."""
    resumed_at_step: list[float] = field(default_factory=list)
    """Optimiser steps after which the training was ended, and went on later."""
    notes: dict[str, str] = field(default_factory=dict)
    """Words about the training, such as where it went on from."""

    def series(self) -> dict[str, list[float]]:
        """The arrays, by their names."""
        names = (item.name for item in fields(self))
        return {name: getattr(self, name) for name in names if name != "notes"}

    @property
    def train_time_s(self) -> float:
        """Seconds of training so far."""
        return math.fsum(self.epoch_time_s)

    @property
    def data_wait_fraction(self) -> float:
        """Share of the training time that went by waiting for input."""
        return math.fsum(self.epoch_data_wait_s) / self.train_time_s

    def time_to_accuracy_s(self, top1_percent: float) -> float | None:
        """Training time until an evaluation first found this accuracy or more."""
        # There is no top-1 where samples have several labels.
        for reached, elapsed in zip(
            self.eval_top1_percent, self.eval_time_s, strict=False
        ):
            if reached >= top1_percent:
                return elapsed
        return None


def fit(
    engine: TrainingEngine,
    trial: Trial,
    dataset: Dataset,
    *,
    rank: Rank,
    dtype: torch.dtype,
) -> tuple[Curves, Accuracy]:
    """Train as the case says; the accuracy is that after the last step.

    With `trial.storage` the training is kept after every epoch, and one that was ended
    goes on from there.
    """
    training = _Training(engine, trial, dataset, rank, dtype)
    accuracy = training.run()
    return training.curves, accuracy


class _Training:
    """One training of a trial, and how far it is."""

    def __init__(
        self,
        engine: TrainingEngine,
        trial: Trial,
        dataset: Dataset,
        rank: Rank,
        dtype: torch.dtype,
    ) -> None:
        self.curves, self.step = Curves(), 0
        self._engine, self._case, self._seed = engine, trial.case, trial.seed
        self._dataset, self._rank, self._dtype = dataset, rank, dtype
        self._device = torch.device(rank.device)
        self._steps_per_epoch = _steps_per_epoch(trial.case, dataset)
        self._schedule = make_schedule(trial.case, self._steps_per_epoch)
        self._checkpoints = (
            None if trial.storage is None else Checkpoints(trial.storage, trial, rank)
        )

    def run(self) -> Accuracy:
        self._resume()
        accuracy = None
        while self.step < self._schedule.steps:
            epoch, first_step = divmod(self.step, self._steps_per_epoch)
            self._train_epoch(epoch, first_step)
            is_last = self.step == self._schedule.steps
            if is_last or (epoch + 1) % self._case.fit.eval_epochs == 0:
                accuracy = self._evaluate()
                self._add_evaluation(accuracy)
            self._keep()
        if accuracy is None:  # it was ended after its last step
            accuracy = self._evaluate()
        self._keep_weights()
        return accuracy

    # ---------------------------------------------------------------- training

    def _train_epoch(self, epoch: int, first_step: int) -> None:
        """Train to the end of the epoch, or of the training."""
        steps_left = self._schedule.steps - epoch * self._steps_per_epoch
        last_step = min(self._steps_per_epoch, steps_left)
        batches = iter(
            training_batches(
                self._dataset,
                self._case,
                self._rank,
                seed=self._seed,
                epoch=epoch,
                first_step=first_step,
            )
        )
        losses, waits = [], []
        start = time.perf_counter()
        for _ in range(first_step, last_step):
            asked = moment(self._device)
            images, targets = next(batches)
            waits.append((asked, moment(self._device)))
            losses.append(self._train_step(images, targets))
        # One look an epoch: a look a step would make a GPU wait for the host.
        mean_losses = sum_over_ranks(torch.stack(losses).double())
        self._add_losses((mean_losses / self._rank.world_size).tolist())
        self.curves.epoch_time_s.append(time.perf_counter() - start)
        self.curves.epoch_data_wait_s.append(
            math.fsum(seconds_between(asked, there) for asked, there in waits)
        )

    def _train_step(self, images: Tensor, targets: Tensor) -> Tensor:
        learning_rate = self._schedule.at(self.step)
        self._engine.set_learning_rate(learning_rate)
        self.curves.learning_rate.append(learning_rate)
        self.step += 1
        # Two steps: a copy that also converts would wait for the host.
        images = images.to(self._device, non_blocking=True).to(self._dtype)
        return self._engine.step(images, targets.to(self._device, non_blocking=True))

    def _add_losses(self, losses: list[float]) -> None:
        for loss in losses:
            if not math.isfinite(loss):
                raise NonFiniteLossError(loss, len(self.curves.loss))
            self.curves.loss.append(loss)

    # ---------------------------------------------------------------- evaluation

    def _evaluate(self) -> Accuracy:
        with self._engine.averaged():
            return evaluate(
                self._engine.model,
                self._dataset,
                self._case,
                rank=self._rank,
                dtype=self._dtype,
                batch_size=EVAL_BATCHES * self._case.micro_batch_size,
            )

    def _add_evaluation(self, accuracy: Accuracy) -> None:
        curves = self.curves
        curves.eval_epoch.append(self.step / self._steps_per_epoch)
        curves.eval_time_s.append(curves.train_time_s)
        for curve, percent in (
            (curves.eval_top1_percent, accuracy.top1_percent),
            (curves.eval_top5_percent, accuracy.top5_percent),
            (curves.eval_map_percent, accuracy.map_percent),
        ):
            if percent is not None:
                curve.append(percent)

    # ---------------------------------------------------------------- checkpoints

    def _keep(self) -> None:
        if self._checkpoints is None:
            return
        state = {
            "step": self.step,
            "curves": self.curves.series(),
            "engine": self._engine.state(),
            "rng": _rng_states(self._device),
        }
        self._checkpoints.save(self.step, state)

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if self._checkpoints is None:
            return
        state = self._checkpoints.newest()
        if state is not None:
            self._load(state)
        if self._checkpoints.damages:
            self.curves.notes["checkpoints"] = "; ".join(self._checkpoints.damages)

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.curves = state["step"], Curves(**state["curves"])
        try:
            self._engine.load_state(state["engine"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrialError(
                f"the checkpoint of step {self.step} does not fit this training, as of"
                f" another version of DeepSpeed or torch ({error}); another --storage"
                " would train anew"
            ) from error
        _set_rng_states(state["rng"])
        if self.step == self._schedule.steps:
            told = "was complete; its times are those of the run that trained it"
        else:
            self.curves.resumed_at_step.append(self.step)
            told = f"went on after step {self.step}"
        self.curves.notes["training"] = told

    def _keep_weights(self) -> None:
        """Keep those that the evaluation used."""
        if self._checkpoints is not None:
            with self._engine.averaged():
                weights = self._engine.whole_weights()
            self._checkpoints.save_weights(weights, self.step)


def _steps_per_epoch(case: Case, dataset: Dataset) -> int:
    """Whole batches of the training samples; those that are left over wait."""
    samples = len(hold(dataset, "train").stored)
    if samples < case.global_batch_size:
        raise TrialError(
            f"batch_size={case.global_batch_size} exceeds the {samples} training"
            f" samples of {case.data}"
        )
    return samples // case.global_batch_size


def _rng_states(device: torch.device) -> list[Tensor]:
    """Of torch's generators: the host's, and that of the GPU if it is one."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state()] if device.type == "cuda" else states


def _set_rng_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
