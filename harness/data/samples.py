"""Samples out of storage: what cannot be read is told, and labels become targets.

B samples of a batch, K classes.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from tlbench.data import Label, Stored, Unreadable
from tlbench.errors import TrialError, UnreadableSampleError
from tlbench.suites.spec import Case

Sample = tuple[list[Image.Image], Label]
"""The frames of a sample, and its label."""


class Reader:
    """Reads the samples of one split, and remembers which it could not read."""

    def __init__(self, stored: Stored, case: Case) -> None:
        self._stored = stored
        self._num_classes = case.num_classes
        self._limit = most_unreadable(stored, case)
        self.unreadable = Unreadable()

    def read(self, index: int) -> Sample | None:
        """The sample; None where it cannot be read."""
        try:
            frames, label = self._stored.read(index)
        except UnreadableSampleError as error:
            self.unreadable.reasons[self._stored.name(index)] = str(error)
            return None
        self._check(label, index)
        return frames, label

    def read_or_next(self, index: int) -> Sample:
        """The sample, or the next one that can be read; the first follows the last.

        Raises:
            TrialError: There is none before the limit.
        """
        for number in range(index, index + self._limit + 1):
            sample = self.read(number % len(self._stored))
            if sample is not None:
                return sample
        raise self.unreadable.as_error(self._limit)

    def _check(self, label: Label, index: int) -> None:
        classes = label if isinstance(label, tuple) else (label,)
        if classes and not 0 <= min(classes) <= max(classes) < self._num_classes:
            raise TrialError(
                f"{self._stored.name(index)} has the label {label}, and classes are"
                f" numbered from 0 to {self._num_classes - 1}"
            )


def most_unreadable(stored: Stored, case: Case) -> int:
    """How many samples of a split may be unreadable: never all of them."""
    return min(int(case.view.max_unreadable * len(stored)), len(stored) - 1)


def make_targets(labels: Sequence[Label], num_classes: int) -> Tensor:
    """[B] int64; or [B, K] float32, where samples may have several labels or none."""
    if not any(isinstance(label, tuple) for label in labels):
        return torch.tensor(labels)
    targets = torch.zeros(len(labels), num_classes)
    for row, label in zip(targets, labels, strict=True):
        row[list(label) if isinstance(label, tuple) else [label]] = 1
    return targets
