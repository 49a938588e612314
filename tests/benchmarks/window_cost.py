"""What the harness adds to the timed window: its clock, its looks, and telemetry.

Four sides take turns over the same steps: a bare loop; `host_clock`; the whole window,
with a look at the interval whenever the steps have become a quarter more; and the
window with telemetry, whose thread samples at its usual rate. The steps are empty ones
(for the cost itself), ones that end 10 ms after they began by the clock, and ones of
fixed work in Python that take about 10 ms: these hold Python's lock, as a step on a GPU
does not, and so feel a thread beside them most.

Without a GPU the stand-in for NVIDIA's library answers that the tests use; it answers
faster than a driver does.

    PYTHONPATH=tests python tests/benchmarks/window_cost.py --rounds 20
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from unittest.mock import patch

import torch

from support.nvml import compile_library
from tlbench.measure.telemetry import Telemetry, open_telemetry
from tlbench.measure.timing import Step, host_clock, time_steps
from tlbench.statistics import compare_ratio
from tlbench.suites.spec import Timing
from turns import take_turns

TARGET = 0.005
STEP_TIME_S = 0.01
STEPS = 100
EMPTY_STEPS = 1000
UUID = "GPU-00000000-0000-0000-0000-00000000aa11"
SCRIPT = f"""
nvml.count 1
gpu0.uuid {UUID}
gpu0.utilization 80
gpu0.memory_total 80000
gpu0.memory_used 500
gpu0.clock 1980
gpu0.memory_clock 2619
gpu0.temperature 60
gpu0.power 100000
gpu0.energy 5000000 5600000
gpu0.reasons 0x4
gpu0.processes self
"""


class Stopwatch(AbstractContextManager[None]):
    """Times the window that it is the watch of, telemetry included."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        self._telemetry, self._stack = telemetry, ExitStack()
        self.time_s = 0.0

    def __enter__(self) -> None:
        if self._telemetry is not None:
            self._stack.enter_context(self._telemetry)
        self.time_s = -time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.time_s += time.perf_counter()
        self._stack.close()


def wait_10_ms() -> None:
    end = time.perf_counter() + STEP_TIME_S
    while time.perf_counter() < end:
        pass


def work_for_10_ms() -> Step:
    """A step of as many additions as take about 10 ms here."""
    count = 1_000_000
    runs = host_clock(lambda: sum(range(count)), 20)
    additions = round(count * STEP_TIME_S / median(runs))
    return lambda: sum(range(additions))


def bare(step: Step, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def clocked(step: Step, count: int) -> float:
    start = time.perf_counter()
    host_clock(step, count)
    return (time.perf_counter() - start) / count


def windowed(step: Step, count: int, telemetry: Telemetry | None = None) -> float:
    """Wall time of a step in a window that its interval never ends."""
    timing = Timing(target=1e-9, max_steps=count, max_time_s=3600)
    watch = Stopwatch(telemetry)
    time_steps(step, host_clock, timing, watch=watch)
    return watch.time_s / count


def watched(step: Step, count: int) -> float:
    device = torch.device("cuda")
    with open_telemetry(device, [os.getpid()]) as telemetry:
        step_time_s = windowed(step, count, telemetry)
    if not telemetry.series:
        raise SystemExit("telemetry has seen no GPU, so it has cost nothing")
    return step_time_s


SIDES: dict[str, Callable[[Step, int], float]] = {
    "bare": bare,
    "clock": clocked,
    "window": windowed,
    "window with telemetry": watched,
}


def report(what: str, step: Step, count: int, rounds: int) -> None:
    sides = {name: partial(run, step, count) for name, run in SIDES.items()}
    rates = take_turns(sides, rounds, batch_size=1)
    bare_s = 1 / median(rates["bare"].values())
    print(f"{what}: {bare_s * 1e3:.4f} ms in a bare loop")
    for name in list(SIDES)[1:]:
        added_s = median(
            1 / rates[name][n] - 1 / rates["bare"][n] for n in rates["bare"]
        )
        print(f"  {name}: {added_s * 1e6:+.2f} us a step", end="")
        if bare_s > STEP_TIME_S / 2:  # of nothing, there is no share
            ratio = compare_ratio(rates[name], rates["bare"], "higher")
            low, high = ratio.interval or (float("nan"), float("nan"))
            print(f", 95 % interval {low - 1:+.3%} to {high - 1:+.3%}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    report("an empty step", lambda: None, EMPTY_STEPS, rounds)
    report("waiting 10 ms", wait_10_ms, STEPS, rounds)
    report("working 10 ms", work_for_10_ms(), STEPS, rounds)
    print(f"target: the window with telemetry below {TARGET:.1%} of a 10 ms step")


def with_stand_in() -> int:
    """Run this script anew where NVML is the stand-in."""
    with tempfile.TemporaryDirectory() as folder:
        library = compile_library(Path(folder))
        script = library / "script"
        script.write_text(SCRIPT)
        found = {"LD_LIBRARY_PATH": str(library), "NVML_SCRIPT": str(script)}
        command = [sys.executable, *sys.argv]
        return subprocess.run(command, env=os.environ | found, check=False).returncode


if __name__ == "__main__":
    if torch.cuda.is_available():
        main()
    elif "NVML_SCRIPT" not in os.environ:
        raise SystemExit(with_stand_in())
    else:
        properties = SimpleNamespace(uuid=UUID.removeprefix("GPU-"))
        with (
            patch.object(torch.cuda, "current_device", lambda: 0),
            patch.object(torch.cuda, "get_device_properties", lambda _: properties),
        ):
            main()
