"""A builder whose model waits as long as one says, and is slowed by a known share."""

import time

from torch import Tensor, nn

WAIT_S = 0.06
"""Most of a step, so that the cores of a noisy machine scatter the trials by little."""


def build(model: nn.Module, share: float = 0.0) -> nn.Module:
    """The model, which sleeps first, and at the end for a share of its time so far."""
    return _Slowed(model, share)


class _Slowed(nn.Module):
    def __init__(self, model: nn.Module, share: float) -> None:
        super().__init__()
        self.model = model
        self.share = share

    def forward(self, images: Tensor) -> Tensor:
        start = time.perf_counter()
        time.sleep(WAIT_S)
        logits: Tensor = self.model(images)
        if self.share:
            time.sleep(self.share * (time.perf_counter() - start))
        return logits
