"""Training to accuracy: schedule, batches of the ranks, curves and what stops it.

The models here are tiny and trained by plain SGD behind the face of the engine, so
that nothing of DeepSpeed is needed.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlbench.accuracy.fit import Curves, _batches, fit, schedule
from tlbench.data import Split, SplitName
from tlbench.errors import NonFiniteLossError, TrialError
from tlbench.rank import Rank
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.spec import Case

MODEL = ModelSpec(
    name="tiny",
    image_size=2,
    patch_size=1,
    embed_dim=8,
    depth=1,
    num_heads=1,
    mlp_dim=8,
)


def make_case(**changes: Any) -> Case:
    settings = {"model": MODEL, "mode": "fit", "data": "digits", "batch_size": 10}
    return Case.model_validate(settings | changes)


def make_rank(rank: int = 0, world_size: int = 1) -> Rank:
    return Rank(rank, world_size, rank, world_size, "127.0.0.1", 0, "cpu", 1)


class BrightOrDark:
    """Two classes that a linear model learns at once: bright images and dark ones."""

    num_classes = 2

    def __init__(self, samples: int = 45) -> None:
        self._samples = samples

    def split(self, name: SplitName) -> Split:
        labels = torch.arange(self._samples if name == "train" else 7) % 2
        images = (labels * 2.0 - 1)[:, None, None, None].expand(-1, 3, 2, 2)
        return Split(images, labels)


class PlainEngine:
    """Gradient descent in place of DeepSpeed's AdamW."""

    def __init__(self, loss_at: dict[int, float] | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        self.rates: list[float] = []
        self.batches: list[Tensor] = []
        self._loss_at = loss_at or {}

    def set_learning_rate(self, learning_rate: float) -> None:
        self.rates.append(learning_rate)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(self.model(images), labels)
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(self.rates[-1] * gradient)
        self.batches.append(images)
        forced = self._loss_at.get(len(self.batches) - 1)
        return loss.detach() if forced is None else torch.tensor(forced)


def train(
    case: Case, engine: PlainEngine, dataset: BrightOrDark | None = None
) -> tuple[Curves, float]:
    curves, accuracy = fit(
        engine,
        case,
        dataset or BrightOrDark(),
        rank=make_rank(),
        dtype=torch.float32,
        seed=3,
    )
    return curves, accuracy.top1_percent


def test_the_rate_rises_in_equal_parts_and_then_falls_along_half_a_cosine() -> None:
    rates = [schedule(step, steps=8, warmup_steps=3) for step in range(8)]
    assert rates[:3] == [1 / 4, 2 / 4, 3 / 4]
    tenths = [0, 1 / 5, 2 / 5, 3 / 5, 4 / 5]  # of the way from step 3 to step 8
    cosine = [(1 + math.cos(math.pi * t)) / 2 for t in tenths]
    assert rates[3:] == pytest.approx(cosine)
    assert rates[3] == 1


def test_the_rate_would_be_zero_after_the_last_step() -> None:
    assert schedule(8, steps=8, warmup_steps=3) == pytest.approx(0)


def test_without_a_warm_up_the_rate_starts_at_its_peak() -> None:
    assert schedule(0, steps=8, warmup_steps=0) == 1


def test_a_warm_up_longer_than_the_training_never_reaches_the_peak() -> None:
    rates = [schedule(step, steps=4, warmup_steps=10.0) for step in range(4)]
    assert rates == pytest.approx([1 / 11, 2 / 11, 3 / 11, 4 / 11])


def test_an_epoch_holds_every_sample_once_but_for_a_last_batch_not_full() -> None:
    batches = list(_batches(45, make_case(), make_rank(), seed=1, epoch=0))
    assert [len(batch) for batch in batches] == [10, 10, 10, 10]
    assert len(set(torch.cat(batches).tolist())) == 40


@pytest.mark.parametrize("world_size", [2, 5])
def test_the_ranks_share_out_each_batch(world_size: int) -> None:
    case = make_case(parallelism={"world_size": world_size})
    whole = list(_batches(45, case, make_rank(), seed=1, epoch=2))
    shares = [
        list(_batches(45, case, make_rank(rank, world_size), seed=1, epoch=2))
        for rank in range(world_size)
    ]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert {len(part) for part in parts} == {10 // world_size}
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())


def test_the_order_of_the_samples_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = _batches(45, make_case(), make_rank(), seed, epoch)
        return [int(index) for batch in batches for index in batch]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_the_curves_have_a_point_for_each_step_and_each_epoch() -> None:
    case = make_case(fit={"epochs": 3, "warmup_epochs": 0.5})
    engine = PlainEngine()
    curves, _ = train(case, engine)
    assert len(curves.loss) == len(curves.learning_rate) == 3 * 4
    assert curves.learning_rate == engine.rates
    assert curves.learning_rate == pytest.approx(
        [1e-3 * schedule(step, steps=12, warmup_steps=2) for step in range(12)]
    )
    assert len(curves.eval_top1_percent) == 3
    assert curves.eval_time_s == sorted(curves.eval_time_s)


def test_training_learns() -> None:
    case = make_case(fit={"epochs": 5}, optimizer={"learning_rate": 0.5})
    curves, top1_percent = train(case, PlainEngine())
    assert curves.loss[-1] < curves.loss[0] / 2
    assert top1_percent == curves.eval_top1_percent[-1] == 100


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_step(
    loss: float,
) -> None:
    # The first epoch has steps 0 to 3, the second 4 to 7.
    with pytest.raises(NonFiniteLossError, match=f"loss is {loss} at optimiser step 6"):
        train(make_case(fit={"epochs": 9}), engine := PlainEngine({6: loss}))
    assert len(engine.batches) == 8


def test_a_batch_larger_than_the_data_set_is_refused() -> None:
    case = make_case(batch_size=50)
    message = "batch_size=50 exceeds the 45 training samples of digits"
    with pytest.raises(TrialError, match=message):
        train(case, PlainEngine())


def test_time_to_accuracy_is_that_of_the_first_epoch_that_reaches_it() -> None:
    curves = Curves(eval_top1_percent=[50, 91, 89, 95], eval_time_s=[1, 2, 3, 4])
    assert curves.time_to_accuracy_s(91) == 2
    assert curves.time_to_accuracy_s(91.5) == 4
    assert curves.time_to_accuracy_s(95.5) is None
