"""Cost of a trial that measures nothing, over the bare calls of Ray that it needs.

Ours goes the whole way: plan, placement, fresh process, result, database. The bare one
is a placement group, an actor with one call, its end and the group's. Blocks of them
take turns within one run, in the same Ray: five of ours to one of the bare ones. Beside
that the memory of the driver is followed, which does both.

    python tests/benchmarks/rehearsals.py --trials 1000
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tlbench.cluster import Cluster
from tlbench.db.store import ResultStore
from tlbench.driver import Driver
from tlbench.events import Event, Stored
from tlbench.plan import FixedPlan, order_trials, rehearse
from tlbench.runner import run_trials
from tlbench.statistics import compare_ratio
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite

BLOCK, TURNS = 10, 5
TARGET = 1.2


class Bare:
    """An actor that does nothing."""

    def call(self) -> int:
        return 1


_RemoteBare = ray.remote(Bare)


def bare_time_s() -> float:
    """Seconds of a group, an actor, its call, and until all of it is free again."""
    start = time.perf_counter()
    cpus = ray.cluster_resources()["CPU"]
    group = placement_group([{"CPU": cpus}], strategy="STRICT_PACK")
    assert group.wait(60)
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    actor = _RemoteBare.options(num_cpus=cpus, scheduling_strategy=strategy).remote()
    ray.get(actor.call.remote())
    ray.kill(actor)
    remove_placement_group(group)
    (node,) = ray.nodes()
    while available_resources_per_node()[node["NodeID"]].get("CPU", 0) < cpus:
        time.sleep(0.02)
    return time.perf_counter() - start


def our_time_s(events: Iterator[Event], count: int) -> float:
    """Seconds a trial, of the next `count` trials of a run."""
    start = time.perf_counter()
    stored = 0
    for event in events:
        if isinstance(event, Stored):
            assert event.finished.result.reason == "rehearsed only", event
            stored += 1
            if stored == count:
                break
    return (time.perf_counter() - start) / count


def memory_mib() -> float:
    """Memory of this process that only it has."""
    return float(psutil.Process().memory_full_info().uss) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    blocks = parser.parse_args().trials // (BLOCK * TURNS)
    case = Case(model=parse_model("ViT-Ti/16"), mode="infer", device="cpu")
    repeats = BLOCK * TURNS * (blocks + 1)
    suite = Suite(name="rehearsal", cases=(case,), repeats={"infer": repeats})
    trials = rehearse(order_trials(suite), 0.0)
    bare: dict[int, float] = {}
    ours: dict[int, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        ResultStore.open(str(Path(folder, "results.db")), create=True) as store,
        Cluster() as cluster,
    ):
        run_id = store.begin_run(
            suite=suite,
            source="",
            command="",
            planned=len(trials),
            plan=trials,
            driver=Driver.here(),
        )
        events = run_trials(suite, FixedPlan(trials), cluster, store, run_id)
        our_time_s(events, BLOCK * TURNS)  # warm
        for _ in range(BLOCK):
            bare_time_s()
        memory = [memory_mib()]
        for number in range(blocks):
            times = [bare_time_s() for _ in range(BLOCK)]
            bare[number] = sum(times) / BLOCK
            ours[number] = our_time_s(events, BLOCK * TURNS)
            memory.append(memory_mib())
            print(
                f"{number}: {ours[number]:.3f} s, bare {bare[number]:.3f} s;"
                f" driver {memory[-1]:.1f} MiB",
                flush=True,
            )
        events.close()
    ratio = compare_ratio(bare, ours, "lower")
    low, high = ratio.interval or (float("nan"), float("nan"))
    mean = sum(ours.values()) / len(ours)
    print(
        f"{BLOCK * TURNS * blocks} trials: {mean:.3f} s each, {ratio.value:.3f} x bare"
        f" (95 % interval {low:.3f} to {high:.3f}); target {TARGET}"
    )
    half = len(memory) // 2
    print(
        f"driver: {memory[0]:.1f} MiB at first, {max(memory[:half]):.1f} at most in the"
        f" first half, {max(memory[half:]):.1f} in the second"
    )


if __name__ == "__main__":
    main()
