"""Top-1 and top-5 accuracy of a classifier on a split, over all ranks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlbench.data import Split
from tlbench.engine import sum_over_ranks
from tlbench.rank import Rank

TOP_K = 5


@dataclass(frozen=True)
class Accuracy:
    """Correct answers among those asked for."""

    top1: int
    top5: int
    total: int

    @property
    def top1_percent(self) -> float:
        return 100 * self.top1 / self.total

    @property
    def top5_percent(self) -> float:
        return 100 * self.top5 / self.total


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    *,
    image_size: int,
    batch_size: int,
    rank: Rank,
    dtype: torch.dtype,
) -> Accuracy:
    """Count correct answers; every rank takes its share, all get the total.

    Each rank runs equally many batches, as sharded parameters (ZeRO 3) demand: the
    last ones are filled up with samples that do not count.
    """
    per_step = batch_size * rank.world_size
    steps = -(-len(split) // per_step)
    order = torch.arange(steps * per_step).view(steps, rank.world_size, batch_size)
    counts = torch.zeros(2)
    was_training = model.training
    model.eval()
    for indices in order[:, rank.rank]:
        images, labels = split.batch(indices % len(split), image_size)
        logits = model(images.to(rank.device, dtype)).cpu()
        counts += _correct(logits, labels)[indices < len(split)].sum(dim=0)
    model.train(was_training)
    top1, top5 = sum_over_ranks(counts.to(rank.device)).tolist()
    return Accuracy(round(top1), round(top5), len(split))


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """[B, 2]: whether the label is the first, and among the first five."""
    ranked = logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    return torch.stack([hits[:, 0], hits.any(dim=1)], dim=1).float()
