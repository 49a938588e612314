"""A builder whose model waits before it computes, so that its time is known in part."""

import time

from torch import Tensor, nn


def build(model: nn.Module, sleep_ms: float) -> nn.Module:
    """The model, which sleeps for `sleep_ms` at the begin of every forward pass."""
    return _Slowed(model, sleep_ms / 1e3)


class _Slowed(nn.Module):
    def __init__(self, model: nn.Module, sleep_s: float) -> None:
        super().__init__()
        self.model = model
        self.sleep_s = sleep_s

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.sleep_s)
        logits: Tensor = self.model(images)
        return logits
