"""The losses, against their formulas in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tlbench.losses import classification_loss
from tlbench.suites.training import Fit

Array = NDArray[np.float64]

SAMPLES, CLASSES = 5, 7


def make_logits() -> Array:
    return np.random.default_rng(0).normal(0, 5, (SAMPLES, CLASSES))


def make_targets(kind: str) -> tuple[Array, torch.Tensor]:
    """The weight of each class as NumPy has it, and the targets as the engine does."""
    generator = np.random.default_rng(1)
    labels = generator.integers(CLASSES, size=SAMPLES)
    one_hot = np.eye(CLASSES)[labels]
    if kind == "labels":
        return one_hot, torch.from_numpy(labels)
    if kind == "mixed":
        weights = 0.3 * one_hot + 0.7 * one_hot[::-1]
    else:  # several labels, or none
        weights = generator.integers(2, size=(SAMPLES, CLASSES)).astype(np.float64)
        weights[0] = 0
    return weights, torch.from_numpy(weights).float()


def by_formula(logits: Array, weights: Array, loss: str, smoothing: float) -> float:
    weights = (1 - smoothing) * weights + smoothing / CLASSES
    if loss == "softmax":
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_share = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return float(-(weights * log_share).sum(axis=1).mean())
    share = 1 / (1 + np.exp(-logits))
    costs = weights * np.log(share) + (1 - weights) * np.log(1 - share)
    return float(-costs.sum(axis=1).mean())


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", ["labels", "mixed", "several"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_loss_is_that_of_its_formula(loss: str, kind: str, smoothing: float) -> None:
    logits, (weights, targets) = make_logits(), make_targets(kind)
    fit = Fit.model_validate({"loss": loss, "label_smoothing": smoothing})
    measured = classification_loss(torch.from_numpy(logits).float(), targets, fit)
    expected = by_formula(logits, weights, loss, smoothing)
    assert measured.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_loss_is_computed_in_fp32_whatever_the_model_computes_in(loss: str) -> None:
    fit, (_, targets) = Fit.model_validate({"loss": loss}), make_targets("labels")
    logits = torch.from_numpy(make_logits()).bfloat16()
    measured = classification_loss(logits, targets, fit)
    assert measured.dtype == torch.float32
    assert measured == classification_loss(logits.float(), targets, fit)


def test_a_confident_sigmoid_has_a_finite_loss() -> None:
    fit = Fit(loss="sigmoid")
    logits: Any = torch.tensor([[200.0, -200.0]])
    assert classification_loss(logits, torch.tensor([1]), fit).item() == 400
