"""What training makes small: cross-entropy over the classes, or of each by itself.

B samples, K classes.
"""

from torch import Tensor, nn

from tlbench.suites.training import Fit


def classification_loss(logits: Tensor, targets: Tensor, fit: Fit) -> Tensor:
    """The mean loss over the samples, in fp32.

    Both losses smooth labels alike, t -> (1 - s) t + s / K (Szegedy et al. 2016, arXiv
    1512.00567, section 7). `sigmoid` is summed over the classes, as scenic's
    multi-label classification has it.

    Args:
        logits: [B, K].
        targets: Labels [B] int64, or the weight of each class [B, K], as samples have
            it that are mixed, or that have several labels.
        fit: Which loss it is.
    """
    logits = logits.float()
    if fit.loss == "softmax":
        return nn.functional.cross_entropy(
            logits, targets, label_smoothing=fit.label_smoothing
        )
    classes = logits.shape[1]
    if targets.ndim == 1:
        targets = nn.functional.one_hot(targets, classes)
    smoothed = targets.float().lerp(
        logits.new_full((), 1 / classes), fit.label_smoothing
    )
    total = nn.functional.binary_cross_entropy_with_logits(
        logits, smoothed, reduction="sum"
    )
    return total / len(logits)
