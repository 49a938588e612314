"""Training to accuracy: steps and epochs, curves, evaluation and what stops it.

The models here are tiny and trained by plain SGD behind the face of the engine, so
that nothing of DeepSpeed is needed.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tlbench.accuracy import fit as module
from tlbench.accuracy.evaluate import Accuracy
from tlbench.accuracy.fit import Curves, fit
from tlbench.accuracy.schedules import make_schedule
from tlbench.data import Split, SplitName
from tlbench.errors import NonFiniteLossError, TrialError
from tlbench.measure import timing
from tlbench.rank import Rank
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.spec import Case, Trial

MODEL = ModelSpec(
    name="tiny",
    image_size=2,
    patch_size=1,
    embed_dim=8,
    depth=1,
    num_heads=1,
    mlp_dim=8,
)
SEED = 3
STEPS_PER_EPOCH = 4
"""45 samples in batches of 10."""


def make_case(**changes: Any) -> Case:
    settings = {"model": MODEL, "mode": "fit", "data": "bright-or-dark", "classes": 2}
    return Case.model_validate(settings | {"batch_size": 10} | changes)


class BrightOrDark:
    """Two classes that a linear model learns at once: bright images and dark ones."""

    num_classes = 2

    def stored(self, split: SplitName) -> "StoredImages":
        return StoredImages(self.split(split))

    def split(self, name: SplitName) -> Split:
        labels = torch.arange(45 if name == "train" else 7) % 2
        images = (labels * 2.0 - 1)[:, None, None, None].expand(-1, 3, 2, 2)
        return Split(images, labels)


class StoredImages:
    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> tuple[list[Image.Image], int]:
        label = int(self._split.labels[index])
        return [Image.new("RGB", (2, 2), (255 * label,) * 3)], label


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

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(self.model(images), targets)
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(self.rates[-1] * gradient)
        self.batches.append(images)
        forced = self._loss_at.get(len(self.batches) - 1)
        return loss.detach() if forced is None else torch.tensor(forced)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        yield

    def state(self) -> dict[str, Any]:
        return dict(self.model.state_dict())

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)

    def whole_weights(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


class WrongOnAverage(PlainEngine):
    """The average of whose weights mistakes bright for dark."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self._negate()
        yield
        self._negate()

    @torch.no_grad()
    def _negate(self) -> None:
        for parameter in self.model.parameters():
            parameter.neg_()


def train(case: Case, engine: PlainEngine) -> tuple[Curves, Accuracy]:
    return fit(
        engine,
        Trial(case, repeat=0, position=0, seed=SEED),
        BrightOrDark(),
        rank=Rank(0, 1, 0, 1, "127.0.0.1", 0, "cpu", 1),
        dtype=torch.float32,
    )


def test_the_curves_have_a_point_for_each_step_and_each_epoch() -> None:
    case = make_case(fit={"epochs": 3, "warmup_epochs": 0.5})
    engine = PlainEngine()
    curves, _ = train(case, engine)
    assert len(curves.loss) == len(curves.learning_rate) == 3 * STEPS_PER_EPOCH
    schedule = make_schedule(case, STEPS_PER_EPOCH)
    assert curves.learning_rate == engine.rates
    assert curves.learning_rate == [schedule.at(step) for step in range(12)]
    assert len(curves.epoch_time_s) == len(curves.epoch_data_wait_s) == 3
    assert curves.eval_epoch == [1, 2, 3]
    assert len(curves.eval_top1_percent) == len(curves.eval_top5_percent) == 3
    assert curves.eval_map_percent == curves.resumed_at_step == []
    assert curves.eval_time_s[-1] == curves.train_time_s == sum(curves.epoch_time_s)


def test_an_epoch_holds_every_sample_at_most_once() -> None:
    engine = PlainEngine()
    train(make_case(fit={"epochs": 1}), engine)
    assert [len(batch) for batch in engine.batches] == [10] * STEPS_PER_EPOCH


def test_training_learns() -> None:
    case = make_case(fit={"epochs": 5}, optimizer={"learning_rate": 0.5})
    curves, accuracy = train(case, PlainEngine())
    assert curves.loss[-1] < curves.loss[0] / 2
    assert accuracy.top1_percent == curves.eval_top1_percent[-1] == 100


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"epochs": 5, "eval_epochs": 2}, [2, 4, 5]),
        ({"epochs": 4, "eval_epochs": 2}, [2, 4]),
        ({"epochs": 3, "eval_epochs": 9}, [3]),
        ({"steps": 10, "eval_epochs": 1}, [1, 2, 2.5]),
        ({"steps": 3}, [0.75]),
    ],
)
def test_it_is_evaluated_every_so_many_epochs_and_at_the_end(
    settings: dict[str, int], epochs: list[float]
) -> None:
    curves, accuracy = train(make_case(fit=settings), PlainEngine())
    assert curves.eval_epoch == epochs
    assert len(curves.eval_top1_percent) == len(curves.eval_time_s) == len(epochs)
    assert accuracy.top1_percent == curves.eval_top1_percent[-1]


def test_steps_end_the_training_inside_of_an_epoch() -> None:
    case, engine = make_case(fit={"steps": 10, "warmup_steps": 2}), PlainEngine()
    curves, _ = train(case, engine)
    assert len(engine.batches) == len(curves.loss) == 10
    assert len(curves.epoch_time_s) == 3
    schedule = make_schedule(case, STEPS_PER_EPOCH)
    assert engine.rates == [schedule.at(step) for step in range(10)]
    # The third epoch begins as it would if it were trained to its end.
    whole = PlainEngine()
    train(make_case(fit={"epochs": 3}), whole)
    assert all(map(torch.equal, engine.batches, whole.batches))


def test_the_average_of_the_weights_is_evaluated_and_not_trained_on() -> None:
    case = make_case(fit={"epochs": 5}, optimizer={"learning_rate": 0.5})
    curves, accuracy = train(case, WrongOnAverage())
    assert accuracy.top1_percent == 0
    assert curves.loss == train(case, PlainEngine())[0].loss


def test_where_samples_have_several_labels_there_is_no_top1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        module, "evaluate", lambda *_, **__: Accuracy(total=7, map_percent=40.0)
    )
    curves, accuracy = train(make_case(fit={"epochs": 2}), PlainEngine())
    assert curves.eval_map_percent == [40, 40]
    assert curves.eval_top1_percent == []
    assert curves.time_to_accuracy_s(1) is None
    assert accuracy.map_percent == 40


def test_the_time_waited_for_batches_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    def slow_batches(*_: Any, **__: Any) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            spend(3)
            yield torch.zeros(10, 3, 2, 2), torch.zeros(10, dtype=torch.int64)

    class SlowEngine(PlainEngine):
        def step(self, images: Tensor, targets: Tensor) -> Tensor:
            spend(1)
            return super().step(images, targets)

    def evaluate(*_: Any, **__: Any) -> Accuracy:
        spend(1000)
        return Accuracy(total=1, top1_percent=50.0)

    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(module, "training_batches", slow_batches)
    monkeypatch.setattr(module, "evaluate", evaluate)
    curves, _ = train(make_case(fit={"epochs": 2}), SlowEngine())
    assert curves.epoch_time_s == [16, 16]
    assert curves.epoch_data_wait_s == [12, 12]
    assert curves.data_wait_fraction == 0.75
    assert curves.eval_time_s == [16, 32]


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
    message = "batch_size=50 exceeds the 45 training samples of bright-or-dark"
    with pytest.raises(TrialError, match=message):
        train(case, PlainEngine())


def test_time_to_accuracy_is_that_of_the_first_evaluation_that_reaches_it() -> None:
    curves = Curves(eval_top1_percent=[50, 91, 89, 95], eval_time_s=[1, 2, 3, 4])
    assert curves.time_to_accuracy_s(91) == 2
    assert curves.time_to_accuracy_s(91.5) == 4
    assert curves.time_to_accuracy_s(95.5) is None
