"""How good the answers of a model are on held-out samples, over all ranks.

B samples of this rank in one batch, K classes, N samples of all ranks, V views.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tlbench.data import Dataset, SplitName
from tlbench.data.epochs import Viewed, view_batches
from tlbench.engine import sum_over_ranks
from tlbench.errors import TrialError
from tlbench.rank import Rank
from tlbench.suites.spec import Case

TOP_K = 5


@dataclass(frozen=True)
class Accuracy:
    """What share of the answers is right; None where another measure is the right one.

    Samples of one label have top-1 and top-5. So do those with a set of labels that are
    all right, as ImageNet-ReaL has them. Where every label is to be found, as in
    Charades, it is the mean average precision.
    """

    total: int
    """Samples that count."""
    top1_percent: float | None = None
    top5_percent: float | None = None
    map_percent: float | None = None
    notes: dict[str, str] = field(default_factory=dict)
    """What was left out."""

    @property
    def metrics(self) -> dict[str, float]:
        """By their names, those that there are."""
        measures = {
            "top1_percent": self.top1_percent,
            "top5_percent": self.top5_percent,
            "map_percent": self.map_percent,
        }
        known = {name: value for name, value in measures.items() if value is not None}
        return known | {"n_eval": self.total}


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    case: Case,
    *,
    rank: Rank,
    dtype: torch.dtype,
    batch_size: int,
) -> Accuracy:
    """Hold the answers of the model against the labels of the split for evaluation.

    Every rank takes its share, and all get the accuracy of the whole.

    Args:
        model: Is left in the mode in which it came.
        dataset: What is asked about.
        case: Its views of each sample are what logits are averaged over.
        rank: Which share of the samples it is.
        dtype: Of the model's input.
        batch_size: Images or clips that one rank passes through the model at once.
    """
    given = answers(
        model, dataset, "eval", case, rank=rank, dtype=dtype, batch_size=batch_size
    )
    if case.data_info.is_multilabel:
        return _mean_average_precision(given, case, rank)
    return _share_of_hits(given, case, rank)


# ---------------------------------------------------------------- what the model says


class Answers(NamedTuple):
    """What a model says of the samples of one batch."""

    outputs: Tensor
    """[B, K] float32 on the host: logits, or features; the mean over the views."""
    labels: Tensor
    """[B] int64; or [B, K], where samples may have several or none."""
    counted: Tensor
    """[B] bool: neither padding nor unreadable."""


@torch.no_grad()
def answers(
    model: nn.Module,
    dataset: Dataset,
    split: SplitName,
    case: Case,
    *,
    rank: Rank,
    dtype: torch.dtype,
    batch_size: int,
    indices: Sequence[int] | None = None,
) -> Iterator[Answers]:
    """Pass this rank's share of a split through the model, or of some of its samples.

    As `view_batches` shares it out; `batch_size` is as in `evaluate`.
    """
    batches = view_batches(
        dataset,
        split,
        case,
        rank,
        batch_size=max(batch_size // case.views, 1),
        indices=indices,
    )
    with _evaluating(model):
        for batch in batches:
            outputs = _outputs(model, batch, rank, dtype, batch_size)
            yield Answers(outputs, batch.labels, batch.counted)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _outputs(
    model: nn.Module, batch: Viewed, rank: Rank, dtype: torch.dtype, batch_size: int
) -> Tensor:
    """[B, K]: the mean over the views of what the model says of each."""
    parts = [
        model(images.to(rank.device, non_blocking=True).to(dtype)).float()
        for images in torch.split(batch.images, batch_size)
    ]
    views = torch.unflatten(torch.cat(parts), 0, (-1, batch.views))
    outputs: Tensor = views.mean(dim=1).cpu()
    if not outputs.isfinite().all():
        raise TrialError("the model's answers are not finite numbers (nan or inf)")
    return outputs


def of_all_ranks(values: Tensor, rank: Rank) -> Tensor:
    """Put together a batch of each rank, [B, ...] -> [N, ...], in the order of ranks.

    Every rank must ask, with as many values.
    """
    shares = values.new_zeros(rank.world_size, *values.shape)
    shares[rank.rank] = values
    return sum_over_ranks(shares.to(rank.device)).cpu().flatten(0, 1)


# ---------------------------------------------------------------- how right that is


def _share_of_hits(given: Iterator[Answers], case: Case, rank: Rank) -> Accuracy:
    """Top-1 and top-5: an answer is right that is among the labels of the sample."""
    counts = torch.zeros(4, dtype=torch.int64)
    for outputs, labels, counted in given:
        label_sets = _label_sets(labels, case.num_classes)
        has_label = label_sets.any(dim=1)
        hits = _hits(outputs, label_sets)[counted & has_label]
        counts[:2] += hits.sum(dim=0)
        counts[2] += len(hits)
        counts[3] += (counted & ~has_label).sum()
    top1, top5, total, unlabelled = sum_over_ranks(counts.to(rank.device)).tolist()
    if total == 0:
        raise TrialError(
            f"no sample of {case.data} has a label that it could be held to"
        )
    notes = {"unlabelled": f"{unlabelled:,} samples have no label, and do not count"}
    return Accuracy(
        total=total,
        top1_percent=100 * top1 / total,
        top5_percent=100 * top5 / total,
        notes=notes if unlabelled else {},
    )


def _label_sets(labels: Tensor, num_classes: int) -> Tensor:
    """[B] or [B, K] -> [B, K] bool: the labels of each sample."""
    if labels.ndim == 2:
        return labels > 0
    return nn.functional.one_hot(labels, num_classes).bool()


def _hits(logits: Tensor, label_sets: Tensor) -> Tensor:
    """[B, 2]: whether the first answer is right, and whether one of five is."""
    ranked = logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices
    right = label_sets.gather(1, ranked)
    return torch.stack([right[:, 0], right.any(dim=1)], dim=1)


def _mean_average_precision(
    given: Iterator[Answers], case: Case, rank: Rank
) -> Accuracy:
    """The mean over the classes, those left out that no sample has."""
    from sklearn.metrics import average_precision_score  # slow to import, seldom used

    collected = [
        (outputs, _label_sets(labels, case.num_classes), counted)
        for outputs, labels, counted in given
    ]
    own_outputs, own_sets, own_counted = map(torch.cat, zip(*collected, strict=True))
    counted = of_all_ranks(own_counted.int(), rank).bool()
    outputs = of_all_ranks(own_outputs, rank)[counted]
    label_sets = of_all_ranks(own_sets.int(), rank)[counted]
    present = label_sets.any(dim=0).nonzero().flatten().tolist()
    if not present:
        raise TrialError(
            f"no sample of {case.data} has a label that it could be held to"
        )
    score: Callable[..., float] = average_precision_score
    precisions = [score(label_sets[:, c], outputs[:, c]) for c in present]
    absent = case.num_classes - len(present)
    notes = {"classes": f"{absent} of {case.num_classes} have no sample; left out"}
    return Accuracy(
        total=len(outputs),
        map_percent=100 * sum(precisions) / len(precisions),
        notes=notes if absent else {},
    )
