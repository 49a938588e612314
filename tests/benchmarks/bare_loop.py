"""Throughput of ViT-B/16 by tlbench over that of a bare timm loop, same settings.

Two virtual cores drift by a tenth within seconds, so whole trials do not show 2 %.
Here all sides live at the same time, each in a process of its own, and take turns step
by step while the others wait: ours is a worker as every trial gets it (Ray's actor, our
environment, model, batch and clock), a bare loop is a script without tlbench. The ratio
is that of the steps of one round.

    python tests/benchmarks/bare_loop.py --rounds 60

One bare loop keeps freed memory, as our workers do (`tlbench.measure.memory`): that is
a setting of the allocator and no work of the harness. The other one does not, and shows
what the setting itself is worth.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

import ray
import torch

from tlbench.cluster import Cluster, workers
from tlbench.cluster.members import living_nodes
from tlbench.cluster.workers import Groups
from tlbench.measure.timing import host_clock
from tlbench.placement import Schedule
from tlbench.statistics import compare_ratio
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case
from tlbench.worker import Worker
from turns import take_turns

CASE = Case(model=parse_model("ViT-B/16"), mode="infer", batch_size=8, device="cpu")
TARGET = 0.02

KEEP_FREED_MEMORY = """
import ctypes
ctypes.CDLL(None).mallopt(-4, 0)   # M_MMAP_MAX
ctypes.CDLL(None).mallopt(-1, -1)  # M_TRIM_THRESHOLD
"""
BARE = f"""
import sys, time
import timm, torch
from functools import partial

torch.set_num_threads({{threads}})
model = timm.models.VisionTransformer(
    class_token=False, global_pool="avg", fc_norm=False,
    norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    act_layer=partial(torch.nn.GELU, approximate="tanh"),
).eval()
images = torch.rand({CASE.batch_size}, 3, 224, 224)
with torch.inference_mode():
    for _ in sys.stdin:
        start = time.perf_counter()
        model(images)
        print(time.perf_counter() - start, flush=True)
"""


class SteppingWorker(Worker):
    """A trial's worker that is set up by the trial's own code, and steps when asked."""

    def set_up(self, threads: int) -> None:
        from tlbench import passes, trial
        from tlbench.data import open_dataset
        from tlbench.engine import set_environment
        from tlbench.rank import Rank

        rank = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cpu", threads)
        set_environment(rank)
        findings = passes.Findings()
        trial._prepare(CASE, 0, rank, torch.device("cpu"), findings)
        model = trial._build(CASE, None, torch.device("cpu"), findings)
        images, _ = passes._fixed_batch(CASE, open_dataset(CASE, None), rank)
        self._step = lambda: model(images)

    def step_time_s(self) -> float:
        with torch.inference_mode():
            return host_clock(self._step, 1)[0]


def bare_loop(threads: int, *, keeps_memory: bool) -> Callable[[], float]:
    """Start a bare loop; the function it returns times one step of it."""
    script = KEEP_FREED_MEMORY * keeps_memory + BARE.format(threads=threads)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )

    def step_time_s() -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        print("step", file=process.stdin)
        return float(process.stdout.readline())

    return step_time_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    workers._RemoteWorker = ray.remote(SteppingWorker)  # in this script only
    with Cluster():
        placement = Schedule(living_nodes()).whole_node("cpu")
        threads = placement.threads(placement.shares[0])
        with Groups().group(placement) as (worker,):
            ray.get(worker.set_up.remote(threads))
            sides: dict[str, Callable[[], float]] = {
                "tlbench": lambda: float(ray.get(worker.step_time_s.remote())),
                "bare": bare_loop(threads, keeps_memory=True),
                "default allocator": bare_loop(threads, keeps_memory=False),
            }
            rates = take_turns(sides, rounds, CASE.global_batch_size)
    for peer in ("bare", "default allocator"):
        ratio = compare_ratio(rates[peer], rates["tlbench"], "higher", band=TARGET)
        low, high = ratio.interval or (float("nan"), float("nan"))
        print(
            f"tlbench over {peer}: {ratio.value:.4f} x the throughput,"
            f" 95 % interval {low:.4f} to {high:.4f} ({rounds} rounds);"
            f" within {TARGET:.0%}: {ratio.verdict}"
        )


if __name__ == "__main__":
    main()
