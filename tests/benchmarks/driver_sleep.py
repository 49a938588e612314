"""CPU time that the driver and its Ray take while a trial measures.

python tests/benchmarks/driver_sleep.py
"""

import threading
import time

import psutil

from tlbench.cluster import Cluster
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Timing, Trial

TARGET = 0.01
WINDOW_S = 10.0


def cpu_time_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def watch(found: dict[str, float]) -> None:
    """Add up the CPU time of each of our processes over a window of the trial."""
    time.sleep(6)  # the worker has started and warms up or measures
    driver = psutil.Process()
    processes = [driver, *driver.children(recursive=True)]
    before = {process: cpu_time_s(process) for process in processes}
    start = time.perf_counter()
    time.sleep(WINDOW_S)
    elapsed = time.perf_counter() - start
    for process, spent in before.items():
        name = "driver" if process == driver else process.name()
        share = (cpu_time_s(process) - spent) / elapsed
        found[name] = found.get(name, 0.0) + share


def main() -> None:
    timing = Timing(target=1e-9, min_steps=6, max_time_s=25)
    case = Case(
        model=parse_model("ViT-S/16"), mode="infer", timing=timing, device="cpu"
    )
    found: dict[str, float] = {}
    with Cluster() as cluster:
        watcher = threading.Thread(target=watch, args=(found,))
        watcher.start()
        cluster.run(Trial(case, 0, 0, seed=0), 600)
        watcher.join()
    for name, share in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{share:8.2%} of a core  {name}")
    print(f"driver: {found['driver']:.2%}; target {TARGET:.0%}")


if __name__ == "__main__":
    main()
