"""The few-shot probe: ridge regression from frozen features to a few labelled samples.

Sources: big_vision `evaluators/fewshot_lsr.py` and scenic
`train_lib/transfer/fewshot_utils.py`, whose formulas are the same.

B samples of one batch, D width of the features, K classes, M samples that were
collected, N samples of one draw.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from tlbench.accuracy.evaluate import Answers, answers, of_all_ranks
from tlbench.data import Dataset, Held, Label, SplitName, hold
from tlbench.engine import sum_over_ranks
from tlbench.errors import TrialError
from tlbench.rank import Rank
from tlbench.suites.spec import Case

BIAS = 100.0
"""The constant feature: so large that the penalty hardly holds its weight down."""
EPSILON = 1e-5
"""Added to the deviation of each feature."""


@dataclass(frozen=True)
class FewShotAccuracy:
    """Top-1 of probes that saw so many samples of each class."""

    shots: int
    top1_percent: tuple[float, ...]
    """Of each draw."""
    reason: str | None = None
    """Why there is none."""

    @property
    def mean_percent(self) -> float | None:
        return fmean(self.top1_percent) if self.top1_percent else None

    @property
    def deviation_percent(self) -> float | None:
        """Of the draws; None of a single one."""
        return stdev(self.top1_percent) if len(self.top1_percent) > 1 else None


@dataclass(frozen=True)
class FewShotResult:
    """What the probes of one model came to."""

    accuracies: tuple[FewShotAccuracy, ...]
    """One for each number of shots, rising."""
    asked: int
    """Samples that the probes were asked about."""
    passed: int
    """Samples that passed through the model: those, and all to learn from."""


@runtime_checkable
class KnowsLabels(Protocol):
    """Stored samples whose labels are known before the samples are read."""

    def label(self, index: int) -> Label: ...


def few_shot(
    model: nn.Module,
    dataset: Dataset,
    case: Case,
    *,
    rank: Rank,
    dtype: torch.dtype,
    batch_size: int,
    seed: int,
) -> FewShotResult:
    """Probe the features of the model; its classifier is taken off.

    Every sample passes through the model once at most, whatever the shots and draws,
    and only features that probes learn from are kept.

    Args:
        model: Its weights stay as they are.
        dataset: Probes learn from its training split, and are asked about the other.
        case: Its `fewshot` says how.
        rank: Which share of the samples it takes; all get the whole result.
        dtype: Of the model's input.
        batch_size: Images or clips that one rank passes through the model at once.
        seed: Of the order in which samples are drawn.
    """
    remove_classifier(model)
    extractor = _Extractor(model, dataset, case, rank, dtype, batch_size)
    support = _collect(extractor, hold(dataset, "train"), case, seed)
    probes = [(shots, support.probes(shots, case)) for shots in case.fewshot.counts]
    asked, shares = _ask(extractor, [probe for _, of in probes for probe in of])
    accuracies = tuple(
        FewShotAccuracy(
            shots=shots,
            top1_percent=tuple(100 * next(shares) for _ in of),
            reason=None if of else support.why_too_few(shots, case),
        )
        for shots, of in probes
    )
    return FewShotResult(accuracies, asked, extractor.passed)


def _ask(
    extractor: "_Extractor", probes: "Sequence[RidgeProbe]"
) -> tuple[int, Iterator[float]]:
    """How many samples all ranks asked about, and each probe's share of right ones."""
    counts = torch.zeros(1 + len(probes), dtype=torch.int64)
    for features, labels in extractor.queries() if probes else ():
        counts[0] += len(labels)
        for number, probe in enumerate(probes, start=1):
            counts[number] += (probe.predict(features) == labels).sum()
    asked, *right = sum_over_ranks(counts.to(extractor.rank.device)).tolist()
    extractor.passed += asked
    return asked, (count / asked for count in right)


# ---------------------------------------------------------------- the probe


@dataclass(frozen=True)
class RidgeProbe:
    """A linear classifier in closed form, on standardised features.

    In float64: the constant feature makes the largest eigenvalue of the matrix some
    10^4 times that of any other feature, more than float32 has digits for.
    """

    mean: Tensor
    """[D]."""
    scale: Tensor
    """[D]."""
    weights: Tensor
    """[D + 1, K]; the last row is the weight of the constant feature."""

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, num_classes: int, l2: float) -> Self:
        """W = (A'A + l2 I)^-1 A'Y, with targets Y of 1 for the label and -1 elsewhere.

        A are the standardised features [N, D] and the constant one, whose weight is
        penalised too.
        """
        features = features.double()
        mean = features.mean(dim=0)
        scale = features.std(dim=0, correction=0) + EPSILON
        inputs = _with_bias((features - mean) / scale)  # [N, D + 1]
        penalty = l2 * torch.eye(inputs.shape[1], dtype=inputs.dtype)
        # Y itself, [N, K], would be large where there are many classes.
        of_class = inputs.new_zeros(num_classes, inputs.shape[1])
        of_class.index_add_(0, labels, inputs)
        products = 2 * of_class.T - inputs.sum(dim=0)[:, None]  # A'Y
        weights = torch.linalg.solve(inputs.T @ inputs + penalty, products)
        return cls(mean, scale, weights)

    def predict(self, features: Tensor) -> Tensor:
        """[B, D] -> the class of each, [B]."""
        return self.scores(features).argmax(dim=1)

    def scores(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, K]."""
        inputs = _with_bias((features.double() - self.mean) / self.scale)
        return inputs @ self.weights


def _with_bias(features: Tensor) -> Tensor:
    return nn.functional.pad(features, (0, 1), value=BIAS)


# ---------------------------------------------------------------- what it learns from


@dataclass(frozen=True)
class Support:
    """Features of training samples, in the order in which they are drawn."""

    features: Tensor
    """[M, D]."""
    labels: Tensor
    """[M]."""

    def probes(self, shots: int, case: Case) -> list[RidgeProbe]:
        """One of each draw; none where a class has too few samples."""
        places = [
            (self.labels == label).nonzero().flatten()
            for label in range(case.num_classes)
        ]
        if min(map(len, places)) < shots:
            return []
        chosen = (
            torch.cat([_drawn(of, shots, draw, case) for of in places])
            for draw in range(case.fewshot.draws)
        )
        return [
            RidgeProbe.fit(
                self.features[of], self.labels[of], case.num_classes, case.fewshot.l2
            )
            for of in chosen
        ]

    def why_too_few(self, shots: int, case: Case) -> str:
        """Why there is no probe."""
        found = torch.bincount(self.labels, minlength=case.num_classes)
        fewest = int(found.argmin())
        return (
            f"class {fewest} of {case.data} has {int(found[fewest])} training samples"
            f" that can be read, and {shots} are to be drawn"
        )


def _drawn(places: Tensor, shots: int, draw: int, case: Case) -> Tensor:
    """The samples of one class that a draw takes.

    Fewer shots are the first ones of more. Draws share no sample as long as the class
    has enough of them.
    """
    first = draw * case.fewshot.counts[-1]
    return places[torch.arange(first, first + shots) % len(places)]


def _collect(extractor: "_Extractor", held: Held, case: Case, seed: int) -> Support:
    """As many samples of each class as all draws take, where there are so many."""
    quota = _Quota(case.fewshot.draws * case.fewshot.counts[-1], case.num_classes)
    order = _order(len(held.stored), case, seed)
    label_of = _known_labels(held)
    features, labels = [], []
    while order and not quota.is_met:
        candidates, order = quota.candidates(order, label_of)
        if not candidates:
            break
        for batch_features, batch_labels in extractor.support(candidates):
            rows = quota.take(batch_labels.tolist())
            features.append(batch_features[rows])
            labels.append(batch_labels[rows])
            if quota.is_met:
                break
    return Support(torch.cat(features), torch.cat(labels))


def _order(count: int, case: Case, seed: int) -> list[int]:
    """Of the training samples: at random, or with `scenic` as they are stored."""
    if case.fewshot.convention == "scenic":
        return list(range(count))
    order: list[int] = torch.randperm(
        count, generator=torch.Generator().manual_seed(seed)
    ).tolist()
    return order


def _known_labels(held: Held) -> Callable[[int], Label] | None:
    """What gives the label of a training sample that was not read; None: nothing."""
    if held.split is not None:
        return held.split.labels.tolist().__getitem__
    return held.stored.label if isinstance(held.stored, KnowsLabels) else None


@dataclass
class _Quota:
    """Takes so many samples of each class."""

    wanted: int
    num_classes: int
    taken: Counter[Label] = field(default_factory=Counter)

    @property
    def is_met(self) -> bool:
        return all(
            self.taken[label] >= self.wanted for label in range(self.num_classes)
        )

    def take(self, labels: Iterable[Label]) -> list[int]:
        """The places of those that are taken."""
        places = []
        for place, label in enumerate(labels):
            if self.taken[label] < self.wanted:
                self.taken[label] += 1
                places.append(place)
        return places

    def candidates(
        self, order: list[int], label_of: Callable[[int], Label] | None
    ) -> tuple[list[int], list[int]]:
        """The samples that would fill it, and those that come into question later.

        Without knowledge of the labels all might. Some may prove to be unreadable.
        """
        if label_of is None:
            return order, []
        trial = _Quota(self.wanted, self.num_classes, self.taken.copy())
        places = set(trial.take(map(label_of, order)))
        return (
            [index for place, index in enumerate(order) if place in places],
            [index for place, index in enumerate(order) if place not in places],
        )


# ---------------------------------------------------------------- features


def remove_classifier(model: Any) -> None:
    """Make the model give what its classifier would be given: timm's `pre_logits`.

    Raises:
        TrialError: It has no linear layer called `head`, so that nobody can say what
            its features are.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear):
        raise TrialError(
            f"{type(model).__name__} has no linear layer called head, whose input would"
            " be its features"
        )
    model.head = nn.Identity()


@dataclass
class _Extractor:
    """Passes samples through a model without a classifier."""

    model: nn.Module
    dataset: Dataset
    case: Case
    rank: Rank
    dtype: torch.dtype
    batch_size: int
    passed: int = 0
    """Training samples so far, of all ranks."""

    def support(self, indices: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Features [B, D] and labels [B] of training samples of all ranks, in order."""
        # Of a video that is to train on, there is one clip.
        view = self.case.view.model_copy(update={"temporal_clips": 1})
        case = self.case.model_copy(update={"view": view})
        for features, labels, counted in self._answers("train", case, indices):
            is_counted = of_all_ranks(counted.int(), self.rank).bool()
            self.passed += int(is_counted.sum())
            yield (
                of_all_ranks(features, self.rank)[is_counted],
                of_all_ranks(labels, self.rank)[is_counted],
            )

    def queries(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and labels of this rank's samples to ask about."""
        for features, labels, counted in self._answers("eval", self.case, None):
            yield features[counted], labels[counted]

    def _answers(
        self, split: SplitName, case: Case, indices: Sequence[int] | None
    ) -> Iterator[Answers]:
        for given in answers(
            self.model,
            self.dataset,
            split,
            case,
            rank=self.rank,
            dtype=self.dtype,
            batch_size=self.batch_size,
            indices=indices,
        ):
            if given.labels.ndim == 2:
                raise TrialError(
                    f"samples of {case.data} may have several labels, and few-shot"
                    " probes learn one of each"
                )
            yield given
