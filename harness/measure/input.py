"""What the input costs: how long steps waited for it, and how fast it can be.

B samples of this rank in one step.
"""

import math
import time
from statistics import median

import torch
from torch.utils.data import DataLoader

from tlbench.data.loader import PREFETCHED_BATCHES, Batch, Batches, Feed
from tlbench.measure.timing import Agree, Step, StepTimes, clock_for, time_steps
from tlbench.result import Metric
from tlbench.suites.spec import Timing

MAX_TIME_S = 3.0
"""Of each pass: rates decide on a whole number of workers."""


def data_wait(feed: Feed, times: StepTimes) -> Metric:
    """Share of the timed steps that went by before their batch was there."""
    first = len(times.warmup)
    waits = feed.waits_s()[first : first + len(times.steps)]
    return Metric("data_wait_fraction", sum(waits) / sum(times.steps))


def measure_input(
    loader: DataLoader[Batch],
    kept_step: Step,
    device: torch.device,
    timing: Timing,
    agree: Agree,
) -> list[Metric]:
    """Measure the loader without the model, and the model without the loader.

    Args:
        loader: Of this rank.
        kept_step: A step on a batch that lies on the device.
        device: Where it runs.
        timing: That of the case; here it ends after `MAX_TIME_S`.
        agree: Gives all ranks the largest of their numbers.
    """
    max_time_s = min(MAX_TIME_S, timing.max_time_s)
    rate = loader_rate(loader, max_time_s)
    per_worker = rate / max(loader.num_workers, 1)
    short = timing.model_copy(update={"max_time_s": max_time_s})
    times = time_steps(kept_step, clock_for(device), short, agree)
    kept_step_time_s = median(times.steps)
    wanted_rate = (loader.batch_size or 1) / kept_step_time_s
    return [
        Metric("input_throughput_samples_per_s", rate),
        Metric("input_throughput_per_worker_samples_per_s", per_worker),
        Metric("kept_batch_step_time_s", kept_step_time_s),
        Metric("input_workers_needed", math.ceil(wanted_rate / per_worker)),
    ]


def loader_rate(loader: DataLoader[Batch], max_time_s: float) -> float:
    """Samples per second of a loader that nothing but itself holds up."""
    # Workers deliver in turn: whole rounds of them, after those made ahead.
    round_length = max(loader.num_workers, 1)
    with Batches(loader) as batches:
        for _ in range(PREFETCHED_BATCHES * round_length):
            batches.take()
        start, samples = time.perf_counter(), 0
        while samples == 0 or time.perf_counter() < start + max_time_s:
            for _ in range(round_length):
                samples += len(batches.take()[1])
        return samples / (time.perf_counter() - start)
