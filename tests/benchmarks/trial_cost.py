"""Cost of a trial outside its measurement, over a bare process with the same imports.

The bare process imports what the trial imports and builds the same model, and for
training the same optimiser; it knows neither Ray nor the DeepSpeed engine. Both sides
alternate within one run.

    python tests/benchmarks/trial_cost.py --pairs 5
"""

import argparse
import subprocess
import sys
import time

from tlbench.cluster import Cluster
from tlbench.statistics import compare_ratio
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Mode, Timing, Trial

MODEL = "ViT-Ti/16"
TARGET = 1.2

BARE: dict[Mode, str] = {
    "infer": """
import torch
from tlbench.models.vit import build_model
from tlbench.suites.names import parse_model
model = build_model(parse_model({model!r}), 1000)
""",
    "train": """
import torch, deepspeed
from tlbench.models.vit import build_model
from tlbench.suites.names import parse_model
model = build_model(parse_model({model!r}), 1000)
torch.optim.AdamW(model.parameters())
""",
}


def bare_time_s(mode: Mode) -> float:
    start = time.perf_counter()
    script = BARE[mode].format(model=MODEL)
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return time.perf_counter() - start


def overhead_s(cluster: Cluster, mode: Mode, number: int) -> float:
    """Wall time of a trial less what it spent measuring."""
    timing = Timing(min_steps=6, max_time_s=1.0)
    case = Case(model=parse_model(MODEL), mode=mode, timing=timing, device="cpu")
    finished = cluster.run(Trial(case, number, number, seed=number), 600)
    if finished.result.status != "ok":
        raise SystemExit(f"the trial failed: {finished.result.reason}")
    values = {metric.name: metric.value for metric in finished.result.metrics}
    return finished.wall_time_s - (values["measure_time_s"] or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    with Cluster() as cluster:
        for mode in BARE:
            bare_time_s(mode)  # files into the page cache
            bare, ours = {}, {}
            for number in range(pairs):
                bare[number] = bare_time_s(mode)
                ours[number] = overhead_s(cluster, mode, number)
                print(f"{mode}: {ours[number]:.2f} s, bare {bare[number]:.2f} s")
            ratio = compare_ratio(bare, ours, "lower")
            print(
                f"{mode}: {ratio.value:.3f} x bare, 95 % interval {ratio.interval};"
                f" target {TARGET}"
            )


if __name__ == "__main__":
    main()
