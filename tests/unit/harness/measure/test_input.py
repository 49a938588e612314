"""What the input costs: shares of the wall time, rates, and workers that would do."""

import math
import time

import pytest
import torch
from torch.utils.data import DataLoader

from tlbench.data.loader import Batch, Feed
from tlbench.measure.input import data_wait, loader_rate, measure_input
from tlbench.measure.timing import StepTimes
from tlbench.suites.spec import Timing

SAMPLE_TIME_S = 0.005
BATCH_SIZE = 4
CPU = torch.device("cpu")


class SlowSamples(torch.utils.data.Dataset[Batch]):
    """Samples that take their time, as decoding does."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> Batch:
        time.sleep(SAMPLE_TIME_S)
        return torch.zeros(3, 2, 2), torch.tensor(index)


def make_loader(workers: int) -> DataLoader[Batch]:
    return DataLoader(SlowSamples(), batch_size=BATCH_SIZE, num_workers=workers)


class ScriptedFeed(Feed):
    """A feed whose waits are written down."""

    def waits_s(self) -> list[float]:
        return [9.0, 9.0, 1.0, 2.0, 3.0]


def test_only_the_waits_of_the_timed_steps_count() -> None:
    times = StepTimes(
        warmup=(10.0, 10.0),
        steps=(4.0, 4.0, 4.0),
        stopped_by="max_steps",
        is_settled=True,
        steady_state="flat",
        extended_to_s=None,
    )
    metric = data_wait(ScriptedFeed(make_loader(0), CPU, torch.float32), times)
    assert metric.name == "data_wait_fraction"
    assert metric.value == (1 + 2 + 3) / 12


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loader_is_no_faster_than_its_workers(workers: int) -> None:
    rate = loader_rate(make_loader(workers), 0.3)
    # Each worker may have two batches ready, and one begun, when the clock starts.
    ahead = 3 * BATCH_SIZE * SAMPLE_TIME_S / 0.3
    assert 0 < rate <= max(workers, 1) / SAMPLE_TIME_S * (1 + ahead)


def test_the_workers_needed_feed_the_model_at_its_own_speed() -> None:
    def step() -> None:
        time.sleep(0.004)

    timing = Timing(min_steps=6, max_steps=12, max_time_s=0.2)
    found = {
        metric.name: metric.value
        for metric in measure_input(make_loader(2), step, CPU, timing, int)
    }
    rate = found["input_throughput_samples_per_s"]
    per_worker = found["input_throughput_per_worker_samples_per_s"]
    step_time_s = found["kept_batch_step_time_s"]
    assert rate is not None
    assert per_worker == rate / 2
    assert step_time_s is not None
    assert step_time_s >= 0.004
    needed = math.ceil(BATCH_SIZE / step_time_s / per_worker)
    assert found["input_workers_needed"] == needed
