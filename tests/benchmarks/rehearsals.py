"""Cost of a trial that measures nothing, over the bare calls of Ray that it needs.

Ours goes the whole way: plan, placement, fresh process, result, database. The bare one
is a placement group, an actor with one call, its end and the group's. Blocks of them
take turns within one run, in the same Ray: five of ours to one of the bare ones. Beside
that the memory of the driver is followed, over both kinds of blocks apart.

    python tests/benchmarks/rehearsals.py --trials 1000
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
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


class Memory:
    """Memory of this process that only it has, and what adds to it."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.first = self._now = self._uss()
        self.growth: Counter[str] = Counter()

    def _uss(self) -> int:
        return int(self._process.memory_full_info().uss)

    def charge(self, name: str) -> None:
        """What was added since the last time was added by this."""
        before, self._now = self._now, self._uss()
        self.growth[name] += self._now - before

    def tell(self, counts: Mapping[str, int]) -> None:
        """In KiB for each of so many trials."""
        each = ", ".join(
            f"{self.growth[name] / count / 1024:.2f} KiB a trial by {name}"
            for name, count in counts.items()
        )
        print(
            f"driver: {self.first / 2**20:.1f} MiB at first,"
            f" {self._now / 2**20:.1f} at last; {each}"
        )


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
        memory = Memory()
        for number in range(blocks):
            times = [bare_time_s() for _ in range(BLOCK)]
            bare[number] = sum(times) / BLOCK
            memory.charge("bare calls")
            ours[number] = our_time_s(events, BLOCK * TURNS)
            memory.charge("tlbench")
            print(
                f"{number}: {ours[number]:.3f} s, bare {bare[number]:.3f} s", flush=True
            )
        events.close()
    ratio = compare_ratio(bare, ours, "lower")
    low, high = ratio.interval or (float("nan"), float("nan"))
    mean = sum(ours.values()) / len(ours)
    print(
        f"{BLOCK * TURNS * blocks} trials: {mean:.3f} s each, {ratio.value:.3f} x bare"
        f" (95 % interval {low:.3f} to {high:.3f}); target {TARGET}"
    )
    memory.tell({"bare calls": BLOCK * blocks, "tlbench": BLOCK * TURNS * blocks})


if __name__ == "__main__":
    main()
