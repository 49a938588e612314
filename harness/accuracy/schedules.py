"""How the learning rate rises and falls over the steps of a training."""

import math
from dataclasses import dataclass

from tlbench.suites.spec import Case
from tlbench.suites.training import Fit


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every optimiser step.

    It rises in equal parts, the first of which is not zero, so that the step after the
    rise is the first one at the peak. Then it falls along half a cosine or a line, and
    would be at its end after the last step; or it stays.
    """

    steps: int
    """Of the whole training."""
    warmup_steps: float
    peak: float
    end: float
    shape: str
    """That of the fall, one of `fit.schedule`."""

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        fallen = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.end + (self.peak - self.end) * self._share_left(fallen)

    def _share_left(self, fallen: float) -> float:
        match self.shape:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * fallen))
            case "linear":
                return 1 - fallen
            case _:
                return 1.0


def make_schedule(case: Case, steps_per_epoch: int) -> Schedule:
    """The schedule of a case whose epochs have so many steps."""
    fit = case.fit
    return Schedule(
        steps=_steps(fit, steps_per_epoch),
        warmup_steps=fit.warmup_epochs * steps_per_epoch
        if fit.warmup_steps is None
        else fit.warmup_steps,
        peak=case.optimizer.learning_rate,
        end=fit.end_learning_rate,
        shape=fit.schedule,
    )


def _steps(fit: Fit, steps_per_epoch: int) -> int:
    return fit.epochs * steps_per_epoch if fit.steps is None else fit.steps
