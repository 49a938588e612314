"""False verdicts of the gate: the same case against itself, over and over.

Each pair is two sides of one case, in shuffled blocks of fresh processes as a run has
them, compared at the gate's level. Whatever is called better or worse is false.

    python tests/benchmarks/same_code.py --pairs 20
"""

import argparse
import random
from collections import Counter

from tlbench.cluster import Cluster
from tlbench.statistics import GATE_LEVEL, Ratio, compare_ratio
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Timing, Trial

MODEL = "ViT-Ti/16@64"
TARGET = 1
"""Most false verdicts in twenty pairs."""


def throughput(cluster: Cluster, case: Case, seed: int) -> float:
    result = cluster.run(Trial(case, 0, 0, seed=seed), 600).result
    if result.status != "ok":
        raise SystemExit(f"the trial failed: {result.reason}")
    values = {metric.name: metric.value for metric in result.metrics}
    return values["throughput_samples_per_s"] or 0.0


def compare_with_itself(
    cluster: Cluster, case: Case, blocks: int, order: random.Random
) -> Ratio:
    sides: dict[str, dict[int, float]] = {"base": {}, "other": {}}
    for block in range(blocks):
        for side in order.sample(list(sides), 2):
            sides[side][block] = throughput(cluster, case, seed=block)
    return compare_ratio(sides["base"], sides["other"], "higher", GATE_LEVEL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=5)
    options = parser.parse_args()
    case = Case(
        model=parse_model(MODEL),
        mode="infer",
        batch_size=1,
        timing=Timing(max_time_s=1.0),
        device="cpu",
    )
    verdicts: Counter[str] = Counter()
    order = random.Random(0)
    with Cluster() as cluster:
        for number in range(options.pairs):
            ratio = compare_with_itself(cluster, case, options.blocks, order)
            verdicts[ratio.verdict] += 1
            low, high = ratio.interval or (float("nan"), float("nan"))
            print(
                f"{number + 1}: {ratio.value:.3f} ({low:.3f} to {high:.3f}),"
                f" {ratio.verdict}",
                flush=True,
            )
    false = verdicts["better"] + verdicts["worse"]
    print(f"{dict(verdicts)}: {false} false verdicts; target {TARGET} at most of 20")


if __name__ == "__main__":
    main()
