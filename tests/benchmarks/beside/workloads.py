"""What all tools measure: models that write down when each of their steps ran.

tlbench takes this file as a builder's; the scripts of its peers import it. So it needs
nothing but torch, and no other file of this folder.

B images in one step.
"""

import math
import mmap
import os
import random
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

STEP_TIME_S = 0.02
"""Of the steady stub every step, of the noisy one the median."""
NOISE = 0.03
"""Standard deviation of the logarithm of a noisy step."""
CORRELATION = 0.9
"""Of the logarithms of a noisy step and the one before it, in the same process."""
NUM_CLASSES = 1000
MAX_STEPS = 20_000
"""Of one process; more than any tool runs."""


class Record:
    """When each step of this process began and ended, in a file that outlives it.

    The file is mapped into memory: a step costs two stores, and nothing is lost where
    the process is killed. `perf_counter` is the same clock in all processes.
    """

    def __init__(self, folder: Path) -> None:
        name = f"{time.monotonic_ns():020}-{os.getpid()}-{torch.get_num_threads()}"
        path = folder / f"{name}.steps"
        with path.open("w+b") as file:
            file.truncate(MAX_STEPS * 16)
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE  # no page fault in a step
            mapped = mmap.mmap(file.fileno(), 0, flags=flags)
        self._times = memoryview(mapped).cast("d")
        self._place = 0

    def add(self, start: float, end: float) -> None:
        self._times[self._place] = start
        self._times[self._place + 1] = end
        self._place += 2


@cache
def record() -> Record:
    return Record(Path(os.environ["PEERS_RECORD"]))


class Stub(nn.Module):
    """Lets a known time go by; [B, ...] -> [B, classes].

    It calls an empty module until then: a mere look at the clock would leave the code
    around the step to be fetched from memory anew, which no real model does.
    """

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(NUM_CLASSES))
        self._answers: dict[int, Tensor] = {}  # by B: nothing to make or free in a step
        self._idle = nn.Identity()
        self._noise = noise
        # Seeded by the system: tools seed Python's own generator alike in every run.
        self._random = random.Random()
        self._deviation = self._random.gauss(0, noise)

    def forward(self, x: Tensor) -> Tensor:
        start = now = time.perf_counter()
        if x.is_meta:  # tlbench counts operations there, and times nothing
            return self.logits.expand(len(x), -1)
        end = start + STEP_TIME_S * math.exp(self._next_deviation())
        steps, answer = record(), self._answer(len(x))
        while now < end:
            self._idle(x)
            now = time.perf_counter()
        steps.add(start, now)
        return answer

    def _answer(self, batch_size: int) -> Tensor:
        if batch_size not in self._answers:
            self._answers[batch_size] = self.logits.expand(batch_size, -1)
        return self._answers[batch_size]

    def _next_deviation(self) -> float:
        """First-order autoregression, from its stationary distribution on."""
        fresh = self._random.gauss(0, self._noise)
        share = math.sqrt(1 - CORRELATION**2)
        self._deviation = CORRELATION * self._deviation + share * fresh
        return self._deviation


class Recorded(nn.Module):
    """A model whose forward passes are written down."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        start = time.perf_counter()
        logits: Tensor = self.model(x)
        if not x.is_meta:
            record().add(start, time.perf_counter())
        return logits


def steady(model: nn.Module) -> nn.Module:
    return Stub(noise=0.0)


def noisy(model: nn.Module) -> nn.Module:
    return Stub(noise=NOISE)


def recorded(model: nn.Module) -> nn.Module:
    return Recorded(model)
