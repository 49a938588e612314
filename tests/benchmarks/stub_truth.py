"""Training throughput that tlbench reports of a stub, against what the stub knows.

    python tests/benchmarks/stub_truth.py

The stub's forward pass sleeps for 5 ms. It writes down, by a clock of its own and on
every rank, when each of its forward passes begins. From one to the next is a true step,
with all that a step of training is; that of the job is its slowest rank's. Where a
chunk of steps ends, the results are looked at before the next begins: the median leaves
those few out.
"""

import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from tlbench.cluster import Cluster
from tlbench.result import TrialResult
from tlbench.suites.model_spec import BuilderSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Trial

TARGET = 0.005
BATCH_SIZE = 16
TIMEOUT_S = 300
TRIALS = [(1, "torch"), (1, "deepspeed"), (2, "torchrun"), (2, "deepspeed")]
"""Ranks, and what runs them."""

STUB = """
import os, time
import torch

class Stub(torch.nn.Module):
    def __init__(self, classes, log):
        super().__init__()
        self.head = torch.nn.Linear(3, classes)
        self.is_run = not self.head.weight.is_meta  # or else it is only counted
        if self.is_run:
            self.log = open(f"{log}-{os.environ['RANK']}", "a", buffering=1)

    def forward(self, images):
        if self.is_run:
            print(time.perf_counter(), file=self.log)
            time.sleep(0.005)
        return self.head(images.mean((2, 3)))

def build(model, log):
    return Stub(10, log)
"""


def stub_trial(ranks: int, stack: str, log: Path) -> Trial:
    builder = BuilderSpec(function="build", file="stub.py", options={"log": str(log)})
    model = parse_model("ViT-d16h2m32l2/4@8").model_copy(update={"builder": builder})
    case = Case.model_validate(
        {
            "model": model,
            "mode": "train",
            "data": "digits",
            "device": "cpu",
            "batch_size": BATCH_SIZE,
            "stack": stack,
            "parallelism": {"world_size": ranks},
            "timing": {"target": 1e-9, "min_steps": 500, "max_steps": 500},
        }
    )
    return Trial(case, 0, 0, seed=0, source=STUB)


def true_throughput(result: TrialResult, ranks: int, log: Path) -> float:
    """Samples per second of the timed steps, by the clocks inside the stubs."""
    steps = {s.name: len(s.values) for s in result.series if s.rank == -1}
    warmup, timed = steps["warmup_step_time_s"], steps["step_time_s"]
    of_ranks = [_periods(Path(f"{log}-{rank}")) for rank in range(ranks)]
    slowest = [max(times) for times in zip(*of_ranks, strict=True)]
    step_time_s: float = median(slowest[warmup : warmup + timed])
    return BATCH_SIZE / step_time_s


def _periods(log: Path) -> list[float]:
    """From the begin of each forward pass to that of the next."""
    begins = [float(line) for line in log.read_text().split()]
    return [after - before for before, after in pairwise(begins)]


def measured_throughput(result: TrialResult) -> float:
    (value,) = (
        m.value
        for m in result.metrics
        if m.name == "throughput_samples_per_s" and m.rank == -1
    )
    assert value is not None
    return value


def main() -> None:
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        for ranks, stack in TRIALS:
            log = Path(folder) / f"{stack}-{ranks}"
            trial = stub_trial(ranks, stack, log)
            result = cluster.run(trial, TIMEOUT_S).result
            if result.status != "ok":
                print(f"{stack}, {ranks} rank(s): {result.status}: {result.reason}")
                continue
            truth = true_throughput(result, ranks, log)
            measured = measured_throughput(result)
            error = measured / truth - 1
            verdict = "yes" if abs(error) <= TARGET else "no"
            print(
                f"{stack}, {ranks} rank(s): {measured:.3f} samples/s, the truth is"
                f" {truth:.3f}: {error:+.3%}; within {TARGET:.1%}: {verdict}",
                flush=True,
            )


if __name__ == "__main__":
    main()
