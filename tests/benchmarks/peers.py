"""tlbench beside its peers: the same steps, measured by each tool as it comes.

    python tests/benchmarks/peers.py --peers-python /opt/peers/bin/python --repeats 3

Three workloads: a stub whose steps take exactly 20 ms, one whose steps scatter about a
median of 20 ms and depend on one another, and a forward pass of ViT-Ti/16, batch 8,
fp32. Each writes down from inside when its steps began and ended, so that it is known
what a tool should have found, whatever the machine did meanwhile. All tools run with
their own defaults and two threads, one after the other, in an order that is shuffled
in every repeat. Prints one Markdown table. `--quick` is only to see that all works.

The peers want an environment of their own, of the same Python, which may share torch
and timm with that of tlbench: a `.pth` file in its site-packages that holds the path of
tlbench's site-packages does that. Then, all from PyPI:

    python -m venv /opt/peers
    echo TLBENCH_SITE_PACKAGES > /opt/peers/lib/python3.11/site-packages/tlbench.pth
    /opt/peers/bin/pip install optimum-benchmark==0.6.0 transformers==4.57.*
    /opt/peers/bin/pip install datasets==4.4.* pyperf pytest-benchmark

Nothing is downloaded when the script runs.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np
import psutil
from beside.workloads import STEP_TIME_S
from numpy.typing import NDArray

from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.reports.cases import gather
from tlbench.reports.evidence import read_evidence
from tlbench.statistics import Interval

HERE = Path(__file__).parent
BESIDE = HERE / "beside"
THREADS = 2
LOOK_S = 0.25
"""Between two looks at the CPU time of a tool's processes."""
CLOCK_S = 1e-6
"""A step cannot look shorter from outside than from inside by more than this."""

VIT = "ViT-Ti/16"
BUILDERS = {"steady stub": "steady", "noisy stub": "noisy", VIT: "recorded"}
"""What each workload is called in `beside/workloads.py`."""
REFERENCE = "timm loop"
"""What stands for the truth where nobody knows it."""

Array = NDArray[np.float64]
Statistic = Callable[[Sequence[Array]], float]


class PeerError(Exception):
    """A tool gave no answer, or one that does not belong to the recorded steps."""


@dataclass(frozen=True)
class Process:
    """One process in which the workload ran."""

    pid: int
    threads: int
    steps: Array
    """Begin and end of each on the machine's clock: [steps, 2]."""


@dataclass(frozen=True)
class Timed:
    """What a tool timed in one process, as it says and as the workload says."""

    values: Array
    """Seconds per step by the tool; of several steps together where it times so."""
    steps: Array
    """The steps they are of: [steps, 2], a multiple of the values."""

    @property
    def inside(self) -> Array:
        """The true seconds per step of each value."""
        true: Array = np.diff(self.steps, axis=1).reshape(len(self.values), -1)
        means: Array = true.mean(axis=1)
        return means

    @property
    def window(self) -> Interval:
        return float(self.steps[0, 0]), float(self.steps[-1, 1])

    @property
    def between_s(self) -> float:
        """All that passed from step to step, outside of every one."""
        return float(np.sum(self.steps[1:, 0] - self.steps[:-1, 1]))


@dataclass(frozen=True)
class Answer:
    """What a tool says of the workload."""

    step_time_s: float
    statistic: Statistic
    """How it makes its number of the values."""
    timed: Sequence[Timed]
    spread: float | None = None
    """Whatever it gives, in seconds; the interval's full width where that is it."""
    interval: Interval | None = None


@dataclass(frozen=True)
class Settings:
    """How much each tool does; left out: as much as it does by default."""

    suite: str = ""
    optimum_s: int = 10
    pyperf: tuple[str, ...] = ()
    pytest: tuple[str, ...] = ()
    loop: tuple[int, int] = (10, 40)
    """Warm-up and timed steps: those of timm's own benchmark script."""


QUICK = Settings(
    suite="repeats: 2\ntiming: {max_time_s: 0.5}\n",
    optimum_s=1,
    pyperf=("--processes", "2"),
    pytest=("--benchmark-max-time", "0.2"),
    loop=(2, 10),
)


@dataclass(frozen=True)
class Job:
    """One workload to be measured by one tool."""

    workload: str
    folder: Path
    """Empty; what the tool writes ends up here."""
    python: str
    """Of the peers' environment."""
    settings: Settings


@dataclass(frozen=True)
class Tool:
    number: str
    """What its number is."""
    spread: str
    """What it says about how far to trust that."""
    command: Callable[[Job], list[str]]
    read: Callable[[Job, Sequence[Process]], Answer]


@dataclass(frozen=True)
class Measurement:
    """One job done, and what it cost."""

    answer: Answer
    wall_time_s: float
    beside: float
    """Cores that the tool's other processes kept busy while steps were timed."""

    @property
    def inside_s(self) -> float:
        """The tool's statistic of what the same steps really took."""
        return self.answer.statistic([timed.inside for timed in self.answer.timed])

    @property
    def between_s(self) -> float:
        """Seconds from the end of a timed step to the next one, on average."""
        timed = self.answer.timed
        gaps = sum(len(t.steps) - 1 for t in timed)
        return sum(t.between_s for t in timed) / gaps


def mean_of_all(values: Sequence[Array]) -> float:
    return float(np.concatenate(values).mean())


def median_of_medians(values: Sequence[Array]) -> float:
    return median(float(np.median(array)) for array in values)


# ---------------------------------------------------------------- the tools


def tlbench_command(job: Job) -> list[str]:
    shutil.copy(BESIDE / "workloads.py", job.folder)
    suite = job.folder / "suite.yaml"
    model = f"{VIT}+workloads.py:{BUILDERS[job.workload]}"
    suite.write_text(f"models: {model}\nmode: infer\ndevice: cpu\n{job.settings.suite}")
    return [sys.executable, "-m", "tlbench", "run", suite.name, "--db", "results.db"]


def read_tlbench(job: Job, processes: Sequence[Process]) -> Answer:
    with (
        ResultStore.open(str(job.folder / "results.db")) as store,
        store.session() as session,
    ):
        evidence = read_evidence(session, [query.runs(session)[0].id])
        ids = [trial.id for trial in evidence.trials]
        names = warmup, steps = "warmup_step_time_s", "step_time_s"
        series = query.series(session, ids, names)
    (case,) = gather(evidence.runs, evidence.trials)
    summary = case.summary("step_time_p50_s")
    if summary.value is None or summary.interval is None:
        raise PeerError(summary.reason or "one trial has no interval")
    low, high = summary.interval
    timed = [
        _timed(process, series[trial, steps], skipped=len(series[trial, warmup]))
        for process, trial in zip(processes, ids, strict=True)
    ]
    return Answer(summary.value, median_of_medians, timed, high - low, (low, high))


def optimum_command(job: Job, launcher: str) -> list[str]:
    seconds = str(job.settings.optimum_s)
    script = str(BESIDE / "by_optimum.py")
    return [job.python, script, launcher, seconds, "report.json"]


def read_optimum(job: Job, processes: Sequence[Process]) -> Answer:
    report = json.loads((job.folder / "report.json").read_text())
    latency = report["forward"]["latency"]
    (process,) = processes
    # Its first forward pass, and the warm-up runs that it does by default.
    timed = _timed(process, latency["values"], skipped=1 + 10)
    return Answer(latency["mean"], mean_of_all, [timed], latency["stdev"])


def pyperf_command(job: Job) -> list[str]:
    script = str(BESIDE / "by_pyperf.py")
    options = ["--copy-env", "--output", "report.json", *job.settings.pyperf]
    return [job.python, script, *options]


def read_pyperf(job: Job, processes: Sequence[Process]) -> Answer:
    """Its values are means of a loop; the mean and deviation are what it prints."""
    report = json.loads((job.folder / "report.json").read_text())
    timed = []
    runs = report["benchmarks"][0]["runs"]
    for process, run in zip(processes, runs, strict=True):
        if "values" not in run:
            continue  # a worker that only found out how long a loop should be
        loops = len(process.steps) // (len(run["warmups"]) + len(run["values"]))
        skipped = loops * len(run["warmups"])
        timed.append(_timed(process, run["values"], skipped, loops))
    values = [float(value) for item in timed for value in item.values]
    return Answer(fmean(values), mean_of_all, timed, stdev(values))


def pytest_command(job: Job) -> list[str]:
    own = ["-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider"]
    options = [*own, "--benchmark-json", "report.json", *job.settings.pytest]
    return [job.python, "-m", "pytest", str(BESIDE / "by_pytest.py"), *options]


def read_pytest(job: Job, processes: Sequence[Process]) -> Answer:
    report = json.loads((job.folder / "report.json").read_text())
    stats = report["benchmarks"][0]["stats"]
    (process,) = processes
    # Steps that calibrate come first, and one more for the result comes last.
    skipped = len(process.steps) - 1 - stats["rounds"] * stats["iterations"]
    timed = _timed(process, stats["data"], skipped, stats["iterations"])
    return Answer(stats["median"], median_of_medians, [timed], stats["iqr"])


def loop_command(job: Job) -> list[str]:
    warmup_steps, steps = map(str, job.settings.loop)
    return [job.python, str(BESIDE / "by_loop.py"), warmup_steps, steps]


def read_loop(job: Job, processes: Sequence[Process]) -> Answer:
    values = json.loads((job.folder / "stdout").read_text())
    (process,) = processes
    timed = _timed(process, values, skipped=job.settings.loop[0])
    return Answer(fmean(values), mean_of_all, [timed])


TOOLS = {
    "tlbench": Tool(
        "median of 5 trials' median steps",
        "95 % interval",
        tlbench_command,
        read_tlbench,
    ),
    "optimum-benchmark, process": Tool(
        "mean step of one process",
        "standard deviation of the steps",
        lambda job: optimum_command(job, "process"),
        read_optimum,
    ),
    "optimum-benchmark, inline": Tool(
        "mean step of one process",
        "standard deviation of the steps",
        lambda job: optimum_command(job, "inline"),
        read_optimum,
    ),
    "pyperf": Tool(
        "mean of 20 processes' 3 loops",
        "standard deviation of the loops",
        pyperf_command,
        read_pyperf,
    ),
    "pytest-benchmark": Tool(
        "median step of one process",
        "interquartile range of the steps",
        pytest_command,
        read_pytest,
    ),
    REFERENCE: Tool("mean step of one process", "none", loop_command, read_loop),
}


def _timed(
    process: Process, values: Sequence[float], skipped: int, loops: int = 1
) -> Timed:
    """Find the steps that the values are of, and make sure of it."""
    steps = process.steps[skipped : skipped + len(values) * loops]
    if len(steps) != len(values) * loops:
        raise PeerError(f"{len(values)} values of {loops} steps, {len(steps)} recorded")
    timed = Timed(np.asarray(values, dtype=float), steps)
    if np.any(timed.values < timed.inside - CLOCK_S):
        raise PeerError("some steps took longer inside than it says: not the same ones")
    return timed


# ---------------------------------------------------------------- measuring


def measure(tool: Tool, job: Job) -> Measurement:
    records = job.folder / "steps"
    records.mkdir()
    spent: dict[int, list[tuple[float, float]]] = defaultdict(list)
    start = time.perf_counter()
    _run(tool.command(job), _environment(job, records), job.folder, spent)
    wall_time_s = time.perf_counter() - start
    processes = [_read_record(path) for path in sorted(records.iterdir())]
    for process in processes:
        if process.threads != THREADS:
            raise PeerError(f"it ran on {process.threads} threads, not {THREADS}")
    answer = tool.read(job, processes)
    for process in processes:
        spent.pop(process.pid, None)
    windows = [timed.window for timed in answer.timed]
    return Measurement(answer, wall_time_s, _cores(spent, windows))


def _environment(job: Job, records: Path) -> dict[str, str]:
    return os.environ | {
        "PEERS_RECORD": str(records),
        "PEERS_WORKLOAD": BUILDERS[job.workload],
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "LOG_TO_FILE": "0",  # optimum-benchmark's own switch
    }


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    spent: Mapping[int, list[tuple[float, float]]],
) -> None:
    """Run a tool to its end, and look at the CPU time of its processes meanwhile."""
    errors = folder / "stderr"
    with (folder / "stdout").open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err
        )
        root = psutil.Process(process.pid)
        while process.poll() is None:
            for pid, moment in _cpu_times(root):
                spent[pid].append(moment)
            try:
                process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        last = (errors.read_text().strip().splitlines() or ["it says nothing"])[-1]
        raise PeerError(f"it ended with {process.returncode}: {last}")


def _cpu_times(root: psutil.Process) -> Iterator[tuple[int, tuple[float, float]]]:
    """When it is, and the CPU time so far, of a process and all below it."""
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        yield process.pid, (time.perf_counter(), times.user + times.system)


def _cores(
    spent: Mapping[int, Sequence[tuple[float, float]]], windows: Sequence[Interval]
) -> float:
    """How many cores these processes kept busy during the windows, on average."""
    busy_s = 0.0
    for moments in spent.values():
        times, cpu_times = zip(*moments, strict=True)
        busy_s += float(np.diff(np.interp(windows, times, cpu_times), axis=1).sum())
    return busy_s / sum(end - begin for begin, end in windows)


def _read_record(path: Path) -> Process:
    _, pid, threads = path.stem.split("-")
    steps = np.fromfile(path).reshape(-1, 2)
    return Process(int(pid), int(threads), steps[steps[:, 1] > 0])


# ---------------------------------------------------------------- the table

HEADINGS = (
    "workload",
    "tool",
    "its number",
    "step [ms]",
    "against inside",
    "against the truth",
    "it gives",
    "truth in its interval",
    "between steps [us]",
    "answer after [s]",
    "CPU beside",
)
LEGEND = """
Medians over the repeats; in brackets the one that is furthest from zero.

- *against inside*: its number over the same statistic of the same steps as they say of
  themselves, less 1: what the tool's clock adds.
- *against the truth*: its number over 20 ms, the time of every steady step and the
  median of the noisy ones; for ViT-Ti/16, whose truth nobody knows, over the number of
  the plain loop in the same repeat.
- *it gives*: what the tool says of its own uncertainty, and how large that is over its
  number; of an interval the full width.
- *between steps*: from the end of a timed step to the begin of the next, on average.
- *answer after*: from starting the tool's command until it has ended. tlbench measures
  memory and the latency of single samples in that time as well.
- *CPU beside*: share of a core that the tool's other processes took while steps were
  timed.
"""

Results = Mapping[tuple[str, str], Mapping[int, Measurement]]
"""By workload and tool, then by repeat."""


def table(results: Results) -> str:
    lines = [HEADINGS, ["---"] * len(HEADINGS)]
    lines += [
        (workload, name, *_cells(tool, results[workload, name], truth))
        for workload in BUILDERS
        for truth in [_truth(workload, results)]
        for name, tool in TOOLS.items()
        if results[workload, name]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _truth(workload: str, results: Results) -> dict[int, float]:
    """The step time that each repeat should have found."""
    if workload != VIT:
        measured = [results[workload, tool] for tool in TOOLS]
        return {repeat: STEP_TIME_S for found in measured for repeat in found}
    loops = results[workload, REFERENCE]
    return {repeat: loop.answer.step_time_s for repeat, loop in loops.items()}


def _cells(
    tool: Tool, measured: Mapping[int, Measurement], truth: Mapping[int, float]
) -> tuple[str, ...]:
    found = measured.values()
    inside = [m.answer.step_time_s / m.inside_s - 1 for m in found]
    outside = [
        measured[repeat].answer.step_time_s / truth[repeat] - 1
        for repeat in measured.keys() & truth.keys()
    ]
    return (
        tool.number,
        f"{median(m.answer.step_time_s for m in found) * 1e3:.3f}",
        _errors(inside),
        _errors(outside),
        _spread(tool, [m.answer for m in found]),
        _hits(measured, truth),
        f"{median(m.between_s for m in found) * 1e6:.1f}",
        f"{median(m.wall_time_s for m in found):.1f}",
        f"{median(m.beside for m in found):.1%}",
    )


def _errors(errors: Sequence[float]) -> str:
    if not errors:
        return ""
    return f"{median(errors):+.3%} ({max(errors, key=abs):+.3%})"


def _spread(tool: Tool, answers: Sequence[Answer]) -> str:
    shares = [a.spread / a.step_time_s for a in answers if a.spread is not None]
    return f"{tool.spread}, {median(shares):.2%}" if shares else tool.spread


def _hits(measured: Mapping[int, Measurement], truth: Mapping[int, float]) -> str:
    """How often the interval holds the truth; the plain loop is none to be held."""
    intervals = {
        repeat: m.answer.interval
        for repeat, m in measured.items()
        if m.answer.interval is not None and truth.get(repeat) == STEP_TIME_S
    }
    if not intervals:
        return ""
    hits = sum(
        low <= truth[repeat] <= high for repeat, (low, high) in intervals.items()
    )
    return f"{hits} of {len(intervals)}"


# ---------------------------------------------------------------- the whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-python", required=True, metavar="PATH")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else Settings()
    results: dict[tuple[str, str], dict[int, Measurement]] = defaultdict(dict)
    failures = []
    for repeat, workload, name in _order(arguments.repeats):
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            job = Job(workload, Path(folder), arguments.peers_python, settings)
            try:
                measured = measure(TOOLS[name], job)
            except PeerError as error:
                failures.append(f"{workload} by {name}, repeat {repeat}: {error}")
                print(failures[-1], file=sys.stderr)
                continue
        results[workload, name][repeat] = measured
        step_time_ms = measured.answer.step_time_s * 1e3
        print(f"{repeat} {workload}, {name}: {step_time_ms:.3f} ms", file=sys.stderr)
    print(table(results), LEGEND, *failures, sep="\n")
    raise SystemExit(bool(failures))


def _order(repeats: int) -> Iterator[tuple[int, str, str]]:
    """Every tool and workload once in each repeat, in an order of its own."""
    shuffled = random.Random(0)
    jobs = [(workload, name) for workload in BUILDERS for name in TOOLS]
    for repeat in range(repeats):
        for workload, name in shuffled.sample(jobs, len(jobs)):
            yield repeat, workload, name


if __name__ == "__main__":
    main()
