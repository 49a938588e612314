"""Throughput of ViT-B/16 by tlbench over that of a bare timm loop, same settings.

Both sides run in fresh processes, in shuffled pairs within one run, so that a drift of
the machine hits both alike; the ratio is that of paired trials.

    python tests/benchmarks/bare_loop.py --pairs 8
"""

import argparse
import random
import subprocess
import sys

from tlbench.cluster import Cluster
from tlbench.statistics import compare_ratio
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Timing, Trial

MODEL = "ViT-B/16"
BATCH_SIZE = 8
STEPS = 10
WARMUP_TIME_S = 8.0
TARGET = 0.02

BARE = f"""
import statistics, time
import timm, torch
from functools import partial

torch.set_num_threads({{threads}})
model = timm.models.VisionTransformer(
    class_token=False, global_pool="avg", fc_norm=False,
    norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    act_layer=partial(torch.nn.GELU, approximate="tanh"),
).eval()
images = torch.rand({BATCH_SIZE}, 3, 224, 224)
times = []
with torch.inference_mode():
    begin = time.perf_counter()
    while time.perf_counter() - begin < {WARMUP_TIME_S}:
        model(images)
    for _ in range({STEPS}):
        start = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - start)
print({BATCH_SIZE} / statistics.median(times))
"""


def run_bare(threads: int) -> float:
    """Images per second of the bare loop, in a process of its own."""
    script = BARE.format(threads=threads)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def run_ours(cluster: Cluster, number: int) -> float:
    """Images per second of a trial, in a process of its own."""
    timing = Timing(
        target=1e-9, min_steps=STEPS, max_steps=STEPS, max_time_s=WARMUP_TIME_S
    )
    case = Case(
        model=parse_model(MODEL),
        mode="infer",
        batch_size=BATCH_SIZE,
        timing=timing,
        device="cpu",
    )
    result = cluster.run(Trial(case, number, number, seed=number), 600).result
    if result.status != "ok":
        raise SystemExit(f"the trial failed: {result.reason}\n{result.traceback}")
    values = {metric.name: metric.value for metric in result.metrics}
    return float(values["throughput_samples_per_s"] or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    pairs = parser.parse_args().pairs
    ours: dict[int, float] = {}
    bare: dict[int, float] = {}
    order = random.Random(0)
    with Cluster() as cluster:
        for number in range(pairs):
            ours_first = order.random() < 0.5
            if ours_first:
                ours[number] = run_ours(cluster, number)
            bare[number] = run_bare(cluster.cpu_cores)
            if not ours_first:
                ours[number] = run_ours(cluster, number)
            print(f"{ours[number]:.3f} by tlbench, {bare[number]:.3f} bare [images/s]")
    ratio = compare_ratio(bare, ours, "higher", band=TARGET)
    print(f"tlbench over bare: {ratio.value:.4f}, 95 % interval {ratio.interval}")
    print(f"within {TARGET:.0%}: {ratio.verdict}")


if __name__ == "__main__":
    main()
