"""Sixteen virtual nodes with eight declared GPUs each: is any GPU held twice, or idle?

    python tests/benchmarks/virtual_nodes.py --nodes 16 --sleep 90

Every trial is a rehearsal: processes of Ray, each on the GPU that it was given, which
sleep, and tell which it is, and from when to when they held it. They sleep for as long
as this machine takes to start a process for every GPU, since that is what is scarce
here. The timeline goes to a CSV file.
"""

import argparse
import csv
import itertools
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ray.cluster_utils import Cluster as RayCluster

from tlbench.cluster import Cluster
from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.driver import Driver
from tlbench.events import Begun, Stored
from tlbench.plan import FixedPlan, make_trial, rehearse
from tlbench.runner import run_trials
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Parallelism, Suite

GPUS = 8
SIZES = ((1, 20), (2, 4), (4, 2), (8, 1))
"""Ranks of a trial, and how often such trials are."""
TARGET = 0.9


@dataclass(frozen=True)
class Held:
    """One GPU in the hands of one trial."""

    device: str
    trial: int
    begun: float
    ended: float


def suite_of(count: int, seed: int) -> tuple[Suite, list[Case]]:
    """A suite of cases of all sizes, and the cases of so many trials."""
    cases = {
        size: Case(
            model=parse_model("ViT-Ti/16"),
            mode="infer",
            device="cuda",
            batch_size=8,
            parallelism=Parallelism(world_size=size),
        )
        for size, _ in SIZES
    }
    sizes, weights = zip(*SIZES, strict=True)
    chosen = random.Random(seed).choices(sizes, weights, k=count)
    suite = Suite(name="virtual", cases=tuple(cases.values()), repeats={"infer": 1})
    return suite, [cases[size] for size in chosen]


def timeline(
    store: ResultStore, run_id: int, begun: dict[int, float], ended: dict[int, float]
) -> list[Held]:
    """Which trial held which GPU from when to when."""
    with store.session() as session:
        trials = query.trials(session, [run_id])
        slept = query.series(session, [t.id for t in trials], ["rehearsal_time_s"])
    held: list[Held] = []
    for trial in trials:
        if trial.reason != "rehearsed only":
            raise SystemExit(f"trial {trial.id}: {trial.status}: {trial.reason}")
        start, end = slept[trial.id, "rehearsal_time_s"]
        assert begun[trial.position] <= start <= end <= ended[trial.position]
        told = trial.notes["rehearsed_on"].split("; ")
        assert len(told) == trial.case.parallelism.world_size
        held += (Held(w.partition("node ")[2], trial.id, start, end) for w in told)
    return held


def doubles(held: list[Held]) -> list[tuple[Held, Held]]:
    """Pairs of trials that had the same GPU at the same time."""
    by_device: dict[str, list[Held]] = defaultdict(list)
    for one in held:
        by_device[one.device].append(one)
    return [
        (one, other)
        for of_device in by_device.values()
        for one, other in itertools.pairwise(sorted(of_device, key=lambda h: h.begun))
        if other.begun < one.ended
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--sleep", type=float, default=90.0)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--csv", type=Path, default=Path("timeline.csv"))
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # of a Ray that nobody else can reach
    suite, cases = suite_of(options.trials, seed=1)
    trials = rehearse(
        (make_trial(suite, case, k, k) for k, case in enumerate(cases)), options.sleep
    )
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = RayCluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, **small}
    )
    for number in range(options.nodes):
        nodes.add_node(
            num_cpus=GPUS,
            num_gpus=GPUS,
            object_store_memory=80 * 2**20,
            labels={"name": f"n{number}"},
        )
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    running, busy = {}, []
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            ResultStore.open(str(Path(folder, "r.db")), create=True) as store,
            Cluster(nodes.address) as cluster,
        ):
            run_id = store.begin_run(
                suite=suite,
                source="",
                command="",
                planned=len(trials),
                driver=Driver.here(),
            )
            for event in run_trials(suite, FixedPlan(trials), cluster, store, run_id):
                now = time.time()
                if isinstance(event, Begun):
                    begun[event.trial.position] = now
                    running[event.trial.position] = event.trial
                elif isinstance(event, Stored):
                    position = event.finished.trial.position
                    ended[position] = now
                    del running[position]
                    print(f"{len(ended)}/{len(trials)}", file=sys.stderr)
                busy.append(
                    (now, sum(t.case.parallelism.world_size for t in running.values()))
                )
            held = timeline(store, run_id, begun, ended)
    finally:
        nodes.shutdown()
    with options.csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("device", "trial", "begun", "ended"))
        writer.writerows((h.device, h.trial, h.begun, h.ended) for h in held)
    twice = doubles(held)
    gpus = options.nodes * GPUS
    last_begun = max(begun.values())
    full = next(moment for moment, count in busy if count >= TARGET * gpus)
    pairs = itertools.pairwise([(t, n) for t, n in busy if full <= t <= last_begun])
    spans = [((later - now), count) for (now, count), (later, _) in pairs]
    whole = sum(span for span, _ in spans)
    used = sum(span * count for span, count in spans) / (whole * gpus)
    slept = sum(max(min(h.ended, last_begun) - max(h.begun, full), 0) for h in held) / (
        whole * gpus
    )
    rate = len(begun) / (last_begun - min(begun.values()))
    print(
        f"{len(trials)} trials on {options.nodes} x {GPUS} GPUs, {rate:.2f} begun a"
        f" second; {len({h.device for h in held})} GPUs used, held twice: {len(twice)};"
        f" while the queue was long ({whole:.0f} s), {used:.1%} of the GPUs were given"
        f" to trials and {slept:.1%} slept on; target {TARGET:.0%}"
    )
    if twice or used < TARGET:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
